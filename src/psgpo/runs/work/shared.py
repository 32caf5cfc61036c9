"""What several stages do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from psgpo.config import Recipe
from psgpo.jsonl import read_jsonl
from psgpo.labeling.engine import Closing
from psgpo.problems.opchain import OpChain, OpChainSettings
from psgpo.records import LineLabels
from psgpo.runs.opening import chosen_device
from psgpo.runs.stages import embedded
from psgpo.sampling import Sampler, open_sampler

Progress = Callable[[int, int], None]
"""(done, total)."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one CPU thread: sums, hence results, then do not depend on the caller's setting or the load.

    Stages use several cores by running side by side.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def benchmark(recipe: Recipe) -> OpChain:
    source = embedded(recipe)
    assert source is not None
    return OpChain(OpChainSettings(seed=recipe.seed, sparseness=source.sparseness))


def read_labels(path: Path) -> list[LineLabels]:
    return list(read_jsonl(path, LineLabels.from_json))


@contextmanager
def opened_sampler(folder: Path, recipe: Recipe) -> Iterator[tuple[Sampler, PreTrainedTokenizerBase]]:
    """A policy's folder as the recipe's engine draws from it, and its tokenizer.

    Nothing is learned here, so a recipe that computes in bfloat16 has the weights in it too.
    """
    sampling = recipe.sampling
    spec = f"{'hf' if sampling.engine == 'transformers' else sampling.engine}:{folder}"
    options: dict[str, Any] = {} if recipe.model.dtype == "float32" else {"dtype": recipe.model.dtype}
    options |= sampling.engine_options
    device, rows = chosen_device(recipe), sampling.batch_size
    sampler, tokenizer = open_sampler(spec, device=device, batch_size=rows, **options)
    try:
        yield sampler, tokenizer
    finally:
        if isinstance(sampler, Closing):
            sampler.close()
