"""MBPP, full and sanitized: a sentence, and assert statements that name the function."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from psgpo.problems.benchmarks.reading import Json
from psgpo.problems.benchmarks.references import Evaluate
from psgpo.problems.benchmarks.rows import Row, converting, id_number, split_of, text_of
from psgpo.problems.benchmarks.scripts import classes, imports_for, names_used, parse, top_level_names
from psgpo.records import AssertTests, Problem


def convert_mbpp(rows: Iterable[Row], evaluate: Evaluate | None) -> Iterator[Problem]:
    """Problems of the full MBPP; see `load_benchmark` for the errors."""
    return (converting(row, lambda record: _problem(record, text_of(record, "text"), "mbpp")) for row in rows)


def convert_sanitized(rows: Iterable[Row], evaluate: Evaluate | None) -> Iterator[Problem]:
    """Problems of the sanitized MBPP; see `load_benchmark` for the errors."""
    return (
        converting(row, lambda record: _problem(record, text_of(record, "prompt"), "mbpp-sanitized")) for row in rows
    )


def _problem(row: Json, text: str, source: str) -> Problem:
    code, tests = text_of(row, "code").replace("\r\n", "\n"), [test.strip() for test in row["test_list"]]
    number = id_number(row["task_id"])
    setup = "\n".join([*row.get("test_imports", ()), row.get("test_setup_code", "")]).replace("\r\n", "\n").strip()
    script = [setup, *tests]
    return Problem(
        id=f"Mbpp/{number}",
        prompt=paper_prompt(text, tests),
        tests=AssertTests(
            entry_point=entry_point_of(code, tests),
            checks=tuple(tests),
            setup=imports_for(script) + setup,
            objects=tuple(sorted(classes(code) & names_used(script))),
        ),
        source=source,
        split=split_of(number),
        reference_solution=code,
        metadata={"text": text, "challenge_tests": list(row.get("challenge_test_list", ()))},
    )


def entry_point_of(code: str, tests: Sequence[str]) -> str:
    """The function that the asserts are about: the first they call that the reference solution defines.

    Raises:
        ValueError: there is none.
    """
    defined = top_level_names(code) - classes(code)
    for test in tests:
        for name in _called(test):
            if name in defined:
                return name
    raise ValueError(f"the tests call no function that the solution defines; it defines {sorted(defined)}")


def _called(test: str) -> Iterator[str]:
    for node in ast.walk(parse(test)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def paper_prompt(text: str, tests: Sequence[str]) -> str:
    """The form of the MBPP paper (Austin et al. 2021): the sentence and all tests."""
    joined = "\n".join(tests)
    return (
        f"You are an expert Python programmer, and here is your task: {text.strip()} "
        f"Your code should pass these tests:\n\n{joined}\n"
    )
