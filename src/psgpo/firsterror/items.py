"""One item of the benchmark: a program, and its first wrong line or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.lines import code_lines

Json = dict[str, Any]


class Judged(Protocol):
    """A program whose first error is known, as far as measuring needs it."""

    @property
    def problem_id(self) -> str: ...

    @property
    def first_error(self) -> int | None: ...

    @property
    def candidates(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A program to be judged."""

    id: str
    problem_id: str
    prompt: str
    """The task in words."""
    code: str
    first_error: int | None
    """Number of the first wrong line, from 1, as `psgpo.lines.code_lines` counts; None when the program is right."""
    candidates: tuple[int, ...]
    """Lines that may be named: neutral lines and lines that the prompt gave are none."""
    source: str
    """`opchain` (exact oracle) or `mutant` (a verified change of a reference solution)."""
    kind: str
    """What is wrong, in the source's own words; for right programs how they came about."""

    def to_json(self) -> Json:
        return dataclasses.asdict(self) | {"candidates": list(self.candidates)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Item:
        item = cls(**(dict(record) | {"candidates": tuple(record["candidates"])}))
        lines = len(code_lines(item.code))
        if not item.candidates or not all(1 <= line <= lines for line in item.candidates):
            raise ValueError(f"item {item.id}: its candidates are not lines of its program")
        if item.first_error is not None and item.first_error not in item.candidates:
            raise ValueError(f"item {item.id}: line {item.first_error} is none of its candidates")
        return item


def candidate_lines(code: str, given: int = 0) -> tuple[int, ...]:
    """Lines of a program that say something and are not given."""
    return tuple(n for n, line in enumerate(code_lines(code), start=1) if n > given and not line.neutral)


def load_items(path: Path | str) -> list[Item]:
    """Read `items.jsonl`.

    Raises:
        UserError: the file is missing, empty or malformed, or repeats an id.
    """
    seen: set[str] = set()

    def parse(record: Json) -> Item:
        item = Item.from_json(record)
        if item.id in seen:
            raise ValueError(f"the id {item.id!r} was used on an earlier line")
        seen.add(item.id)
        return item

    items = list(read_jsonl(path, parse))
    if not items:
        raise UserError(f"{path}: holds no item; make some with psgpo firsterror make")
    return items
