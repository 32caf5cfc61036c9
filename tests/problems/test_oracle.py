"""The exact oracle on programs whose labels are known by hand, and against brute force."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from oracle_cases import CASES, RIGHT

from psgpo.execution import Sandbox
from psgpo.problems.opchain import OPERATIONS, OpChain, Step, canonical_solution, chain_of
from psgpo.problems.opchain.operation import FOOTER, HEADER, copy_state
from psgpo.problems.opchain.oracle import ExactLabels, ExactOracle
from psgpo.records import Call, CallTests, Problem

INPUTS = ([3, -1, 4, 1, -5], [2, 2, 7, -6, 0, 9], [8, -2, -8], [-3, 12, 5, 5, 1, 0, 6], [10, -7, 1, 1])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout=0.4) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def oracle(sandbox: Sandbox) -> ExactOracle:
    return ExactOracle(sandbox.evaluate_many)


def make(*steps: tuple[str, int], inputs: Sequence[Any] = INPUTS) -> Problem:
    calls = []
    for value in inputs:
        state = value
        for name, parameter in steps:
            state = OPERATIONS[name].apply(state, parameter)
        calls.append(Call(args=(value,), expected=state))
    return Problem(
        id="/".join(f"{name}{parameter}" for name, parameter in steps),
        prompt="",
        tests=CallTests(function="solve", calls=tuple(calls)),
        difficulty=len(steps),
        metadata={"operations": [{"name": name, "parameter": parameter or None} for name, parameter in steps]},
    )


THREE = make(("add_each", 3), ("reverse", 0), ("running_sum", 0))
SORTED = make(("reverse", 0), ("sort_up", 0), ("add_each", 3))


def label(oracle: ExactOracle, problem: Problem, text: str) -> ExactLabels:
    return oracle.label([(problem, text)])[0]


def third(value: float) -> int:
    return round(value * 3)


def test_a_right_program_is_on_track_throughout_and_progress_counts_operations(oracle: ExactOracle) -> None:
    labels = label(oracle, THREE, RIGHT)
    assert labels.passed
    assert labels.on_track == (True,) * 10
    assert (labels.last_on_track, labels.lines) == (10, 10)
    assert [third(p) for p in labels.progress] == [0, 1, 2, 2, 2, 2, 2, 2, 3, 3]


def test_programs_whose_labels_are_known(oracle: ExactOracle) -> None:
    labels = oracle.label([(THREE, text) for text, _, _ in CASES.values()])
    found = {
        name: (got.last_on_track, "".join(str(third(p)) for p in got.progress), got.passed)
        for name, got in zip(CASES, labels, strict=True)
    }
    assert found == {name: (last, progress, False) for name, (_, last, progress) in CASES.items()}
    for got in labels:
        assert len(got.on_track) == len(got.progress) == got.lines
        assert got.on_track == tuple(line < got.last_on_track for line in range(got.lines))


def test_a_passing_program_in_another_order_is_on_track(oracle: ExactOracle) -> None:
    swapped = "def solve(x):\n    x = sorted(x)\n    x = [v + 3 for v in x]\n    return x\n"
    labels = label(oracle, SORTED, swapped)
    assert labels.passed
    assert labels.on_track == (True,) * 4
    assert labels.progress[-1] == 1.0
    wrong_end = swapped.replace("return x", "return x[1:]")
    assert label(oracle, SORTED, wrong_end).passed is False


def test_a_sort_hides_what_came_before(oracle: ExactOracle) -> None:
    text = "def solve(x):\n    x = x[1:] + x[:1]\n    x = sorted(x)\n    x = [v + 2 for v in x]\n    return x\n"
    labels = label(oracle, SORTED, text)
    assert labels.last_on_track == 3
    assert [third(p) for p in labels.progress] == [0, 1, 2, 2, 2]


def test_passing_in_fewer_lines_than_operations_ends_at_one(oracle: ExactOracle) -> None:
    labels = label(oracle, SORTED, "def solve(x):\n    return [v + 3 for v in sorted(x)]\n")
    assert labels.passed
    assert labels.progress == (0.0, 1.0)


def test_empty_and_comment_only_responses(oracle: ExactOracle) -> None:
    assert label(oracle, THREE, "").lines == 0
    labels = label(oracle, THREE, "# nothing\n# at all\n")
    assert (labels.last_on_track, labels.progress) == (2, (0.0, 0.0))
    assert label(oracle, THREE, "def sol").last_on_track == 1
    assert label(oracle, THREE, "def sol\n").last_on_track == 0


def test_a_fenced_response_is_unwrapped(oracle: ExactOracle) -> None:
    labels = label(oracle, THREE, "Here it is:\n```python\n" + RIGHT + "```\nDone.\n")
    assert labels.passed
    assert labels.lines == 10


def test_hostile_sizes_are_refused_without_harm(oracle: ExactOracle) -> None:
    head = "def solve(x):\n    x = [v + 3 for v in x]\n"
    for tail in (
        "    x = " + "(" * 1500 + "\n",
        "    x = " + "-" * 100_000 + "1\n",
        "    pass\r    pass\n",
        "    x = '\x00'\n",
        "    x = '\ud800'\n",
        "    x = [0] * 10 ** 9\n",
        "    x = 9 ** 9 ** 9\n",
        "    import os; os._exit(0)\n",
    ):
        assert label(oracle, THREE, head + tail + "    return x\n").last_on_track == 2, tail[:40]


def test_two_driver_calls_label_many_responses(sandbox: Sandbox) -> None:
    calls = []

    def counted(items: Any) -> Any:
        calls.append(len(items))
        return sandbox.evaluate_many(items)

    chain = OpChain()
    rng = random.Random(0)
    problems = chain.problems("train", 40, (1, 8))
    items = [(problem, chain.imperfect_solution(chain_of(problem), rng)) for problem in problems]
    labels = ExactOracle(counted).label(items)
    assert len(calls) == 2
    assert sum(calls) <= 6
    verdicts = sandbox.grade([(text, problem.tests) for problem, text in items])
    assert [got.passed for got in labels] == [verdict.passed for verdict in verdicts]


def test_a_passing_canonical_program_reaches_every_step(oracle: ExactOracle) -> None:
    problems = OpChain().problems("train", 30, (1, 10))
    for problem, got in zip(
        problems, oracle.label([(p, canonical_solution(chain_of(p))) for p in problems]), strict=True
    ):
        assert got.passed
        assert problem.difficulty is not None
        reached = sorted({round(p * problem.difficulty) for p in got.progress})
        assert reached == list(range(problem.difficulty + 1))


def passes(problem: Problem, lines: Sequence[str]) -> bool:
    """Run one of the benchmark's own programs here: its pieces are known to be harmless."""
    scope: dict[str, Any] = {}
    try:
        exec("\n".join(lines) + "\n", scope)
        return all(scope["solve"](copy_state(call.args[0])) == call.expected for call in problem.tests.calls)
    except Exception:
        return False


