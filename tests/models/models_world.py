"""Tiny random policies of several architectures."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTBigCodeConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Starcoder2Config,
)

from psgpo.models import create_policy

TEXT = (
    "# keep the even numbers; then add 3 to each; then return the sum\n"
    "def solve(x):\n    x = [v for v in x if v % 2 == 0]\n    out = []\n    for v in x:\n"
    "        out.append(v + 3)\n    x = out\n    return sum(x)\n"
)

ARCHITECTURES = ("psgpo-shift", "llama", "gpt2", "qwen2")
UNUSUAL = ("mistral", "bloom")
"""A sliding window, and positions counted from the attention mask: not decodable in slots."""
REAL = (*ARCHITECTURES, "qwen3", "gpt_bigcode", "starcoder2")
"""What users bring."""


def tiny_policy(name: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A random model whose logits spread enough for sampling to matter."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}
    common = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    llama = sizes | common | {"intermediate_size": 48, "num_key_value_heads": 2}
    torch.manual_seed(3)
    if name == "psgpo-shift":
        model: PreTrainedModel = create_policy(tokenizer, **sizes, intermediate_size=48)
    elif name == "gpt2":
        config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=96, **common)
        model = AutoModelForCausalLM.from_config(config)
    elif name == "gpt_bigcode":
        config = GPTBigCodeConfig(n_embd=32, n_layer=2, n_head=4, n_positions=96, **common, attn_pdrop=0, resid_pdrop=0)
        model = AutoModelForCausalLM.from_config(config)
    elif name == "bloom":
        config = BloomConfig(hidden_size=32, n_layer=2, n_head=4, **common)
        model = AutoModelForCausalLM.from_config(config)
    else:
        config = {
            "llama": lambda: LlamaConfig(**llama),
            "qwen2": lambda: Qwen2Config(**llama),
            "qwen3": lambda: Qwen3Config(**llama, head_dim=8),
            "starcoder2": lambda: Starcoder2Config(**llama, residual_dropout=0.0, embedding_dropout=0.0),
            "mistral": lambda: MistralConfig(**llama, sliding_window=6),
        }[name]()
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
    return model.eval()


def softcapped(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A model that changes its logits after the head."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Gemma2Config(
        **sizes,
        head_dim=8,
        intermediate_size=48,
        vocab_size=len(tokenizer),
        pad_token_id=0,
        final_logit_softcapping=2.0,
    )
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config).eval()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
