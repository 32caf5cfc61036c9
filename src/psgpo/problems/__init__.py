"""Where problems come from: JSON Lines files and the embedded benchmark. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.execution.encoding import check_tests
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.records import Problem

__all__ = ["load_problems_jsonl", "save_problems_jsonl"]


def load_problems_jsonl(path: Path | str) -> list[Problem]:
    """Read problems, one JSON object per line (see `psgpo.records.Problem`).

    Raises:
        UserError: the file is missing or holds no problem; a line is malformed, has no tests or such as no sandbox can
            use, or repeats an id.
    """
    seen: set[str] = set()

    def parse(record: dict[str, Any]) -> Problem:
        problem = Problem.from_json(record)
        if problem.id in seen:
            raise ValueError(f"the id {problem.id!r} was used on an earlier line; give every problem its own id")
        seen.add(problem.id)
        try:
            check_tests(problem.tests)
        except UserError as error:
            raise UserError(f"problem {problem.id}: {error}") from None
        return problem

    problems = list(read_jsonl(path, parse))
    if not problems:
        raise UserError(f"{path}: holds no problem; write one JSON object per line")
    return problems


def save_problems_jsonl(path: Path | str, problems: Iterable[Problem]) -> int:
    """Write problems so that `load_problems_jsonl` returns them unchanged; returns how many."""
    return write_jsonl(path, (problem.to_json() for problem in problems))
