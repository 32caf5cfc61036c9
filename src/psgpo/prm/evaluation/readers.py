"""How PRMs, ORMs and policies are read for an evaluation: numbers per line to keep, and what they say of a line."""

# L code lines

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from psgpo.labeling.identity import folder_digest
from psgpo.prm.calibrate import probabilities
from psgpo.prm.evaluation.baselines import LineSurprise
from psgpo.prm.evaluation.journal import Pair
from psgpo.prm.evaluation.table import Scored
from psgpo.prm.scorers import open_scorer

Array = NDArray[np.float64]
Rows = Sequence[Mapping[str, Array]]


class Reader(Protocol):
    """One model under measurement."""

    name: str
    identity: dict[str, str]
    """Changes when the numbers that it reads may."""

    def read(self, pairs: Sequence[Pair]) -> list[dict[str, Sequence[float]]]:
        """Named numbers per line of each (problem, code): what is kept on disk."""

    def scored(self, rows: Rows) -> list[Scored]:
        """What is measured, from `read`'s numbers of all programs."""


class PrmReader:
    """A PRM or ORM folder, opened by `psgpo.prm.open_scorer`."""

    def __init__(self, folder: Path, name: str, *, device: str = "cpu") -> None:
        self.scorer = open_scorer(folder, device=device)
        self.template = self.scorer.record.prompt_template
        self.threshold = self.scorer.threshold
        self.name = name
        self.identity = {"model": folder_digest(folder)}
        if self.scorer.record.scope == "program":  # earlier versions had the prose around the code read too
            self.identity |= {"reads": "code alone"}

    def read(self, pairs: Sequence[Pair]) -> list[dict[str, Sequence[float]]]:
        return [{"score": row.tolist()} for row in self.scorer.score_many(pairs)]

    def scored(self, rows: Rows) -> list[Scored]:
        record, scores = self.scorer.record, [row["score"] for row in rows]
        ways = {"raw": None} | ({"calibrated": record.calibration} if record.calibration is not None else {})
        return [
            Scored(
                name=self.name,
                evidence=scores,
                threshold=self.threshold,
                probabilities={
                    way: [probabilities(row, fitted, record.target) for row in scores] for way, fitted in ways.items()
                },
            )
        ]


class PolicyReader:
    """The surprise of a causal language model."""

    name = "policy"

    def __init__(self, folder: Path, template: str, *, device: str = "cpu") -> None:
        self.policy = LineSurprise(folder, template, device=device)
        self.identity = {"model": folder_digest(folder), "template": template}

    def read(self, pairs: Sequence[Pair]) -> list[dict[str, Sequence[float]]]:
        return [{"mean": mean, "sum": total} for mean, total in self.policy.line_surprise(pairs)]

    def scored(self, rows: Rows) -> list[Scored]:
        return [Scored(name=f"surprise-{key}", evidence=[-row[key] for row in rows]) for key in ("mean", "sum")]
