"""One value per token: the critic and the process reward model are the same module.

On disk it is an `AutoModelForTokenClassification` with one label whose raw logit is the value, which verl's critic,
OpenRLHF and vLLM's pooling read unchanged.
"""

# B sequences, T tokens

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from psgpo.errors import UserError
from psgpo.models.adapters import save_merged
from psgpo.models.dropout import switch_off_dropout
from psgpo.models.folder import load_whole
from psgpo.models.policy import (
    check_policy_folder,
    checked_config,
    described,
    load_policy,
    reads_ahead,
    value_config,
)
from psgpo.models.seq2seq_value import Seq2SeqValueConfig


class TokenValueModel(nn.Module):
    """A trunk with a scalar head; `forward` gives the value after every token."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        if classifier.config.num_labels != 1:
            raise UserError(
                f"{classifier.config.name_or_path or 'model'}: a value model has num_labels = 1, "
                f"found {classifier.config.num_labels}; retrain it with one label"
            )
        self.classifier = classifier
        switch_off_dropout(classifier)

    @property
    def head(self) -> nn.Linear:
        """The scalar head."""
        for name in ("score", "classifier"):
            head = getattr(self.classifier, name, None)
            if isinstance(head, nn.Linear):
                return head
        raise UserError(f"{type(self.classifier).__name__}: no linear head named 'score' or 'classifier'")

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Values `(B, T)` in float32: entry t is the value of the state after token t."""
        # Most models cache keys and values unless told not to; nothing reads on from here.
        output = self.classifier(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return output.logits.squeeze(-1).float()

    @torch.no_grad()
    def apply_affine(self, scale: float, shift: float) -> None:
        """Make every value `scale * value + shift` from now on, by changing the head alone."""
        head = self._head_with_bias()
        head.weight.mul_(scale)
        head.bias.mul_(scale).add_(shift)

    @torch.no_grad()
    def replace_head(self, weight: Tensor, bias: float) -> None:
        """Make every value `weight · state + bias` from now on. `weight`: (1, D), sharded as the head's own is."""
        head = self._head_with_bias()
        head.weight.copy_(weight)
        head.bias.fill_(bias)

    def _head_with_bias(self) -> nn.Linear:
        head = self.head
        if head.bias is None:
            raise UserError(f"{type(self.classifier).__name__}: its head has no bias, so a shift cannot be folded in")
        return head

    @classmethod
    def from_policy(
        cls, policy: PreTrainedModel | Path | str, *, head_init: Literal["zeros", "normal"] = "zeros", seed: int = 0
    ) -> TokenValueModel:
        """A fresh scalar head on a copy of the policy's trunk. The bias starts at 0 and is frozen there.

        Raises:
            UserError: transformers has no token-classification model for this architecture.
        """
        if isinstance(policy, Path | str):
            policy = load_policy(policy)[0]
        config = value_config(policy)
        try:
            with torch.random.fork_rng():
                classifier = AutoModelForTokenClassification.from_config(config, trust_remote_code=False)
        except ValueError as error:
            raise UserError(
                f"model_type {config.model_type!r}: transformers has no token-classification model for it, so it "
                "cannot carry a value head; use an architecture such as llama, qwen2, qwen3, gpt2 or psgpo-shift"
            ) from error
        classifier.to(device=policy.device, dtype=policy.dtype)
        trunk = classifier.base_model.state_dict().keys()  # T5's policy keeps its head among them
        classifier.base_model.load_state_dict({k: v for k, v in policy.base_model.state_dict().items() if k in trunk})
        model = cls(classifier.eval())
        with torch.no_grad():
            if head_init == "zeros":
                model.head.weight.zero_()
            else:
                generator = torch.Generator().manual_seed(seed)
                std = getattr(config, "initializer_range", 0.02)
                model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=generator) * std)
            if model.head.bias is not None:
                model.head.bias.zero_().requires_grad_(False)
        return model

    @classmethod
    def from_pretrained(
        cls, directory: Path | str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> TokenValueModel:
        """Load a value model folder.

        Raises:
            UserError: no such folder, no token-classification model in it, an encoder, or more than one label.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(f"{directory}: no such folder; give the local folder of a value model")
        try:
            config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            _refuse_no_values(config, directory)
            classifier = load_whole(AutoModelForTokenClassification, directory, dtype=dtype)
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{directory}: not a value model ({' '.join(str(error).split())[:300]})") from error
        model = cls(classifier.to(device).eval())
        if model.head.bias is not None:
            model.head.bias.requires_grad_(False)
        return model

    def keep_layers(self, count: int) -> None:
        """Leave out all layers of the trunk but the first `count`; the folder written later says so.

        Raises:
            UserError: the trunk has fewer, or keeps its layers in no one list.
        """
        trunk = self.classifier.base_model
        had = getattr(self.classifier.config, "num_hidden_layers", None)
        limit_layers(self.classifier.config, count)
        lists = [(name, child) for name, child in trunk.named_children() if isinstance(child, nn.ModuleList)]
        found = [(name, child) for name, child in lists if len(child) == had]
        if len(found) != 1:
            raise UserError(f"{type(trunk).__name__}: cannot tell which of its layers come first; leave layers out")
        ((name, child),) = found
        setattr(trunk, name, child[:count])

    def save_pretrained(self, directory: Path | str, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write the folder, adapters merged; with the tokenizer, so that the folder stands alone."""
        save_merged(self.classifier, directory)
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)


