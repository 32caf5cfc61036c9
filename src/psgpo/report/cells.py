"""Tables as plain cells: text for the eye and the number behind it for the CSV file; no HTML. Pure.

A value that is not there is a `Cell` of kind "missing", never a zero and never left out of a mean in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from psgpo.report.frames import Frame, Value

Show = Callable[[float], str]
NAN = math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One table cell."""

    text: str
    note: str = ""
    """Second line, smaller: an interval, a spread, what an arm is."""
    kind: str = ""
    """Empty, or missing, up, down (an interval that excludes zero), head, label, quiet."""
    series: str = ""
    """Policy whose colour stands beside the text."""
    value: float = NAN
    """The number; NaN where the cell is words."""
    low: float = NAN
    high: float = NAN
    """Its 95 % interval; NaN where it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column's heading."""

    title: str
    help: str = ""
    """One line under the title."""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table ready to be rendered."""

    name: str
    """File name of its numbers, without `.csv`."""
    caption: str
    """What one sees."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def frame(self) -> Frame:
        """The numbers of the table, each with the ends of its interval where its column has intervals."""
        columns: list[str] = []
        parts: list[list[tuple[Value, ...]]] = []
        for index, column in enumerate(self.columns):
            cells = [row[index] for row in self.rows]
            name = " ".join(filter(None, (column.title, column.help))) if column.numeric else column.title or "what"
            bounded = any(not math.isnan(cell.low) for cell in cells)
            columns += [name, f"{name}, low", f"{name}, high"] if bounded else [name]
            parts.append([_values(cell, bounded) for cell in cells])
        rows = tuple(tuple(value for part in row for value in part) for row in zip(*parts, strict=True))
        return Frame(name=self.name, columns=tuple(columns), rows=rows)


MISSING = Cell(text="—", kind="missing")


def _values(cell: Cell, bounded: bool) -> tuple[Value, ...]:
    words = math.isnan(cell.value) and cell.kind != "missing"
    ends = (cell.low, cell.high) if bounded else ()
    return (cell.text if words else cell.value, *ends)


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return "—" if math.isnan(value) else f"{100 * value:.{digits}f} %"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed, with a real minus."""
    return "—" if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def plain(value: float, digits: int = 1) -> str:
    """A number with a real minus and thin thousands."""
    return "—" if math.isnan(value) else f"{value:,.{digits}f}".replace("-", "−").replace(",", "\u202f")


def whole(value: float) -> str:
    """No decimals."""
    return plain(value, 0)


def two(value: float) -> str:
    """Two decimals."""
    return plain(value, 2)


def three(value: float) -> str:
    """Three decimals."""
    return plain(value, 3)


def cell(value: float, show: Show = plain, note: str = "") -> Cell:
    """A number without an interval, or a missing cell for NaN."""
    return MISSING if math.isnan(value) else Cell(text=show(value), note=note, value=value)


def between(low: float, high: float, show: Show) -> str:
    """An interval in words; empty without one, and where nothing varies."""
    if math.isnan(low) or low == high:
        return ""
    return f"{show(low).removesuffix(' %')} to {show(high).removesuffix(' %')}"


def estimate_cell(value: float, low: float, high: float, show: Show, kind: str = "") -> Cell:
    """A number with its 95 % interval under it, or a missing cell for NaN."""
    if math.isnan(value):
        return MISSING
    return Cell(text=show(value), note=between(low, high, show), kind=kind, value=value, low=low, high=high)
