"""How PRMs, ORMs and policies are read for an evaluation: numbers per line to keep, and what they say of a line."""

# L code lines

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from psgpo.prm.evaluation.baselines import PolicySurprise
from psgpo.prm.evaluation.journal import Pair
from psgpo.prm.evaluation.table import Scored
from psgpo.prm.measure import lines_left

Array = NDArray[np.float64]
Rows = Sequence[Mapping[str, Array]]


class Reader(Protocol):
    """One model under measurement."""

    name: str

    def read(self, pairs: Sequence[Pair]) -> list[dict[str, Sequence[float]]]:
        """Named numbers per line of each (problem, code): what is kept on disk."""

    def scored(self, rows: Rows) -> list[Scored]:
        """What is measured, from `read`'s numbers of all programs."""


class PrmReader:
    """A PRM or ORM folder, opened by `psgpo.prm.open_scorer`.

    A PRM of target `progress` says how much of the program is done, so a low number is no error by itself: its evidence about a
    line is `prm.measure.lines_left`, with threshold 0.
    """

    def __init__(self, scorer: Any, name: str) -> None:
        self.scorer = scorer
        self.name = name
        self.progress = scorer.record.target == "progress"
        self.threshold = 0.0 if self.progress else float(scorer.threshold)

    def read(self, pairs: Sequence[Pair]) -> list[dict[str, Sequence[float]]]:
        return [{"score": list(map(float, row))} for row in self.scorer.score_many(pairs)]

    def evidence(self, scores: Array) -> Array:
        """Higher is better. Shape: (L,)."""
        return lines_left(scores) if self.progress else scores

    def scored(self, rows: Rows) -> list[Scored]:
        scores = [row["score"] for row in rows]
        probabilities = {}
        return [
            Scored(
                name=self.name,
                evidence=[self.evidence(row) for row in scores],
                threshold=self.threshold,
                probabilities=probabilities,
            )
        ]


class PolicyReader:
    """The surprise of a causal language model."""

    name = "policy"

    def __init__(self, folder: Path, template: str, *, device: str = "cpu") -> None:
        self.policy = PolicySurprise(folder, template, device=device)

    def read(self, pairs: Sequence[Pair]) -> list[dict[str, Sequence[float]]]:
        return [{"mean": mean, "sum": total} for mean, total in self.policy.line_surprise(pairs)]

    def scored(self, rows: Rows) -> list[Scored]:
        return [Scored(name=f"surprise-{key}", evidence=[-row[key] for row in rows]) for key in ("mean", "sum")]
