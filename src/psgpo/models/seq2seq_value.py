"""One value per token from an encoder–decoder: its decoder's states with a linear head.

transformers' token classifiers of encoder–decoders read a text with the encoder alone, and that sees what comes after
a token too: no value of a prefix. So this model has a type of its own, `psgpo-seq2seq-value`, that the Auto classes
know once `psgpo.models` is imported.
"""

# B sequences, S positions of prompt and response, d hidden features

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from psgpo.models.seq2seq import Seq2SeqTrunk, SplitRows, special_ids


class Seq2SeqValueConfig(PretrainedConfig):
    """The trunk's configuration, and the ids that split a row (`psgpo.models.seq2seq`)."""

    model_type = "psgpo-seq2seq-value"

    def __init__(self, trunk: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """
        Args:
            trunk: `to_dict()` of an encoder–decoder's configuration; None: a T5's defaults.
        """
        self.trunk = trunk or AutoConfig.for_model("t5").to_dict()
        kwargs.setdefault("is_encoder_decoder", True)
        super().__init__(**kwargs)

    @classmethod
    def around(cls, config: PretrainedConfig, **kwargs: Any) -> Seq2SeqValueConfig:
        """Of a value model on this trunk."""
        ids = special_ids(config)
        return cls(
            trunk=config.to_dict(),
            decoder_start_token_id=ids["start"],
            eos_token_id=ids["end"],
            pad_token_id=ids["pad"],
            vocab_size=getattr(config, "vocab_size", None),
            max_position_embeddings=getattr(config, "max_position_embeddings", None),
            **kwargs,
        )

    def trunk_config(self) -> PretrainedConfig:
        """What `trunk` was made from."""
        settings = dict(self.trunk)
        found: PretrainedConfig = AutoConfig.for_model(settings.pop("model_type"), **settings)
        return found


class Seq2SeqForTokenClassification(PreTrainedModel):
    """Critic or PRM: decoder states -> `num_labels` numbers per token."""

    config_class = Seq2SeqValueConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: Seq2SeqValueConfig) -> None:
        super().__init__(config)
        self.model = AutoModel.from_config(config.trunk_config())
        width = self.model.get_input_embeddings().embedding_dim
        self.score = nn.Linear(width, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> TokenClassifierOutput:
        """Logits `(B, S, num_labels)`: those of the head's bias alone before a prompt's EOS."""
        mask_BS = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return TokenClassifierOutput(logits=self.score(Seq2SeqTrunk(self.model)(input_ids, mask_BS).last_hidden_state))

    def read(self, rows: SplitRows) -> Tensor:
        """Logits of rows that are split already."""
        found: Tensor = self.score(Seq2SeqTrunk(self.model).states(rows))
        return found


def register() -> None:
    """Make the Auto classes know `psgpo-seq2seq-value`. Called once, by importing `psgpo.models`."""
    AutoConfig.register(Seq2SeqValueConfig.model_type, Seq2SeqValueConfig, exist_ok=True)
    AutoModelForTokenClassification.register(Seq2SeqValueConfig, Seq2SeqForTokenClassification, exist_ok=True)
