"""Which calls are known before a script runs, and that knowing them changes no verdict."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asserts_world import script
from hypothesis import given, settings
from hypothesis import strategies as st

from psgpo.execution import Sandbox
from psgpo.execution.foresight import known_calls
from psgpo.records import Status


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        ("assert f(1) == 2", [1]),
        ("assert f() == 2", []),
        ("assert f(-1, 'a', [1, (2.5, None)], b'x', 1+2j) == 2", [-1, "a", [1, (2.5, None)], b"x", 1 + 2j]),
        ("assert f({'k': {1}}) == 2", [{"k": {1}}]),
        ("x = f(3)\nassert x == 4\nassert x != 5", [3]),
        ("assert abs(f(1.5) - 2) < 1e-6, 'message'", [1.5]),
        ("assert not f(0)", [0]),
        ("assert 1 < f(2) < 3", [2]),
        ("assert sorted(f([2, 1]), key=len)[0] == {'a': 1}['a']", [[2, 1]]),
        ("f('only for what it raises')", ["only for what it raises"]),
        ("assert f(1) == [n for n in range(3)]", [1]),
        ("y = 5\nassert f(1) == y or y", None),
        ("assert other(1) == f(2)", [2]),
    ],
)  # fmt: skip
def test_one_certain_call_with_literals_is_known(check: str, arguments: list[object] | None) -> None:
    assert known_calls("", [check], "f") == (None if arguments is None else [arguments])


UNKNOWN = [
    "assert f(1) == f(2)",
    "assert f(f(1)) == 1",
    "assert f(x) == 1",
    "assert f([x]) == 1",
    "assert f(1 + 1) == 2",
    "assert f('a' * 9) == 2",
    "assert f(x=1) == 1",
    "assert f(*[1]) == 1",
    "assert f(**{'x': 1}) == 1",
    "assert f(1)(2) == f",
    "assert map(f, [1])",
    "g = f\nassert g(1) == 1",
    "assert f.name == 1",
    "assert (lambda: f(1))() == 1",
    "for x in range(3): f(1)",
    "while f(1): break",
    "if f(1): pass",
    "if True:\n    assert f(1) == 1",
    "assert False and f(1)",
    "assert True or f(1)",
    "assert (f(1) if True else 2)",
    "assert [f(1) for _ in range(2)]",
    "assert {f(1) for _ in range(2)}",
    "assert {1: f(1) for _ in range(2)}",
    "assert all(f(1) for _ in range(2))",
    "try:\n    f(1)\nexcept ValueError: pass",
    "with open('x'): f(1)",
    "def g(): return f(1)\nassert g() == g()",
    "class A:\n    x = f(1)",
    "match 1:\n    case 1: f(1)",
    "f = abs\nassert f(1) == 1",
    "assert (f := abs)(1) == 1",
    "f(1)\ndel f",
    "for f in [abs]: assert f(1) == 1",
    "assert True",
]


@pytest.mark.parametrize("check", UNKNOWN)
def test_anything_less_certain_is_asked_one_by_one(check: str) -> None:
    assert known_calls("", [check], "f") is None
    assert known_calls("", ["assert f(1) == 1", check], "f") is None


@pytest.mark.parametrize(
    ("setup", "known"),
    [
        ("import math\nx = [1]\ndef helper(a): return a", True),
        ("candidate = f", True),
        ("a = b = f\ncandidate = a", True),
        ("g = f\ng = 3", False),
        ("f = abs", False),
        ("def f(x): return x", False),
        ("class f: pass", False),
        ("import math as f", False),
        ("from math import sqrt as f", False),
        ("def helper(x): return f(x)", False),
        ("helper = lambda x: f(x)", False),
        ("x = f(1)", False),
        ("names = [f]", False),
        ("box.candidate = f", False),
        ("candidate: object = f", False),
        ("for candidate in [f]: pass", False),
    ],
)
def test_setup_may_give_the_function_other_names_but_not_use_it(setup: str, known: bool) -> None:
    assert known_calls(setup, ["assert f(1) == 1"], "f") == ([[1]] if known else None)


def test_calls_by_another_name_are_known_too() -> None:
    assert known_calls("candidate = f", ["assert candidate(1) == 1", "assert f(2) == 1"], "f") == [[1], [2]]
    assert known_calls("candidate = f", ["assert f(candidate(1)) == 1"], "f") is None
    assert known_calls("", ["assert candidate(1) == 1"], "f") is None


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout=0.5, memory_mb=256) as running:
        yield running


PROGRAMS = [
    "def f(*a): return a[0] * 2",
    "def f(*a): return a[0]",
    "def f(*a): return [a, {1: {2.5}}]",
    "def f(*a): raise ValueError('no')",
    "def f(*a): raise StopIteration",
    "n = 0\ndef f(*a):\n    global n\n    n += 1\n    if n == 2: raise KeyError(n)\n    return n",
    "n = 0\ndef f(*a):\n    global n\n    n += 1\n    if n == 2: exit()\n    return n",
    "def f(*a):\n    a[0].append(1)\n    return len(a[0])",
    "def f(*a): return float('nan')",
    "def f(*a): return 'x' * (3 << 20)",
    "class A:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return True\n"
    "    def __getitem__(self, k): return self.x\ndef f(*a): return A(a[0])",
    "import collections\ndef f(*a): return collections.Counter(str(a))",
    "import random\ndef f(*a): return random.random()",
    "def g(*a): return 1",
    "f = 3",
    "class f:\n    def __init__(self, *a): pass",
    "def f(*a) return 1",
    "1 / 0",
    "exit()",
    "import os\ndef f(*a): os._exit(0)",
    "import os\ndef f(*a): os.write(3, b'\\2\\0\\0\\0[]')",
]
CHECKS = [
    "assert f(1) == 2",
    "assert f(2) == 4, 'two'",
    "assert f('ab') == 'abab'",
    "assert f([1]) == [1, 1]",
    "x = f(3)\nassert x == 3 or x == 6",
    "assert f(1, 'b') != 1",
    "assert f(5)[0] == 5",
    "f(7)",
    "assert abs(f(0.5) - 1.0) < 1e-9",
    "assert not f(0)",
    "assert missing",
    "1 / 0\nf(1)",
    "assert f(4) is not None and True",
    "assert candidate(8) == 16",
]
CERTAIN = [check for check in CHECKS if known_calls("candidate = f", [check], "f")]


def test_the_examples_cover_both_ways() -> None:
    assert len(CERTAIN) > 8


checks = st.lists(st.sampled_from(CERTAIN), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    program=st.sampled_from(PROGRAMS), chosen=checks, setup=st.sampled_from(["candidate = f", "candidate = f\n1 / 0"])
)
def test_knowing_the_calls_changes_no_verdict(sandbox: Sandbox, program: str, chosen: list[str], setup: str) -> None:
    """The same checks, once as they are and once hidden behind an `if`, which makes each call a request of its own."""
    hidden = ["if True:\n" + "\n".join("    " + line for line in check.splitlines()) for check in chosen]
    assert known_calls(setup, chosen, "f") is not None
    assert known_calls(setup, hidden, "f") is None
    known, asked = sandbox.grade([(program, script(*each, setup=setup)) for each in (chosen, hidden)])
    for name in ("status", "outcomes", "tests_passed", "first_failing", "mode", "detail"):
        assert getattr(known, name) == getattr(asked, name), name


def test_a_call_that_nobody_foresaw_starts_over_and_gets_its_own_answer(sandbox: Sandbox) -> None:
    checks = (
        "x = globals()['f'](2)\nassert f(1) == 1\nassert x == 4",
        "assert f(3) == 9",
        "assert eval('f(4)') + f(5) == 41",
    )
    assert known_calls("", list(checks), "f") == [[1], [3], [5]]
    verdict = sandbox.grade([("def f(x): return x * x", script(*checks))])[0]
    assert (verdict.passed, verdict.tests_passed) == (True, 3)


def test_a_check_that_fails_before_its_call_leaves_the_next_ones_answer_alone(sandbox: Sandbox) -> None:
    checks = ("assert 1 == 2\nf(10)", "assert f(20) == 20", "missing\nf(30)", "1 / 0\nf(35)", "assert f(40) == 40")
    assert known_calls("", list(checks), "f") == [[10], [20], [30], [35], [40]]
    verdict = sandbox.grade([("def f(x): return x", script(*checks))])[0]
    assert [outcome is Status.PASSED for outcome in verdict.outcomes] == [False, True, False, False, True]
