"""What the tests of mutants share: small problems, a grader, data files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from psgpo.mutation.catalogue import candidates_of
from psgpo.mutation.operators.registry import OPERATORS
from psgpo.mutation.program import Program
from psgpo.records import AssertTests, Problem

ROOT = Path(__file__).resolve().parents[2]

LARGEST = """\
def largest(numbers):
    # the first one is the largest so far
    best = numbers[0]
    for number in numbers:
        if number > best:
            best = number
    return best
"""
COUNT = """\
def count_even(numbers):
    total = 0
    for number in numbers:
        if number % 2 == 0:
            total += 1
    return total
"""


def data_file(name: str) -> Path:
    """A data file of others, or a skip that says where to put it."""
    folder = Path(os.environ.get("PSGPO_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).is_file():
        pytest.skip(f"{folder / name} is absent; put it there or name its folder in PSGPO_DATA")
    return folder / name


def problem(code: str | None, checks: list[str], *, name: str = "toy/1", setup: str = "", **others: Any) -> Problem:
    entry = checks[0].split("assert ")[1].split("(")[0]
    tests = AssertTests(entry_point=entry, checks=tuple(checks), setup=setup)
    return Problem(id=name, prompt=f"Write {entry}.", tests=tests, reference_solution=code, **others)


def largest() -> Problem:
    checks = ["assert largest([1, 5, 3]) == 5", "assert largest([9, 2]) == 9", "assert largest([-4, -2, -7]) == -2"]
    return problem(LARGEST, checks, name="toy/largest")


def count_even() -> Problem:
    return problem(COUNT, ["assert count_even([1, 2, 4]) == 2", "assert count_even([7]) == 0"], name="toy/count")


def changes(operator: str, code: str) -> list[str]:
    """What an operator makes of a program, in its order."""
    return [candidate.code for candidate in candidates_of(OPERATORS[operator], Program(code))]


def body(*lines: str) -> str:
    """A function `f(a, b)` with these lines."""
    return "def f(a, b):\n" + "".join(f"    {line}\n" for line in lines)
