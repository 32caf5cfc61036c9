"""Lines that do nothing, by their text."""

from __future__ import annotations

import pytest

from psgpo.lines import code_lines
from psgpo.problems.opchain import OpChain
from psgpo.problems.opchain.operations import NO_OPS
from psgpo.syntax.noops import noop_lines


def found(text: str) -> list[int]:
    """Numbers, from 1, of the lines that do nothing."""
    return [number for number, idle in enumerate(noop_lines(code_lines(text)), start=1) if idle]


@pytest.mark.parametrize("line", [*NO_OPS, "x", "...", "0", "x=x", "total = total  # keep", "pass;"])
def test_lines_that_stand_still(line: str) -> None:
    assert found(f"def solve(x):\n    {line}\n    return x\n") == [2]


@pytest.mark.parametrize(
    "line", ["return", "break", "raise", "x = y", "x += x", "x()", "x = x + 1", "x == x", "else:", "x.sort()"]
)
def test_lines_that_do_something(line: str) -> None:
    assert found(f"def solve(x):\n    {line}\n    return x\n") == []


def test_the_same_assignment_again() -> None:
    assert found("y = x[0]\n# again\ny = x[0]\ny = x[0]\n") == [3, 4]
    assert found("y = y + 1\ny = y + 1\n") == []
    assert found("y = x.pop()\ny = x.pop()\n") == []
    assert found("y = 1\nif y:\n    y = 1\n") == []


def test_lines_inside_brackets_are_part_of_a_statement() -> None:
    assert found("y = max(\n    x\n)\nx\n") == [4]


def test_right_programs_have_none() -> None:
    problems = OpChain().problems("train", 40, (1, 8))
    assert [problem.id for problem in problems if found(str(problem.reference_solution))] == []
