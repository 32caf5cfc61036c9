"""Where problems come from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from psgpo.config.base import Positive, PositiveFloat, Range, Section


class OpChainSource(Section):
    """The embedded benchmark, made from a seed. See docs/opchain.md."""

    kind: Literal["opchain"] = "opchain"
    sparseness: PositiveFloat = 1.1
    """Scales the misconception rates of the SFT data: higher means fewer programs pass at first."""
    train: Positive = 2000
    """Problems for RL."""
    train_operations: Range = (6, 9)
    """Fewest and most operations of a training problem."""
    label: Positive = 200
    """Problems whose responses are labelled; from the training split."""
    label_operations: Range = (1, 6)
    """Shorter than the training problems: on long programs the policy cannot complete even good prefixes."""
    validation: Positive = 128
    test: Positive = 256
    test_operations: Range = (1, 8)
    """Of validation and test problems."""


class JsonlSource(Section):
    """Your own problems, one `Problem` record a line."""

    kind: Literal["jsonl"]
    train: Path
    test: Path
    validation: Path | None = None
    """Copied into the run beside the others; no stage reads it."""
    label: Path | None = None
    """Problems to label; the training problems when absent."""
