"""HumanEval: a prompt of code, and a script with one function `check(candidate)` that asserts."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from psgpo.problems.benchmarks.reading import Json
from psgpo.problems.benchmarks.references import Evaluate
from psgpo.problems.benchmarks.rows import Row, converting, id_number, text_of
from psgpo.problems.benchmarks.scripts import names_used, parse, read_stub, split_checks
from psgpo.records import AssertTests, Problem


def convert_humaneval(rows: Iterable[Row], evaluate: Evaluate | None) -> Iterator[Problem]:
    """Problems of HumanEval; see `load_benchmark` for the errors."""
    return (converting(row, _problem) for row in rows)


def _problem(row: Json) -> Problem:
    prompt, entry_point = text_of(row, "prompt"), text_of(row, "entry_point")
    stub = read_stub(prompt, entry_point)
    return Problem(
        id=f"HumanEval/{id_number(row['task_id'])}",
        prompt=prompt,
        tests=_tests(text_of(row, "test"), entry_point, stub.preamble, stub.helpers),
        source="humaneval",
        split="test",
        starter_code=prompt,
        preamble=stub.preamble,
        reference_solution=prompt + text_of(row, "canonical_solution"),
    )


def _tests(script: str, entry_point: str, preamble: str, helpers: frozenset[str]) -> AssertTests:
    """The body of `check` as single checks.

    Helpers of the prompt that the script calls (`poly`, `encode_cyclic`, `encode_shift`) are part of the trusted setup:
    a program that defines them differently changes nothing.
    """
    tree = parse(script)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if not functions or not functions[-1].args.args:
        raise ValueError("the test script defines no function check(candidate)")
    check = functions[-1]
    checks = split_checks(check.body)
    if not checks:
        raise ValueError("the test script asserts nothing")
    before = [ast.unparse(node) for node in tree.body if node is not check and not _is_metadata(node)]
    setup = [preamble] if helpers & names_used([*before, *checks]) else []
    setup += [*before, f"{check.args.args[0].arg} = {entry_point}"]
    return AssertTests(entry_point=entry_point, checks=tuple(checks), setup="\n".join(setup))


def _is_metadata(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METADATA"
