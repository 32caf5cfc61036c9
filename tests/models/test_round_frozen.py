"""Frozen matrices in bfloat16: half the bytes, and under autocast the same numbers."""

from __future__ import annotations

import pytest
import torch
from models_world import REAL, tiny_policy
from seq2seq_world import SEQ2SEQ, tiny_seq2seq
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from psgpo.models import TokenValueModel, right_pad, round_frozen, token_logprobs
from psgpo.training import computing

IDS, MASK = right_pad([[5, 6, 2, 7, 8, 9, 10], [11, 2, 12, 13]], 0)
"""Id 2 ends the prompts of encoder–decoders."""


def made(name: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_seq2seq(name) if name in SEQ2SEQ else tiny_policy(name, tokenizer)


def logprobs(model: PreTrainedModel) -> torch.Tensor:
    marked = MASK * (torch.arange(IDS.shape[1]) >= 3)
    with torch.no_grad(), computing("bfloat16", "cpu"):
        return token_logprobs(model, IDS, MASK, marked)[0]


@pytest.mark.parametrize("name", [*REAL, *SEQ2SEQ])
def test_products_are_the_same_bit_for_bit(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = made(name, tokenizer).requires_grad_(False)
    values = TokenValueModel.from_policy(model, head_init="normal").requires_grad_(False)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), computing("bfloat16", "cpu"):
            return logprobs(model), values(IDS, MASK)

    before = both()
    round_frozen(model, "bfloat16")
    round_frozen(values, "bfloat16")
    for was, found in zip(before, both(), strict=True):
        assert torch.equal(was, found)
    assert values.head.weight.dtype == torch.bfloat16
    embedding = model.get_input_embeddings().weight
    assert embedding.dtype == torch.float32
    rounded = [p for p in model.parameters() if p.dtype == torch.bfloat16]
    rest = sum(p.numel() for p in model.parameters()) - embedding.numel()
    assert sum(p.numel() for p in rounded) > 0.4 * rest


def test_what_learns_and_what_computes_in_float32_stay_as_they_are(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_policy("llama", tokenizer).requires_grad_(False)
    round_frozen(model, "float32")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    learning = model.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    round_frozen(model, "bfloat16")
    assert learning.dtype == torch.float32
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert {name for name in kept if "norm" not in name and "embed" not in name} == {
        "model.layers.0.mlp.up_proj.weight"
    }
    tied = tiny_policy("gpt2", tokenizer).requires_grad_(False)  # its head is its embedding
    round_frozen(tied, "bfloat16")
    assert tied.lm_head.weight is tied.transformer.wte.weight
    assert tied.lm_head.weight.dtype == torch.float32
