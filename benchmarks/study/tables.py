"""A table for people (Markdown) and for programs (CSV), from the same rows."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psgpo.evaluation.metrics import Estimate
from study.compare import over_seeds

Row = Mapping[str, Any]
"""Heading to a text, a number, an `Estimate` (a signed difference with its interval) or a `Level` with its interval."""


class Level(Estimate):
    """A mean of shares, no difference."""

    @classmethod
    def of(cls, shares: Sequence[float]) -> Level:
        """Over seeds, with the Student t interval; an interval of a share ends at 0 and 1."""
        found = over_seeds([np.array([share]) for share in shares])
        low, high = (end if math.isnan(end) else min(1.0, max(0.0, end)) for end in (found.low, found.high))
        return cls(value=found.value, low=low, high=high, count=found.count)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows with the same headings."""

    name: str
    """File name of its CSV, without ending."""
    title: str
    note: str
    """What a reader must know to read it: units, intervals."""
    rows: Sequence[Row]

    def markdown(self, command: str) -> str:
        """Heading, the command that makes it, note, rows, what is missing, and the name of the CSV.

        What is missing is said once below the table, and rows point there.
        """
        headings = list(self.rows[0])
        said = list(dict.fromkeys(row["missing"] for row in self.rows if row.get("missing")))
        notes = {text: f"see [{number}]" for number, text in enumerate(said, start=1)}
        rows = [
            dict(row) | {"missing": notes.get(row["missing"], "")} if "missing" in row else row for row in self.rows
        ]
        lines = [f"## {self.title}", "", *fenced(command), "", self.note, ""]
        lines += [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
        lines += [f"| {' | '.join(shown(row[heading]) for heading in headings)} |" for row in rows]
        lines += [line for text in said for line in ("", f"[{said.index(text) + 1}] {text}")]
        return "\n".join([*lines, "", f"Data: [{self.name}.csv]({self.name}.csv)", ""])

    def write_csv(self, folder: Path) -> Path:
        """An `Estimate` takes three columns; what is undefined is empty."""
        path = folder / f"{self.name}.csv"
        rows = [_flat(row) for row in self.rows]
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return path


def fenced(*commands: str) -> list[str]:
    """The lines of a block of commands."""
    return ["```", *commands, "```"]


def shown(value: Any) -> str:
    """
    >>> shown(Estimate(value=0.05, low=0.01, high=0.09, count=3))
    '**+0.050** (+0.010 … +0.090)'
    >>> shown(Level(value=0.25, low=0.2, high=0.3, count=3))
    '0.250 (0.200 … 0.300)'
    >>> shown(0.25), shown(float("nan")), shown(7)
    ('0.250', '–', '7')
    """
    if isinstance(value, Level):
        return shown(value.value) + ("" if math.isnan(value.low) else f" ({value.low:.3f} … {value.high:.3f})")
    if isinstance(value, Estimate):
        if math.isnan(value.value):
            return "–"
        point = _signed(value.value)
        if math.isnan(value.low):
            return point
        clear = value.low > 0 or value.high < 0
        return f"{f'**{point}**' if clear else point} ({_signed(value.low)} … {_signed(value.high)})"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _flat(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for heading, value in row.items():
        if isinstance(value, Estimate):
            found |= {heading: value.value, f"{heading}: low": value.low, f"{heading}: high": value.high}
        else:
            found[heading] = value
    return {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in found.items()}
