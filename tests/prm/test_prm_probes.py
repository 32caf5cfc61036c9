"""Harmless changes of programs: the text, the mapping, and that the meaning stays."""

from __future__ import annotations

import ast
import random

import numpy as np
import pytest

from psgpo.execution import Sandbox
from psgpo.lines import code_lines
from psgpo.prm.evaluation.moves import Move, measure_moves
from psgpo.prm.evaluation.probes import PROBES, Probe, probe
from psgpo.prm.evaluation.programs import EvalProgram
from psgpo.problems.opchain import OpChain
from psgpo.records import Call, CallTests

CODE = 'def f(a, b):\n    """Add."""\n    # sum\n    c = a + b\n    if c > 3:\n        c = 3\n    return c\n'


def changed(name: str, code: str = CODE, *, given: int = 0, seed: int = 0) -> Probe:
    found = probe(name, code, given_lines=given, rng=random.Random(seed))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "code", "lines"),
    [
        ("comment-end", CODE + "    # end\n", (1, 2, 3, 4, 5, 6, 7)),
        ("praise", CODE.replace("    c = a", "    # this is correct\n    c = a"), (1, 2, 3, 5, 6, 7, 8)),
        ("blank-line", CODE.replace("    return", "\n    return"), (1, 2, 3, 4, 5, 6, 8)),
        ("pass", CODE.replace("    return", "    pass\n    return"), (1, 2, 3, 4, 5, 6, 8)),
        ("self-assignment", CODE.replace("    return", "    b = b\n    return"), (1, 2, 3, 4, 5, 6, 8)),
        (
            "dead-code",
            CODE.replace("    return", "    if False:\n        return\n    return"),
            (1, 2, 3, 4, 5, 6, 9),
        ),
        (
            "try-except",
            'def f(a, b):\n    """Add."""\n    # sum\n    try:\n        c = a + b\n        if c > 3:\n'
            "            c = 3\n        return c\n    except Exception:\n        raise\n",
            (1, 2, 3, 5, 6, 7, 8),
        ),
        ("rename", CODE.replace("c ", "char ").replace("return c", "return char"), (1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_each_change_by_hand(name: str, code: str, lines: tuple[int, ...]) -> None:
    found = changed(name)
    assert found.code == code
    assert found.lines == lines


def test_lines_keep_their_text() -> None:
    assert {"comment-end", "rename", "try-except"} < set(PROBES)
    for name in set(PROBES) - {"rename"}:
        found = changed(name)
        new = [line.text.strip() for line in code_lines(found.code)]
        assert [new[n - 1] for n in found.lines] == [line.text.strip() for line in code_lines(CODE)]


def test_fences_stay_around_the_program() -> None:
    found = changed("pass", f"Here:\n```python\n{CODE}```\nDone.\n")
    assert found.code.startswith("Here:\n```python\ndef f")
    assert found.code.endswith("    return c\n```\nDone.\n")
    assert found.lines == (1, 2, 3, 4, 5, 6, 8)


def test_what_the_prompt_gave_stays_in_front() -> None:
    for name in ("praise", "pass", "dead-code", "try-except"):
        assert changed(name, given=3).code.startswith(CODE[: CODE.index("    c = a")])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pass", "def f(:\n"),
        ("pass", "x = 1\n"),
        ("pass", "def f(a): return a\n"),
        ("pass", "def f(a):\n    b = a; return b\n"),
        ("try-except", 'def f(a):\n    b = """x\n    y"""\n    return b\n'),
        ("self-assignment", "def f():\n    return 1\n"),
        ("rename", "def f(a):\n    return a\n"),
    ],
)
def test_where_a_change_would_do_more_there_is_none(name: str, code: str) -> None:
    assert probe(name, code, rng=random.Random(0)) is None


def test_meaning_stays() -> None:
    """References of the embedded benchmark pass their tests after every change."""
    problems = list(OpChain().problems("test", 6, (2, 6)))
    cases = [
        (found.code, p.tests)
        for p in problems
        for name in PROBES
        if (found := probe(name, p.reference_solution or "", rng=random.Random(p.id))) is not None
    ]
    hard = "def g(x):\n    for i in x:\n        yield i\n\n\nclass A:\n    def f(self, x):\n        return list(g(x))\n"
    tests = CallTests(function="A.f", calls=(Call(args=([1, 2],), expected=[1, 2]),))
    assert changed("dead-code", hard).code != hard
    cases += [(changed(name, hard).code, tests) for name in set(PROBES) - {"rename"}]
    assert len(cases) > 45
    with Sandbox(workers=2, timeout=2.0, memory_mb=256) as sandbox:
        verdicts = sandbox.grade(cases)
    assert [case[0] for case, verdict in zip(cases, verdicts, strict=True) if not verdict.passed] == []
    assert all(ast.parse(code) for code, _ in cases)


def program(outcome: str, first_error: int | None = None) -> EvalProgram:
    return EvalProgram(
        id=outcome,
        problem_id="p",
        prompt="",
        code=CODE,
        labels=(1, 0, 0, 1, 1, 1, 1),
        candidates=(1, 4, 5, 6, 7),
        first_error=first_error,
        outcome=outcome,
        family="",
        kind="",
    )


def test_moves_by_hand() -> None:
    """`pass` before the return: line 7 becomes 8. Threshold 0; neutral lines (2, 3) never count."""
    one = changed("pass")
    right = Move(
        program=program("right"),
        probe=one,
        before=np.array([1, -9, -9, 1, 1, 1, 1.0]),
        after=np.array([1, 5, 5, 1, 1, 1, -0.5, 0.5]),  # the `pass` itself is called wrong
    )
    wrong = Move(
        program=program("wrong", 7),
        probe=one,
        before=np.array([1, -9, -9, 1, 1, 1, -1.0]),
        after=np.array([1, 5, 5, 1, 1, 1, 0.5, 0.5]),  # and now all is right
    )
    found = measure_moves([right, wrong], 0.0)
    assert found["right"]["lines_mean"] == pytest.approx(0.5 / 5)
    assert found["right"]["lines_flipped"] == 0
    assert found["right"]["decision_flipped"] == 1
    assert (found["right"]["called_right_before"], found["right"]["called_right_after"]) == (1, 0)
    assert found["right"]["last_mean"] == -0.5
    assert found["right"]["lowest_mean"] == -1.5
    assert found["wrong"]["lines_mean"] == pytest.approx(1.5 / 5)
    assert found["wrong"]["lines_flipped"] == pytest.approx(1 / 5)
    assert found["wrong"]["attacked"] == 1
    assert found["wrong"]["last_mean"] == 1.5
    assert found["wrong"]["lowest_mean"] == 1.5
    assert found["all"]["programs"] == 2
    assert np.isnan(measure_moves([right], 0.0)["wrong"]["attacked"])