def brute_force(problem: Problem, codes: Sequence[tuple[str, ...]]) -> int:
    """m* by trying, for every prefix, every rest of a variant of its operation, then the canonical rest."""
    chain = chain_of(problem)
    lines = [HEADER, *(line for code in codes for line in code), FOOTER]
    if passes(problem, lines):
        return len(lines)
    best, start = 1, 1
    for index, code in enumerate(codes):
        rest = [line for step in chain[index + 1 :] for line in step.correct()[0]]
        for k in range(1, len(code) + 1):
            tails = [variant[k:] for variant in chain[index].correct() if len(variant) > k] if k <= 5 else []
            if k == len(code):
                tails.append(())
            if any(passes(problem, [*lines[: start + k], *tail, *rest, FOOTER]) for tail in tails):
                best = max(best, start + k)
        start += len(code)
    return best


def test_the_oracle_equals_brute_force(oracle: ExactOracle) -> None:
    rng = random.Random(7)
    items, truth = [], []
    for problem in OpChain().problems("train", 60, (1, 4)):
        for _ in range(3):
            codes = []
            for step in chain_of(problem):
                wrong = rng.random() < 0.4
                pool = step.wrong(rng.randrange(len(step.operation.wrong))) if wrong else step.correct()
                codes.append(rng.choice(pool))
            items.append((problem, "\n".join([HEADER, *(line for code in codes for line in code), FOOTER]) + "\n"))
            truth.append(brute_force(problem, codes))
    found = [got.last_on_track for got in oracle.label(items)]
    differences = [
        (items[i][0].prompt, items[i][1], found[i], truth[i]) for i in range(len(items)) if found[i] != truth[i]
    ]
    assert not differences, differences[0]


def test_step_equality_is_by_operation_and_parameter() -> None:
    assert Step(OPERATIONS["append"], 3) == Step(OPERATIONS["append"], 3)
    assert Step(OPERATIONS["append"], 3) != Step(OPERATIONS["append"], 4)