def limit_layers(config: PretrainedConfig, count: int) -> None:
    """Make this the config of a model of the first `count` layers.

    Raises:
        UserError: it has fewer, or is an encoder–decoder.
    """
    if config.is_encoder_decoder or isinstance(config, Seq2SeqValueConfig):
        raise UserError(f"layers = {count}: an encoder–decoder has layers on both sides; leave it out")
    if count > config.num_hidden_layers:
        raise UserError(
            f"layers = {count}: the model to start from has {config.num_hidden_layers}; give no more, or leave it out"
        )
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:count]


def initial_model(init_dir: Path | str, seed: int) -> TokenValueModel:
    """A fresh head on a language model's trunk, or the value model that the folder holds."""
    if _holds_values(Path(init_dir)):
        return TokenValueModel.from_pretrained(init_dir)
    return TokenValueModel.from_policy(init_dir, seed=seed)


def check_value_start(directory: Path | str, *, context: int = 0) -> str:
    """Look at a folder for `initial_model` without loading its weights; says what it is.

    Args:
        context: tokens that a response may have, which the model must be able to read.

    Raises:
        UserError: it is neither a value model nor a policy that can carry a value head, or reads too little.
    """
    directory = Path(directory)
    if not _holds_values(directory):
        return check_policy_folder(directory, context=context)
    config = checked_config(directory, context=context)
    _refuse_no_values(config, directory)
    with torch.device("meta"):
        return described(AutoModelForTokenClassification.from_config(config, trust_remote_code=False))


def _holds_values(directory: Path) -> bool:
    config = directory / "config.json"
    names = json.loads(config.read_text(encoding="utf-8")).get("architectures") if config.is_file() else None
    return any("TokenClassification" in name for name in names or ())


def _refuse_no_values(config: PretrainedConfig, directory: Path) -> None:
    if config.num_labels != 1:
        raise UserError(
            f"{directory}: a value model has num_labels = 1, found {config.num_labels}; retrain it with one label"
        )
    if reads_ahead(config) or (config.is_encoder_decoder and not isinstance(config, Seq2SeqValueConfig)):
        raise UserError(
            f"{directory}: its values (model_type {config.model_type!r}) come from an encoder, which reads what comes "
            "after a token too; give a value model made by psgpo, or one of a decoder"
        )
