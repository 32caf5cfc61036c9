"""Load time and useful tokens per second of several samplers on the same prefixes, as labelling asks for them.

    python benchmarks/samplers.py hf:FOLDER vllm:FOLDER openai:http://localhost:8000/v1#NAME --tokenizer FOLDER

Rows are K completions of each of P random prefixes of 64 to 256 tokens. Every sampler draws the first round to warm up
and the second, with other seeds, on the clock. `--make FOLDER` writes a random Llama of 1.6 M parameters and ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from psgpo.models import train_tokenizer
from psgpo.problems.opchain import OpChain
from psgpo.sampling import SamplerStats, open_sampler


def make_model(folder: Path) -> None:
    """A random Llama with logits spread enough that its samples differ."""
    tokenizer = train_tokenizer([f"# {example.prompt}\n{example.solution}" for example in OpChain().sft_examples(1000)])
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **sizes, **ends)
    model = LlamaForCausalLM(config)
    sys.stdout.write(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters\n")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(spec: str, options: argparse.Namespace, extra: dict[str, Any]) -> tuple[float, SamplerStats]:
    """Seconds until the sampler is open, and what its second round took."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(64, 257, size=options.prefixes)
    prefixes = [rng.integers(2, 500, size=length).tolist() for length in lengths for _ in range(options.k)]
    started = time.perf_counter()
    sampler, _ = open_sampler(spec, batch_size=options.batch_size, **extra)
    loading = time.perf_counter() - started
    for number in range(2):
        before = sampler.stats  # type: ignore[attr-defined]
        seeds = range(number * len(prefixes), (number + 1) * len(prefixes))
        sampler.sample(prefixes, seeds=seeds, max_new_tokens=options.max_new_tokens)
    return loading, sampler.stats - before  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*")
    parser.add_argument("--tokenizer", help="folder, for a server")
    parser.add_argument("--make", type=Path)
    parser.add_argument("--prefixes", type=int, default=64)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    options = parser.parse_args()
    if options.make is not None:
        make_model(options.make)
        return
    rows = options.prefixes * options.k
    sys.stdout.write(f"{rows} rows, at most {options.max_new_tokens} new tokens, {options.batch_size} at a time\n")
    sys.stdout.write("sampler  load s  seconds  tokens  tokens/s  prefix tokens computed\n")
    for spec in options.specs:
        kind = spec.partition(":")[0]
        extra = {"openai": {"tokenizer": options.tokenizer}, "vllm": {"enforce_eager": True}}.get(kind, {})
        loading, stats = measure(spec, options, extra)
        sys.stdout.write(
            f"{kind:7}  {loading:6.1f}  {stats.seconds:7.1f}  {stats.useful_tokens:6}  {stats.tokens_per_second:8.0f}"
            f"  {stats.prefill_tokens:22}\n"
        )


if __name__ == "__main__":
    main()
