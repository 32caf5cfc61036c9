"""A recipe small enough to run whole in a test, and its run, made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from chromium import NO_CHROMIUM, REQUIRED, Chromium, find_chromium
from psgpo.config import Recipe, load_recipe

# Tests run side by side, one worker for each core; PyTorch reads this when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Hypothesis would fail an example that takes 200 ms: tests assert no times.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
TINY = [
    "processes=2",
    "problems.train=24",
    "problems.train_operations=[1, 2]",
    "problems.label=16",
    "problems.label_operations=[1, 3]",
    "problems.validation=2",
    "problems.test=8",
    "problems.test_operations=[1, 2]",
    "model.hidden_size=32",
    "model.layers=2",
    "model.vocab_size=400",
    "sft.examples=1200",
    "sft.operations=[1, 2]",
    "sampling.max_new_tokens=64",
    "rl.steps=4",
    "rl.prompts_per_step=12",
    "rl.checkpoints=2",
    "labels.k=3",
    "labels.draw=2",
    "labels.compare_linear=3",
    "labels.holdout=0.4",
    "prm.sign.epochs=1",
    "prm.progress.epochs=1",
    "evaluation.samples=2",
    "evaluation.bootstrap=50",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One for the tests of a file, which skip themselves where there is no Chromium and none is required."""
    binary = find_chromium()
    if binary is None:
        pytest.fail(f"{REQUIRED}=1, and {NO_CHROMIUM}")
    with Chromium(binary, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="session")
def tiny_overrides() -> list[str]:
    """Overrides that shrink recipes/demo.toml to seconds."""
    return list(TINY)


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The demo's recipe, shrunk, in a folder of its own."""
    out = tmp_path_factory.mktemp("tiny") / "run"
    return load_recipe(ROOT / "recipes" / "demo.toml", [*TINY, f"out={out}"])
