"""Tiny random policies and a batch of responses with what a step aims at."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma2Config,
    LlamaConfig,
    PreTrainedModel,
    T5Config,
)

from psgpo.models import ShiftConfig, ShiftForCausalLM, right_pad
from psgpo.rl.learner import Batch, Targets

LENGTHS = [(3, 9), (5, 2), (2, 14), (4, 6), (3, 3), (6, 7), (2, 11), (5, 5)]
"""(prompt, response) tokens."""
SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "pad_token_id": 0}
END = 2
"""Ends every prompt, as an encoder–decoder's does."""


def policy(name: str) -> PreTrainedModel:
    torch.manual_seed(1)
    if name == "shift":
        return ShiftForCausalLM(ShiftConfig(**SIZES, num_attention_heads=2)).eval()
    if name == "t5":
        t5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
        ids = {"vocab_size": 40, "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": END}
        return AutoModelForSeq2SeqLM.from_config(T5Config(**t5, **ids, initializer_factor=0.5)).eval()
    if name == "gemma2":  # its logits are capped: no plain head
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
        capped = Gemma2Config(**SIZES, **heads, final_logit_softcapping=2.0, initializer_range=0.2)
        return AutoModelForCausalLM.from_config(capped).eval()
    config = LlamaConfig(**SIZES, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.2)
    return AutoModelForCausalLM.from_config(config).eval()


def batch() -> tuple[Batch, Targets]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(END + 1, 40, (sum(length),), generator=generator).tolist() for length in LENGTHS]
    for row, (prompt, _) in zip(rows, LENGTHS, strict=True):
        row[prompt - 1] = END
    ids, attention = right_pad(rows, 0)
    mask = (attention * (torch.arange(ids.shape[1]) >= torch.tensor([p for p, _ in LENGTHS])[:, None])).float()
    old, rewards, advantages, returns, values = (torch.randn(ids.shape, generator=generator) * mask for _ in range(5))
    finished = torch.arange(len(LENGTHS)) % 3 != 1  # three of eight were cut off
    batch = {"input_ids": ids, "attention_mask": attention, "mask": mask, "finished": finished}
    return (
        Batch(**batch, old_logprobs=old - 3 * mask, rewards=rewards),
        Targets(advantages=advantages, returns=returns, old_values=values),
    )
