"""Making and loading policies: any Hugging Face causal language model or encoder–decoder with its tokenizer."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from psgpo.errors import UserError
from psgpo.models.dropout import switch_off_dropout
from psgpo.models.folder import load_whole
from psgpo.models.seq2seq import settle_special_ids
from psgpo.models.seq2seq_value import Seq2SeqValueConfig
from psgpo.models.shift import ShiftConfig, ShiftForCausalLM
from psgpo.prompts import set_encoder_prompts


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

    The folder's config.json tells whether its prompts are read by an encoder (`psgpo.prompts`).

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
    config = directory / "config.json"
    said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    set_encoder_prompts(tokenizer, bool(said.get("is_encoder_decoder", False)))
    return tokenizer


def load_policy(
    directory: Path | str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load `(model, tokenizer)` from a local folder of any causal language model or encoder–decoder.

    Nothing is downloaded or executed. Dropout is switched off.

    Raises:
        UserError: the folder, its configuration, weights or tokenizer is missing or unusable, or it holds an encoder.
    """
    directory = _existing(directory)
    tokenizer = load_tokenizer(directory)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        model = load_whole(_auto_class(config, directory), directory, dtype=dtype)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{directory}: not loadable as a language model ({_one_line(error)}); psgpo needs config.json and weights "
            "of an architecture that transformers knows, and runs no code from model folders"
        ) from error
    if config.is_encoder_decoder:
        settle_special_ids(model, tokenizer, str(directory))
    set_encoder_prompts(tokenizer, config.is_encoder_decoder)
    switch_off_dropout(model)
    return model.to(device).eval(), tokenizer


def reads_ahead(config: PretrainedConfig) -> bool:
    """Whether what such a model says about a token depends on the tokens after it: an encoder.

    transformers builds a language model with a causal head of BERT and its like too, and only warns.
    """
    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return False
    kinds = (MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    return any(config.model_type in names for names in kinds)


def _auto_class(config: PretrainedConfig, directory: Path) -> Any:
    """What builds a policy of this configuration.

    Raises:
        UserError: nothing does.
    """
    if reads_ahead(config):
        raise UserError(
            f"{directory}: model_type {config.model_type!r} cannot be policy and critic: it is an encoder, which reads "
            "what comes after a token too; use a decoder such as llama or qwen2, or an encoder–decoder such as t5"
        )
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def check_policy_folder(directory: Path | str, *, context: int = 0) -> str:
    """Look at a policy folder without loading its weights.

    Args:
        context: tokens that a response may have, which the model must be able to read.

    Returns:
        What it is: architecture, parameters, vocabulary.

    Raises:
        UserError: it is no policy, cannot carry a value head, reads too little, or lacks its tokenizer.
    """
    directory = _existing(directory)
    tokenizer, config = load_tokenizer(directory), checked_config(directory, context=context)
    try:
        with torch.device("meta"):
            model = _auto_class(config, directory).from_config(config, trust_remote_code=False)
            if config.is_encoder_decoder:
                settle_special_ids(model, tokenizer, str(directory))
            AutoModelForTokenClassification.from_config(value_config(model), trust_remote_code=False)
    except UserError:
        raise
    except (ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{directory}: model_type {config.model_type!r} cannot be policy and critic ({_one_line(error)}); use a "
            "decoder such as llama, qwen2, qwen3 or gpt2, or an encoder–decoder such as t5"
        ) from error
    return f"{described(model)}, {len(tokenizer):,} tokens in the vocabulary"


def checked_config(directory: Path, *, context: int) -> PretrainedConfig:
    """The configuration of a model folder that has weights and reads more than `context` tokens.

    Raises:
        UserError: it has not.
    """
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory}: no usable config.json ({_one_line(error)})") from error
    if not (list(directory.glob("*.safetensors")) or list(directory.glob("pytorch_model*.bin"))):
        raise UserError(f"{directory}: no weights (*.safetensors); download the whole model folder")
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and longest <= context:
        raise UserError(
            f"{directory}: its context holds {longest} tokens, sampling.max_new_tokens is {context}; lower it"
        )
    return config


def described(model: PreTrainedModel) -> str:
    """Architecture and size in words."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__}, {count:,} parameters"


def value_config(policy: PreTrainedModel) -> PretrainedConfig:
    """The configuration of a value model on this policy's trunk."""
    if policy.config.is_encoder_decoder:
        return Seq2SeqValueConfig.around(policy.config, num_labels=1)
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    config.classifier_dropout = 0.0
    return config


def _existing(directory: Path | str) -> Path:
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the local folder of a model (download hub models first)")
    return directory


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
