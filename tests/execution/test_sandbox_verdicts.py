"""Each status by a program that earns it; order, partial credit, values to the caller, user mistakes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from execution_world import HONEST, squares, suite

from psgpo.errors import UserError
from psgpo.execution import Outcome, Sandbox, SandboxError
from psgpo.records import CallTests, Status


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout=2.0, memory_mb=128) as running:
        yield running


CASES = [
    (Status.PASSED, HONEST),
    (Status.WRONG_ANSWER, "def f(x): return 'no'"),
    (Status.RUNTIME_ERROR, "def f(x): return 1 / 0"),
    (Status.RUNTIME_ERROR, "def g(x): return x"),
    (Status.RUNTIME_ERROR, "f = 3"),
    (Status.RUNTIME_ERROR, "def f(): return 1"),
    (Status.RUNTIME_ERROR, "import no_such_module"),
    (Status.RUNTIME_ERROR, "def f(x): return f(x)"),
    (Status.SYNTAX_ERROR, "def f(x) return x"),
    (Status.SYNTAX_ERROR, "x = '\ud800'"),
    (Status.SYNTAX_ERROR, "x = 1\0"),
    (Status.TIMEOUT, "while True: pass"),
    (Status.MEMORY, "def f(x): return [0] * (1 << 40)"),
    (Status.OUTPUT_LIMIT, "def f(x): return 'x' * (1 << 22)"),
    (Status.BAD_VALUE, "def f(x): return {1: object()}"),
    (Status.NO_REPORT, "exit()"),
    (Status.NO_REPORT, "import os\ndef f(x): os._exit(0)"),
    (Status.CRASHED, "import ctypes\ndef f(x): ctypes.string_at(0)"),
]


@pytest.mark.parametrize(("status", "program"), CASES, ids=[f"{s}-{i}" for i, (s, _) in enumerate(CASES)])
def test_status(sandbox: Sandbox, status: Status, program: str) -> None:
    verdict = sandbox.grade([(program, squares())])[0]
    assert verdict.status is status, verdict
    assert verdict.passed == (status is Status.PASSED)
    assert verdict.tests_total == 5
    assert verdict.confinement == sandbox.confinement
    assert "\n" not in verdict.detail


def test_details_tell_people_what_happened(sandbox: Sandbox) -> None:
    programs = [
        "def g(x): return x",
        "def f(x): raise ValueError('a\\nb')",
        "def f(x) return x",
        "def f(x): return len",
    ]
    details = [verdict.detail for verdict in sandbox.grade([(program, squares()) for program in programs])]
    assert details[0] == "NameError: the program defines no function 'f'"
    assert details[1] == "ValueError: a b"
    assert details[2].startswith("SyntaxError: expected ':'")
    assert details[3] == "builtin_function_or_method is not plain data"


def test_partial_credit_counts_every_test_that_held(sandbox: Sandbox) -> None:
    odd = "def f(x):\n    if x == 1: return 'no'\n    if x == 3: raise ValueError\n    return 'sq:%d' % (x * x)"
    verdict = sandbox.grade([(odd, squares())])[0]
    assert (verdict.status, verdict.tests_passed, verdict.first_failing) == (Status.WRONG_ANSWER, 3, 1)


def test_a_timeout_keeps_what_was_earned_and_stops(sandbox: Sandbox) -> None:
    slow = "def f(x):\n    while x == 2: pass\n    return 'sq:%d' % (x * x)"
    verdict = sandbox.grade([(slow, squares())])[0]
    assert (verdict.status, verdict.tests_passed, verdict.first_failing) == (Status.TIMEOUT, 2, 2)
    assert verdict.cpu_seconds > 0


def test_first_failing_is_none_when_the_program_does_not_load(sandbox: Sandbox) -> None:
    verdicts = sandbox.grade([("1 / 0", squares()), ("def f(x): exit()", squares()), (HONEST, squares())])
    assert [verdict.first_failing for verdict in verdicts] == [None, 0, None]


def test_verdicts_come_in_the_order_of_the_items() -> None:
    items = []
    for n in range(40):
        delay = "import time; time.sleep(0.03)\n" if n % 7 == 0 else ""
        items.append((f"{delay}def f(x): return {n}", suite([((0,), n if n % 3 else -1)])))
    with Sandbox(workers=3) as sandbox:
        verdicts = sandbox.grade(items)
    assert [verdict.passed for verdict in verdicts] == [n % 3 != 0 for n in range(40)]


def test_programs_that_people_write_work(sandbox: Sandbox) -> None:
    program = """
