"""One value per token: the critic and the process reward model are the same module.

On disk it is an `AutoModelForTokenClassification` with one label whose raw logit is the value, which verl's critic,
OpenRLHF and vLLM's pooling read unchanged.
"""

# B sequences, T tokens

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from psgpo.errors import UserError
from psgpo.models.adapters import save_merged
from psgpo.models.policy import load_policy


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
        for module in classifier.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

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
        return self.classifier(input_ids=input_ids, attention_mask=attention_mask).logits.squeeze(-1).float()

    @torch.no_grad()
    def apply_affine(self, scale: float, shift: float) -> None:
        """Make every value `scale * value + shift` from now on, by changing the head alone."""
        head = self.head
        if head.bias is None:
            raise UserError(f"{type(self.classifier).__name__}: its head has no bias, so a shift cannot be folded in")
        head.weight.mul_(scale)
        head.bias.mul_(scale).add_(shift)

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
        config = copy.deepcopy(policy.config)
        config.num_labels = 1
        config.classifier_dropout = 0.0
        try:
            with torch.random.fork_rng():
                classifier = AutoModelForTokenClassification.from_config(config, trust_remote_code=False)
        except ValueError as error:
            raise UserError(
                f"model_type {config.model_type!r}: transformers has no token-classification model for it, so it "
                "cannot carry a value head; use an architecture such as llama, qwen2, qwen3, gpt2 or psgpo-shift"
            ) from error
        classifier.to(device=policy.device, dtype=policy.dtype)
        classifier.base_model.load_state_dict(policy.base_model.state_dict())
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
            UserError: no such folder, no token-classification model in it, or more than one label.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise UserError(f"{directory}: no such folder; give the local folder of a value model")
        try:
            labels = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False).num_labels
            if labels != 1:
                raise UserError(
                    f"{directory}: a value model has num_labels = 1, found {labels}; retrain it with one label"
                )
            classifier = AutoModelForTokenClassification.from_pretrained(
                directory, dtype=dtype, local_files_only=True, trust_remote_code=False
            )
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{directory}: not a value model ({' '.join(str(error).split())[:300]})") from error
        model = cls(classifier.to(device).eval())
        if model.head.bias is not None:
            model.head.bias.requires_grad_(False)
        return model

    def save_pretrained(self, directory: Path | str, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write the folder, adapters merged; with the tokenizer, so that the folder stands alone."""
        save_merged(self.classifier, directory)
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)
