"""The numbers behind a figure or a table: a CSV file beside the page, and a link to the same file inside it. Pure."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from urllib.parse import quote

Value = str | float
SAFE = " ,.;:+-_/()!*@="
"""Characters a browser takes in a data URI as they are; the rest is percent-encoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Rows of what is drawn or printed, before rounding for the eye."""

    name: str
    """File name without `.csv`."""
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    """Per row one value per column. NaN is an empty cell: there is no such number."""

    @property
    def file(self) -> str:
        return f"{self.name}.csv"

    def csv(self) -> str:
        """Header and rows; numbers with six significant digits.

        >>> Frame(name="f", columns=("arm", "value"), rows=(("a, b", 0.125), ("c", math.nan))).csv()
        'arm,value\\n"a, b",0.125\\nc,\\n'
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([[_written(value) for value in row] for row in self.rows])
        return text.getvalue()

    def link(self) -> str:
        """The file as a data URI: the page needs nothing beside it."""
        return "data:text/csv;charset=utf-8," + quote(self.csv(), safe=SAFE)


def slug(text: str) -> str:
    """Words as part of a file name or an id.

    >>> slug("HumanEval+ (clean)")
    'humaneval-clean'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _written(value: Value) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
