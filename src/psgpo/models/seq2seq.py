"""Encoder–decoders, read as decoders are: rows of ids in, one hidden state per position out.

A prompt ends with the end-of-sequence token (`psgpo.prompts`), so a row of ids splits after its first one:

    row          x_1 … x_k  EOS    y_1 … y_n
    encoder      x_1 … x_k  EOS
    decoder                 start  y_1 … y_n
    state here              yes    yes          it predicts the token at the next position, as in a decoder

Before the prompt's EOS there is no decoder, hence no state: zeros. Log-probabilities, losses, critic and PRM read the
states at their positions and need not know what made them.
"""

# B sequences, S positions of prompt and response, P of the longest prompt, R decoder steps, d hidden features

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from psgpo.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRows:
    """Rows as an encoder–decoder takes them, padded on the right."""

    encoder_ids: Tensor
    """(B, P)."""
    encoder_mask: Tensor
    """(B, P)."""
    decoder_ids: Tensor
    """(B, R), the start token first."""
    decoder_mask: Tensor
    """(B, R)."""
    places: Tensor
    """(B, S), True where the row holds a decoder state: as many as `decoder_mask` has, in the same order."""

    def spread(self, state_BRd: Tensor) -> Tensor:
        """Decoder states at their positions of the row, zeros elsewhere. Shape: (B, S, d)."""
        empty_BSd = state_BRd.new_zeros((*self.places.shape, state_BRd.shape[-1]))
        return empty_BSd.masked_scatter(self.places[..., None], state_BRd[self.decoder_mask.bool()])


def split_rows(input_ids: Tensor, attention_mask: Tensor, *, start: int, end: int, pad: int) -> SplitRows:
    """Split right-padded rows (B, S) behind their first `end`.

    Args:
        start, end, pad: ids of the decoder's first input, of the end of a sequence, and of padding.

    Raises:
        UserError: a row has no `end`.
    """
    S = input_ids.shape[1]
    column_S = torch.arange(S, device=input_ids.device)
    is_end_BS = (input_ids == end) & attention_mask.bool()
    prompt_B = torch.where(is_end_BS.any(1), is_end_BS.int().argmax(1) + 1, S + 1)
    P, R = torch.stack([prompt_B.max(), (attention_mask.sum(1) - prompt_B).max() + 1]).tolist()
    if P > S:
        raise UserError(
            f"a row has no end-of-sequence token (id {end}), with which an encoder–decoder's prompt ends; its prompts "
            "must be made by its own tokenizer (psgpo.prompts.encode_prompt)"
        )
    places_BS = attention_mask.bool() & (column_S >= prompt_B[:, None] - 1)
    decoder_mask = torch.arange(R, device=input_ids.device) < places_BS.sum(1, keepdim=True)
    decoder_ids = torch.full_like(decoder_mask, pad, dtype=input_ids.dtype)
    decoder_ids = decoder_ids.masked_scatter(decoder_mask, input_ids[places_BS])
    decoder_ids[:, 0] = start
    encoder_mask = column_S[:P] < prompt_B[:, None]
    return SplitRows(
        encoder_ids=input_ids[:, :P].masked_fill(~encoder_mask, pad),
        encoder_mask=encoder_mask.long(),
        decoder_ids=decoder_ids,
        decoder_mask=decoder_mask.long(),
        places=places_BS,
    )


class Seq2SeqTrunk:
    """Encoder and decoder of a model, called as a decoder's trunk is. Holds the two, not the model itself."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.encoder, self.decoder = model.get_encoder(), model.get_decoder()
        self._ids = special_ids(model.config)

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool = False) -> BaseModelOutput:
        """`last_hidden_state` (B, S, d): see the head of this file."""
        assert not use_cache, "sampling feeds encoder and decoder by itself"
        rows = split_rows(input_ids, attention_mask, **self._ids)
        states_BPd = self.encoder(input_ids=rows.encoder_ids, attention_mask=rows.encoder_mask).last_hidden_state
        decoded = self.decoder(
            input_ids=rows.decoder_ids,
            attention_mask=rows.decoder_mask,
            encoder_hidden_states=states_BPd,
            encoder_attention_mask=rows.encoder_mask,
            use_cache=False,
        )
        return BaseModelOutput(last_hidden_state=rows.spread(decoded.last_hidden_state))


def marked_logits(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, marked_BS: Tensor) -> Tensor:
    """Logits (N, V) at the marked positions, by the model's own forward."""
    rows = split_rows(input_ids, attention_mask, **special_ids(model.config))
    output = model(
        input_ids=rows.encoder_ids,
        attention_mask=rows.encoder_mask,
        decoder_input_ids=rows.decoder_ids,
        decoder_attention_mask=rows.decoder_mask,
        use_cache=False,
    )
    found: Tensor = output.logits[rows.decoder_mask.bool()][marked_BS[rows.places]]
    return found


def special_ids(config: Any) -> dict[str, int]:
    """`start`, `end` and `pad` of `split_rows`, as `settle_special_ids` left them."""
    return {"start": config.decoder_start_token_id, "end": config.eos_token_id, "pad": config.pad_token_id}


def settle_special_ids(model: PreTrainedModel, tokenizer: Any, name: str) -> None:
    """Make the configuration say which ids an encoder–decoder starts, ends and pads with.

    Args:
        name: of the model, for messages.

    Raises:
        UserError: nothing says what the decoder starts with, or model and tokenizer end sequences differently.
    """
    config: PretrainedConfig = model.config
    # In the order in which `generate` looks for it.
    places = [(config, "decoder_start_token_id"), (model.generation_config, "decoder_start_token_id")]
    places += [(model.generation_config, "bos_token_id")]
    start = next((found for place, key in places if (found := getattr(place, key, None)) is not None), None)
    if start is None:
        raise UserError(f"{name}: its config.json names no decoder_start_token_id; add it (T5: the pad token's id)")
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        raise UserError(
            f"{name}: its config.json ends sequences with id {config.eos_token_id}, its tokenizer with "
            f"{tokenizer.eos_token_id} ({tokenizer.eos_token!r}); make them the same"
        )
    config.decoder_start_token_id, config.eos_token_id = int(start), int(tokenizer.eos_token_id)
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