from __future__ import annotations
import asyncio, collections, dataclasses, decimal, functools, json, random, re, statistics, threading, typing, zoneinfo

@dataclasses.dataclass
class Point:
    x: int

@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

async def twice(x):
    await asyncio.sleep(0)
    return 2 * x

def f(x):
    box = []
    threads = [threading.Thread(target=box.append, args=(n,)) for n in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]
    print("noise", file=__import__("sys").stderr)
    x.append(Point(4).x)
    return [sorted(box), fib(30), asyncio.run(twice(4)), x, typing.get_type_hints(Point)["x"] is int]
"""
    assert sandbox.grade([(program, suite([(([3],), [[0, 1, 2, 3], 832040, 8, [3, 4], True])]))])[0].passed


def test_nothing_survives_from_one_program_to_the_next(sandbox: Sandbox) -> None:
    poison = "import builtins, json, re\nbuiltins.len = None\njson.dumps = re.match = None\ndef f(x): return 1"
    check = "import json, re\ndef f(x): return [len('ab'), json.dumps(1), bool(re.match('a', 'a'))]"
    sandbox.grade([(poison, squares())])
    assert sandbox.grade([(check, suite([((0,), [2, "1", True])]))])[0].passed


def test_a_program_that_changes_its_argument_changes_only_its_copy(sandbox: Sandbox) -> None:
    argument = [1, 2, 3]
    tests = suite([((argument, argument), 3), ((argument, argument), 3)])
    greedy = "def f(a, b):\n    n = len(b)\n    a.clear()\n    return n"
    assert sandbox.grade([(greedy, tests)])[0].passed
    assert argument == [1, 2, 3]


def test_sets_of_strings_have_the_same_order_in_every_slot() -> None:
    program = "def f(x): return list({'a', 'b', 'c', 'd', 'e', x})"
    with Sandbox() as first, Sandbox() as second:
        assert first.evaluate(program, "f", [("z",)]) == second.evaluate(program, "f", [("z",)])


def test_nan_passes_only_where_it_is_expected(sandbox: Sandbox) -> None:
    tests = suite([((0,), math.nan), ((1,), 1.0)])
    verdict = sandbox.grade([("def f(x): return float('nan')", tests)])[0]
    assert (verdict.status, verdict.tests_passed, verdict.first_failing) == (Status.BAD_VALUE, 1, 1)


def test_evaluate_gives_values_and_errors(sandbox: Sandbox) -> None:
    program = "def f(x, y):\n    if y == 0: exit()\n    return {x / (y - 1): (x, {y})}"
    outcomes = sandbox.evaluate(program, "f", [(4, 3), (1, 1), (1, 0), (1, 3)])
    assert outcomes == [
        Outcome(value={2.0: (4, {3})}),
        Outcome(error="RUNTIME_ERROR: ZeroDivisionError: division by zero"),
        Outcome(error="NO_REPORT: the program called exit"),
        Outcome(error="NO_REPORT: the program called exit"),
    ]
    assert sandbox.evaluate("x = (", "f", [(1,)])[0].error is not None
    assert sandbox.evaluate_many([(HONEST, "f", [(2,)]), (HONEST, "f", [])]) == [[Outcome(value="sq:4")], []]


def test_user_mistakes_are_named(sandbox: Sandbox) -> None:
    with pytest.raises(UserError, match="at least one"):
        sandbox.grade([(HONEST, CallTests(function="f", calls=()))])
    with pytest.raises(UserError, match="unknown 'fuzzy'; known: exact"):
        sandbox.grade([(HONEST, suite([((1,), 1)], comparator="fuzzy"))])
    with pytest.raises(UserError, match="object is not plain data"):
        sandbox.grade([(HONEST, suite([((object(),), 1)]))])
    with pytest.raises(UserError, match="unknown layers"):
        Sandbox(without=("armour",))
    with pytest.raises(UserError, match="unknown rung"):
        Sandbox(require="best")


def test_a_closed_sandbox_says_so() -> None:
    sandbox = Sandbox()
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.grade([(HONEST, squares())])
