"""Making and loading policies: any Hugging Face causal language model with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from psgpo.errors import UserError
from psgpo.models.shift import ShiftConfig, ShiftForCausalLM


def create_policy(tokenizer: PreTrainedTokenizerBase, *, seed: int = 0, **config: Any) -> ShiftForCausalLM:
    """A freshly initialised shift decoder for this tokenizer; `config` overrides `ShiftConfig` fields.

    The global random state is left as it was.
    """
    shape = ShiftConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **config,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ShiftForCausalLM(shape).eval()


def load_tokenizer(directory: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; without a pad token, the end-of-sequence token pads.

    Raises:
        UserError: no folder, no tokenizer in it, or a tokenizer without an end-of-sequence token.
    """
    directory = _existing(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{directory}: no usable tokenizer ({_one_line(error)}); save it beside the model with "
            "tokenizer.save_pretrained(folder)"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"{directory}: the tokenizer has no eos_token; set tokenizer.eos_token and save it again")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(
    directory: Path | str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load `(model, tokenizer)` from a local folder of any causal language model; nothing is downloaded or executed.

    Dropout is switched off: PPO compares logprobs of the same weights, and noise is no change of policy.

    Raises:
        UserError: the folder, its configuration, weights or tokenizer is missing or unusable.
    """
    directory = _existing(directory)
    tokenizer = load_tokenizer(directory)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{directory}: not loadable as a causal language model ({_one_line(error)}); psgpo needs config.json and "
            "weights of an architecture that transformers knows, and runs no code from model folders"
        ) from error
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.to(device).eval(), tokenizer


def check_policy_folder(directory: Path | str, *, context: int = 0) -> str:
    """Look at a policy folder without loading its weights.

    Args:
        context: tokens that a response may have, which the model must be able to read.

    Returns:
        What it is: architecture, parameters, vocabulary.

    Raises:
        UserError: it is no causal language model, cannot carry a value head, reads too little, or lacks its tokenizer.
    """
    directory = _existing(directory)
    tokenizer = load_tokenizer(directory)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory}: no usable config.json ({_one_line(error)})") from error
    if not (list(directory.glob("*.safetensors")) or list(directory.glob("pytorch_model*.bin"))):
        raise UserError(f"{directory}: no weights (*.safetensors); download the whole model folder")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            config.num_labels = 1
            AutoModelForTokenClassification.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{directory}: model_type {config.model_type!r} cannot be policy and critic ({_one_line(error)}); use a "
            "decoder such as llama, qwen2, qwen3 or gpt2"
        ) from error
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and longest <= context:
        raise UserError(
            f"{directory}: its context holds {longest} tokens, sampling.max_new_tokens is {context}; lower it"
        )
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__}, {count:,} parameters, {len(tokenizer):,} tokens in the vocabulary"


def _existing(directory: Path | str) -> Path:
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the local folder of a model (download hub models first)")
    return directory


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
