"""The exact oracle on programs whose labels are known by hand, and against brute force."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

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
RIGHT = """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 0
    out = []
    for v in x:
        t += v
        out.append(t)
    x = out
    return x
"""


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


# (text, m*, progress in thirds per line); problem THREE: add 3 to each; reverse; running sums.
CASES = {
    "wrong third operation: sum added after appending": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 0
    out = []
    for v in x:
        out.append(t)
        t += v
    x = out
    return x
""",
        6,
        "0122222222",
    ),
    "wrong constant inside a loop": (
        """def solve(x):
    out = []
    for v in x:
        out.append(v + 2)
    x = out
    x = x[::-1]
    return x
""",
        3,
        "0000000",
    ),
    "dead segment at the end, never assigned": (
        """def solve(x):
    x = [v + 3 for v in x]
    out = []
    for v in x:
        out = out + [v]
    return x
""",
        4,
        "011111",
    ),
    "dead segment, then the operation done right": (
        """def solve(x):
    x = [v + 3 for v in x]
    out = []
    for v in x:
        out = out + [v]
    x = x[::-1]
    x = sum(x)
    return x
""",
        6,
        "01111222",
    ),
    "no-ops and comments change nothing": (
        """def solve(x):
    # first
    pass
    x = [v + 3 for v in x]
    x = x

    # now reverse it
    x = x[::-1]
    pass
    x = sum(x)
    return x
""",
        9,
        "00011112222",
    ),
    "a comment in the middle of an operation": (
        """def solve(x):
    out = []
    # next step
    for v in x:
        # add
        out.append(v + 3)
    # assign
    x = [3]
    return x
""",
        7,
        "000000000",
    ),
    "a no-op in the middle of an operation": (
        """def solve(x):
    out = []
    pass
    for v in x:
        out.append(v + 3)
        pass
    return x
""",
        6,
        "0000000",
    ),
    "a no-op where a block should begin": (
        """def solve(x):
    out = []
    for v in x:
    pass
        out.append(v + 3)
    x = out
    return x
""",
        3,
        "0000000",
    ),
    "syntax error": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1
    return x
""",
        2,
        "0111",
    ),
    "endless loop that counting stops": (
        """def solve(x):
    x = [v + 3 for v in x]
    while True:
        x = x
    return x
""",
        2,
        "01111",
    ),
    "endless loop on one line, and endless work in an expression": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    while True: pass
    return x
""",
        3,
        "01222",
    ),
    "work without end inside an expression": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = [v for v in iter(int, 1)]
    x = x[::-1]
    return x
""",
        2,
        "01111",
    ),
    "break outside a loop does not compile": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    break
    return x
""",
        3,
        "01222",
    ),
    "early return": (
        """def solve(x):
    x = [v + 3 for v in x]
    return x
    x = x[::-1]
""",
        2,
        "0111",
    ),
    "return on some inputs only": (
        """def solve(x):
    x = [v + 3 for v in x]
    if len(x) > 3:
        return x
    x = x[::-1]
    return x
""",
        2,
        "011111",
    ),
    "cut off in the middle of a right line": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[:""",
        3,
        "011",
    ),
    "cut off in the middle of a wrong line": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = sor""",
        2,
        "011",
    ),
    "cut off inside a loop": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 0
    out = []
    for v in x:
""",
        6,
        "012222",
    ),
    "the return is missing": (
        """def solve(x):
    out = []
    for v in x:
        out.append(v + 3)
    x = out
    x.reverse()
    x = [sum(x[:i + 1]) for i in range(len(x))]
""",
        7,
        "0000123",
    ),
    "other words for an unfinished operation, shown by running": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 1 - 1
    out = list()
    for w in x:
        t += w
    return x
""",
        7,
        "01222222",
    ),
    "another header": ("def solve(y):\n    return y\n", 0, "00"),
    "an exception": ("def solve(x):\n    x = [v + 3 for v in x]\n    x = x[::-1] + y\n    return x\n", 2, "0111"),
    "a state of another type": (
        "def solve(x):\n    x = [v + 3 for v in x]\n    x = reversed(x)\n    return x\n",
        2,
        "0111",
    ),
    "code after the function spoils the result": (
        RIGHT + "solve = None\n",
        10,
        "01222222333",
    ),
    "garbage after the return": (RIGHT + ")\n", 10, "01222222333"),
}


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
