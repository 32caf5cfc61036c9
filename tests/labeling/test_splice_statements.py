"""The strategy `splice` on programs of real problems: proofs alone, for the response's own lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labeling_world import FakeSampler, label, response

from psgpo.execution import Sandbox
from psgpo.labeling.splice_statements import FailedProgram, prove_lines
from psgpo.records import Call, CallTests, Problem, Status

TESTS = CallTests(
    function="total", calls=tuple(Call(args=(values,), expected=sum(values)) for values in ([], [3], [1, 2, 3]))
)
PROBLEM = Problem(id="sum", prompt="Sum a list.", tests=TESTS, source="humaneval")
RIGHT = "def total(values):\n    s = 0\n    for v in values:\n        s += v\n    return s\n"
WRONG = "def total(xs):\n    acc = 0\n    for x in xs:\n        acc -= x\n    return acc\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=1, timeout=1.0) as sandbox:
        yield sandbox


def test_a_sibling_with_other_names_proves_the_lines_before_the_mistake(sandbox: Sandbox) -> None:
    (found,) = prove_lines([FailedProgram(problem=PROBLEM, code=WRONG, pool=[RIGHT])], sandbox)
    assert found.last == 3
    assert found.labels[:3] == (1.0, 1.0, 1.0)
    assert -1.0 not in found.labels[:3]
    assert found.executions > 0


def test_without_a_passing_program_only_what_is_surely_wrong_is_labelled(sandbox: Sandbox) -> None:
    early = "def total(values):\n    return 1\n    s = 0\n"
    hopeless, open_ended = prove_lines(
        [FailedProgram(problem=PROBLEM, code=early, pool=[]), FailedProgram(problem=PROBLEM, code=WRONG, pool=[])],
        sandbox,
    )
    assert hopeless.labels == (0.0, -1.0, -1.0)
    assert hopeless.last == 0
    assert open_ended.labels[:4] == (0.0, 0.0, 0.0, 0.0), "a body can still be mended behind these lines"


def test_lines_of_the_starter_code_are_not_the_responses(sandbox: Sandbox) -> None:
    starter = 'def total(values):\n    """Sum a list."""\n'
    body, right = "    acc = 0\n    for x in values:\n        acc -= x\n    return acc\n", RIGHT.split("\n", 1)[1]
    problem = Problem(id="sum", prompt=starter, tests=TESTS, starter_code=starter, source="humaneval")
    (found,) = prove_lines([FailedProgram(problem=problem, code=body, pool=[right])], sandbox)
    assert len(found.labels) == 4
    assert found.last == 2
    assert found.labels[:2] == (1.0, 1.0)


def test_what_is_no_program_has_no_labels(sandbox: Sandbox) -> None:
    prose = "Here you are:\nsum the list (\n"
    (found,) = prove_lines([FailedProgram(problem=PROBLEM, code=prose, pool=[RIGHT])], sandbox)
    assert set(found.labels) == {0.0}


def test_the_strategy_uses_statements_for_such_problems(sandbox: Sandbox, tmp_path: Path) -> None:
    responses = [response(PROBLEM, WRONG, index=0), response(PROBLEM, RIGHT, index=1, status=Status.PASSED)]
    made = label([PROBLEM], responses, tmp_path / "j", {"one": FakeSampler(0.0)}, strategy="splice", sandbox=sandbox)
    failed, passing = made.labels
    assert failed.labels[:3] == (1.0, 1.0, 1.0)
    assert failed.last_solvable == 3
    assert not failed.guessed
    assert failed.executions > 1
    assert passing.labels == (1.0,) * 5
    again = label([PROBLEM], responses, tmp_path / "j", {"one": FakeSampler(0.0)}, strategy="splice", sandbox=sandbox)
    assert again.labels == made.labels, "from the journal"


def test_the_strategy_labels_nothing_that_is_not_proved(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without a passing program nothing is known of a body that can still be mended; that is no proof against it."""
    early = "def total(values):\n    return 1\n    s = 0\n"
    responses = [response(PROBLEM, WRONG, index=0), response(PROBLEM, early, index=1)]
    options: dict[str, Any] = {"strategy": "splice", "hunt": 0, "crossover": 0, "sandbox": sandbox}
    made = label([PROBLEM], responses, tmp_path / "j", {"one": FakeSampler(0.0)}, **options).labels
    programs = [FailedProgram(problem=PROBLEM, code=code, pool=[]) for code in (WRONG, early)]
    assert [one.labels for one in made] == [found.labels for found in prove_lines(programs, sandbox)]
    assert made[0].labels[:4] == (0.0,) * 4
    assert made[1].labels == (0.0, -1.0, -1.0)
    again = label([PROBLEM], responses, tmp_path / "j", {"one": FakeSampler(0.0)}, **options).labels
    assert again == made, "from the journal"
