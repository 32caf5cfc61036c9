"""Prefixes of programs: which lines end a statement, which blocks are open there."""

from __future__ import annotations

import pytest

from psgpo.syntax import begins_statement, parse_prefix

PROGRAM = """\
import math
def f(items, limit):
    \"\"\"Text
    of two lines.\"\"\"
    total = 0
    for item in items:
        if item > limit:
            total += item
        elif item == limit:
            total += 2 * (
                item
            )
        else:
            pass
    return total
""".splitlines()


def kinds(count: int) -> list[str] | None:
    prefix = parse_prefix(PROGRAM[:count])
    return None if prefix is None else [frame.kind for frame in prefix.position]


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (1, ["module"]),
        (2, ["module", "function"]),
        (3, None),
        (4, ["module", "function"]),
        (6, ["module", "function", "loop"]),
        (7, ["module", "function", "loop", "if"]),
        (9, ["module", "function", "loop", "if"]),
        (10, None),
        (12, ["module", "function", "loop", "if"]),
        (13, ["module", "function", "loop", "else"]),
        (15, ["module", "function"]),
    ],
)
def test_open_blocks(count: int, wanted: list[str] | None) -> None:
    assert kinds(count) == wanted


def test_an_open_header_needs_a_body() -> None:
    opened, filled = parse_prefix(PROGRAM[:7]), parse_prefix(PROGRAM[:8])
    assert opened is not None
    assert filled is not None
    assert (opened.open_header, filled.open_header) == (True, False)
    assert opened.indents == ("", "    ", "        ", "            ")


def test_try_is_open_without_its_clauses() -> None:
    prefix = parse_prefix(["def f(x):", "    try:", "        return int(x)"])
    assert prefix is not None
    assert [frame.kind for frame in prefix.position] == ["module", "function", "try"]


@pytest.mark.parametrize("lines", [["def f(:"], ["x = ("], ["  x = 1", "y"], ["\0"], ["if x: pass", "  y"]])
def test_what_is_no_prefix(lines: list[str]) -> None:
    assert parse_prefix(lines) is None


@pytest.mark.parametrize(
    "line",
    [
        "def solve(x):",
        "def solve(x",
        "    return x + 1",
        "from __future__ import annotations",
        "table = {",
        "@cache",
        "try:",
        "pass",
        '"""Adds one."""',
        "main()",
        "n: int = 0",
        "yield x",
    ],
)
def test_lines_that_begin_a_statement(line: str) -> None:
    assert begins_statement(line)


@pytest.mark.parametrize(
    "line",
    [
        "Sure! Here is it:",
        "Here is the code:",
        "Solution",
        "**Solution**",
        "1. Add",
        "\0",
        "Explanation: the",
        "Answer: 42",
        "- item",
        "Sure, here",
        "...",
    ],
)
def test_prose_begins_no_statement(line: str) -> None:
    assert not begins_statement(line)
