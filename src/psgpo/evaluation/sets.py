"""Test sets of an evaluation, each as a whole and without what was trained on. No torch.

`problems/tests.json` of a run: {name: {"problems": [ids], "trained_on": [ids]}}. Responses are drawn once for all sets
together; a number is of one *part* of one set:

    all     every problem of the set
    clean   those that neither SFT, nor RL, nor a PRM was trained on
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from psgpo.errors import UserError
from psgpo.job import undo_command
from psgpo.jsonl import write_json

FILE = "tests.json"
Which = Literal["all", "clean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSet:
    """Ids of its problems, in order."""

    problems: tuple[str, ...]
    trained_on: frozenset[str]
    """Those of them that something was trained on, by id or by the same prompt."""

    def part(self, which: Which) -> frozenset[str]:
        """The ids of one part."""
        whole = frozenset(self.problems)
        return whole if which == "all" else whole - self.trained_on


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The problems that a number is about."""

    test: str
    which: Which
    problems: int
    trained_on: int
    """Of these."""

    @property
    def title(self) -> str:
        if self.which == "clean":
            return f"{self.test}: {self.problems} problems that nothing was trained on"
        mixed = f", {self.trained_on} of them trained on" if self.trained_on else ", none of them trained on"
        return f"{self.test}: all {self.problems} problems{mixed}"


def parts_of(tests: Mapping[str, EvalSet]) -> list[Part]:
    """The parts that are not empty, clean before all; a set of which nothing was trained on has only `all`."""
    found = []
    for name, test in tests.items():
        for which in ("clean", "all") if test.trained_on else ("all",):
            ids = test.part(which)  # type: ignore[arg-type]
            if ids:
                trained = len(ids & test.trained_on)
                found.append(Part(test=name, which=which, problems=len(ids), trained_on=trained))  # type: ignore[arg-type]
    return found


def save_sets(folder: Path, tests: Mapping[str, EvalSet]) -> None:
    """Write `FILE` into the folder of the problems."""
    rows = {
        name: {"problems": list(test.problems), "trained_on": sorted(test.trained_on)} for name, test in tests.items()
    }
    write_json(folder / FILE, rows)


def load_sets(folder: Path) -> dict[str, EvalSet]:
    """The test sets of a run, of which `folder` holds the problems; none where they are not divided.

    Raises:
        UserError: the file is broken.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: EvalSet(problems=tuple(row["problems"]), trained_on=frozenset(row["trained_on"]))
            for name, row in rows.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        undo = undo_command(folder.parent, "problems", path)
        raise UserError(
            f"{path}: not what the stage problems wrote ({error}); {undo}, and run the recipe again"
        ) from None
