"""Rows from the Hugging Face Hub, where the optional package `datasets` is installed and the Hub can be reached."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from psgpo.errors import UserError
from psgpo.problems.benchmarks.reading import Json
from psgpo.problems.benchmarks.rows import Row, converting


@dataclass(frozen=True, kw_only=True, slots=True)
class HubSource:
    """Where a benchmark lies on the Hub."""

    path: str
    """First argument of `datasets.load_dataset`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments. Without a `split`, the rows of all splits are read."""
    convert: Callable[[Json], Json] | None = None
    """From the Hub's row to a row of the benchmark's data file, where they differ."""

    @property
    def name(self) -> str:
        return str(self.options.get("data_files", self.path))


def hub_rows(benchmark: str, source: HubSource, advice: str) -> Iterator[Row]:
    """Yield (place, row) of the benchmark's data set.

    Args:
        advice: which file to get instead, and where to name it.

    Raises:
        UserError: `datasets` is missing, or the data set cannot be loaded; says what to do instead.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise UserError(
            f"{benchmark}: no data file given, and the package datasets is not installed; {advice}"
        ) from None
    try:
        loaded = datasets.load_dataset(source.path, **source.options)
    except Exception as error:  # offline, renamed, another version: `datasets` raises anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{benchmark}: {source.name} cannot be loaded from the Hub ({reason}); {advice}") from None
    rows = chain.from_iterable(loaded.values() if isinstance(loaded, dict) else [loaded])
    for index, row in enumerate(map(dict, rows)):
        place = f"{source.name}[{index}]"
        yield place, converting((place, row), source.convert) if source.convert else row
