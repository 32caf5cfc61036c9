"""What the converters of all benchmarks share: rows with their place, task numbers, the splits of MBPP."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from psgpo.errors import UserError
from psgpo.problems.benchmarks.reading import Json

T = TypeVar("T")
Row = tuple[str, Json]
"""(place in the data file, the row)."""

SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}
"""The splits of MBPP by task number: few-shot prompts, test, validation, training."""


def converting(row: Row, convert: Callable[[Json], T]) -> T:
    """`convert` of the row; what is wrong with the row is said with its place.

    Raises:
        UserError: `convert` raised KeyError, TypeError, ValueError or SyntaxError.
    """
    place, record = row
    try:
        return convert(record)
    except KeyError as error:
        raise UserError(f"{place}: missing key {error}; is this the right data file?") from None
    except (TypeError, ValueError, SyntaxError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{place}: {' '.join(str(error).split())}") from None


def text_of(row: Json, key: str) -> str:
    """The text under a key.

    Raises:
        KeyError: the key is missing.
        ValueError: it holds something else.
    """
    value = row[key]
    if not isinstance(value, str):
        raise ValueError(f"{key!r} must be a text, found {type(value).__name__}")
    return value


def id_number(raw: Any) -> int:
    """The number in a task id such as 2, "2" or "Mbpp/2".

    Raises:
        ValueError: there is none.
    """
    match = re.search(r"(?:^|/)(\d+)$", str(raw))
    if match is None:
        raise ValueError(f"a task_id must end in a number, found {raw!r}")
    return int(match.group(1))


def split_of(number: int) -> str:
    """The split of MBPP that a task belongs to; empty for a number outside of all."""
    return next((name for name, numbers in SPLITS.items() if number in numbers), "")
