"""Which rows of a data file are wanted: split, platform, difficulty, dates."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from psgpo.errors import UserError
from psgpo.problems.benchmarks.livecodebench import DIFFICULTIES, PLATFORMS
from psgpo.problems.benchmarks.reading import Json
from psgpo.problems.benchmarks.rows import SPLITS, id_number, split_of

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_CHOICES = {"split": tuple(SPLITS), "platform": PLATFORMS, "difficulty": DIFFICULTIES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """All that are given must hold."""

    split: str | None = None
    """prompt, test, validation or train; MBPP only."""
    platform: str | None = None
    """leetcode, codeforces or atcoder; LiveCodeBench only, like the rest."""
    difficulty: str | None = None
    """easy, medium or hard."""
    since: str | None = None
    """First contest date, YYYY-MM-DD."""
    until: str | None = None
    """Last contest date, YYYY-MM-DD, included."""
    ids: tuple[int, int] | None = None
    """First and last number of a task id, both included; not LiveCodeBench, whose ids have none. Of recipes: no
    command has it."""

    def check(self, benchmark: str, allowed: frozenset[str]) -> None:
        """Refuse what the benchmark does not have.

        Raises:
            UserError: a filter that does not apply, or a value that it cannot have.
        """
        for name, value in self.given().items():
            if name not in allowed:
                named = sorted(allowed - {"ids"})
                known = f"it has {', '.join(named)}" if named else "it has none"
                raise UserError(f"{name}={value}: {benchmark} has no such filter; {known}")
            if name in _CHOICES and value not in _CHOICES[name]:
                raise UserError(f"{name}={value}: unknown; known: {', '.join(_CHOICES[name])}")
            if name in ("since", "until") and not _is_day(value):
                raise UserError(f"{name}={value}: not a date; write YYYY-MM-DD")

    def given(self) -> dict[str, Any]:
        """The filters that are set."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def keep(self, row: Json) -> bool:
        """Whether a row of the data file passes.

        Raises:
            KeyError, ValueError: the row lacks what a filter looks at.
        """
        if self.ids is not None and not self.ids[0] <= id_number(row["task_id"]) <= self.ids[1]:
            return False
        if self.split is not None and split_of(id_number(row["task_id"])) != self.split:
            return False
        if self.platform is not None and row["platform"] != self.platform:
            return False
        if self.difficulty is not None and row["difficulty"] != self.difficulty:
            return False
        if self.since is None and self.until is None:
            return True
        day = str(row["contest_date"])[:10]
        if not _is_day(day):
            raise ValueError(f"contest_date must begin with YYYY-MM-DD, found {row['contest_date']!r}")
        return (self.since or day) <= day <= (self.until or day)

    def __str__(self) -> str:
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.given().items())


def _shown(value: Any) -> str:
    return f"{value[0]}-{value[1]}" if isinstance(value, tuple) else str(value)


def _is_day(text: str) -> bool:
    try:
        return bool(_DAY.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False
