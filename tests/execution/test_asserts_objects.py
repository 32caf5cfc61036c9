"""Proxies: what a script may learn of the program's objects and values, and that their word is no evidence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asserts_world import BAD, WRONG, P, grade

from psgpo.execution import Sandbox
from psgpo.records import Status


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout=2.0, memory_mb=256) as running:
        yield running


ACCOUNT = """
import dataclasses, itertools

class Account:
    rate = 3
    def __init__(self, owner, balance=0):
        self.owner, self.balance = owner, balance
    def deposit(self, amount, *, twice=False):
        self.balance += amount * (2 if twice else 1)
        return self
    def __len__(self): return 7
    def __str__(self): return "account of " + self.owner
    def __repr__(self): return "<" + self.owner + ">"
    def __getitem__(self, key): return self.__dict__[key]
    def __setitem__(self, key, value): self.__dict__[key] = value
    def __eq__(self, other): return True
    def __bool__(self): return True
    def __hash__(self): return 1
    def __lt__(self, other): return True
    def __contains__(self, item): return True

class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next

def f(*accounts):
    return sum(account.balance for account in accounts)

def steps(n):
    yield from range(n)
"""


def test_objects_of_the_program_can_be_made_read_written_called_and_passed_back(sandbox: Sandbox) -> None:
    checks = (
        "a = Account('ann', balance=4)\nassert a.owner == 'ann'",
        "assert a.deposit(5, twice=True).balance == 14 and a.balance == 14",
        "a.balance = 20\nassert f(a, Account('bob', 2), a) == 42",
        "assert a['owner'] == 'ann'\na['balance'] = 1\nassert f(a) == 1",
        "assert len(a) == 7",
        "assert str(a) == 'account of ann' and f'{a}' == str(a) and repr(a) == '<ann>'",
        "assert hasattr(a, 'owner') and not hasattr(a, 'lender')",
        "b = [a, {'k': (a,)}]\nassert f(*[b[0], b[1]['k'][0]]) == 2",
        "assert Account.rate == 3",
        "assert list(steps(3)) == [0, 1, 2] and sum(x for x in steps(4)) == 6 and [*steps(0)] == []",
        "s = steps(2)\nassert (next(s), next(s)) == (0, 1)",
        "assert steps(3) is not None",
        "assert a.owner == 'bob'",
        "a.lender",
        "assert len(a) == 8",
    )
    outcomes, verdict = grade(sandbox, ACCOUNT, *checks, objects=("Account", "steps"))
    assert outcomes == [P] * 12 + [WRONG, Status.RUNTIME_ERROR, WRONG]
    assert verdict.mode == "asserts+objects"


def test_objects_that_point_to_each_other_can_be_walked(sandbox: Sandbox) -> None:
    check = (
        "n = Node(1, Node(2, Node(3)))\nvalues = []\nwhile n is not None:\n    values.append(n.value)\n    n = n.next\n"
    )
    outcomes, _ = grade(sandbox, ACCOUNT, check + "assert values == [1, 2, 3]", "assert n is None", objects=("Node",))
    assert outcomes == [P, P]


@pytest.mark.parametrize(
    "claim",
    [
        "assert a",
        "assert not a",
        "if a: pass",
        "assert a == 1",
        "assert 1 == a",
        "assert not a != 1",
        "assert a == a",
        "assert a < 5",
        "assert a >= 5",
        "assert 5 > a",
        "assert a in [1]",
        "assert 1 in [a]",
        "assert [a] == [1]",
        "assert (1, a) == (1, 2)",
        "assert {1: a} == {1: 2}",
        "{a}",
        "{a: 1}",
        "hash(a)",
        "sorted([a, Account('bob')])",
        "max(a, 1)",
        "assert all([a])",
        "assert any([a])",
        "assert isinstance(a, Account)",
        "assert issubclass(a, Account)",
        "assert Account == 1",
    ],
)
def test_an_objects_word_about_itself_is_no_evidence(sandbox: Sandbox, claim: str) -> None:
    assert grade(sandbox, ACCOUNT, f"a = Account('ann')\n{claim}", objects=("Account",))[0] == [BAD]


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ("assert a + 1", "unsupported operand"),
        ("assert int(a)", "int() argument"),
        ("with a: pass", "context manager"),
        ("import copy\ncopy.deepcopy(a)", "in the test"),
        ("f(lambda: 1)", "the test passes a function, which is not plain data"),
        ("a[1:2]", "the test passes a slice, which is not plain data"),
        ("undefined_name", "the test itself fails: NameError"),
        ("import no_such_module", "the test itself fails: ModuleNotFoundError"),
    ],
)
def test_what_a_script_cannot_do_fails_and_says_why(sandbox: Sandbox, claim: str, reason: str) -> None:
    outcomes, verdict = grade(sandbox, ACCOUNT, f"a = Account('ann')\n{claim}", objects=("Account",))
    assert outcomes == [WRONG]
    assert reason in verdict.detail


def test_a_len_str_or_list_of_the_wrong_kind_is_refused(sandbox: Sandbox) -> None:
    """A program can rewrite what answers for it; the script still gets an int for `len`, or an error."""
    program = """
import sys
class A: pass
def f():
    frame = sys._getframe()
    while "_REQUESTS" not in frame.f_globals:
        frame = frame.f_back
    frame.f_globals["_REQUESTS"] |= {"len": lambda x: "3", "str": lambda x: 3, "list": lambda x: "ab"}
    frame.f_globals["_REQUESTS"]["get"] = lambda x, y: A()
    return A()
"""
    checks = ("x = f()\nlen(x)", "str(x)", "list(x)", "x.y", "assert x.y == 1")
    outcomes, verdict = grade(sandbox, program, *checks)
    assert outcomes == [WRONG, WRONG, WRONG, P, BAD]
    assert verdict.detail == "HandleError in the test: the program answers with str instead of int"


def test_children_of_builtin_types_arrive_as_what_they_are_underneath(sandbox: Sandbox) -> None:
    program = """
import collections, enum
Point = collections.namedtuple("Point", "x y")
class Level(enum.IntEnum):
    HIGH = 3
class Name(enum.StrEnum):
    ANN = "ann"
def f(x):
    tally = collections.defaultdict(list)
    tally["k"].append(x)
    return [collections.Counter("aab"), Point(1, 2), Level.HIGH, tally, collections.OrderedDict(a=1), Name.ANN,
            {Level.HIGH: 1}]
"""
    checks = (
        "assert f(5) == [{'a': 2, 'b': 1}, (1, 2), 3, {'k': [5]}, {'a': 1}, 'ann', {3: 1}]",
        "assert [type(v) for v in f(5)] == [dict, tuple, int, dict, dict, str, dict]",
        "a, (x, y), *rest = f(5)\nassert (x, y) == (1, 2) and sorted(a) == ['a', 'b']",
        "assert f(5)[2] is True",
    )
    outcomes, verdict = grade(sandbox, program, *checks)
    assert (outcomes, verdict.mode) == ([P, P, P, WRONG], "asserts")


LIARS = """
class Text(str):
    def __eq__(self, other): return True
    def __hash__(self): return hash("right")
class Number(int):
    __eq__ = __le__ = __lt__ = lambda self, other: True
    __hash__ = int.__hash__
class Items(list):
    def __eq__(self, other): return True
    def __iter__(self): return iter([1, 2])
    def __len__(self): return 2
class Table(dict):
    def __eq__(self, other): return True
    def items(self): return [("right", 1)]
class Anything:
    def __eq__(self, other): return True
    def __iter__(self): return iter([1, 2])
def f(kind):
    return {"text": Text("wrong"), "number": Number(5), "items": Items([3]), "table": Table(), "any": Anything()}[kind]
"""


@pytest.mark.parametrize(
    "check",
    [
        "assert f('text') == 'right'",
        "assert 'right' == f('text')",
        "assert f('text') in {'right'}",
        "assert f('number') == 1",
        "assert f('number') <= 1",
        "assert f('items') == [1, 2]",
        "assert len(f('items')) == 2",
        "assert f('table') == {'right': 1}",
        "assert f('any') == 1",
        "assert f('any') == [1, 2]",
        "assert [f('any'), f('text')] == [1, 'right']",
    ],
)
def test_equality_is_never_the_programs_own(sandbox: Sandbox, check: str) -> None:
    assert grade(sandbox, LIARS, check)[0] in ([WRONG], [BAD])
    assert grade(sandbox, LIARS, f"if True:\n    {check}")[0] in ([WRONG], [BAD])  # not known beforehand


def test_nan_is_an_answer_only_to_scripts_that_speak_of_it(sandbox: Sandbox) -> None:
    program = "def f(x): return float('nan')"
    assert grade(sandbox, program, "assert f(1) != 1.5")[0] == [BAD]
    assert grade(sandbox, program, "assert not f(1) < 1.5", setup="tiny = 1e-9")[0] == [BAD]
    checks = ("assert math.isnan(f(1))", "assert f(1) == 1.5")
    assert grade(sandbox, program, *checks, setup="import math")[0] == [P, WRONG]


def test_values_of_every_plain_type_travel_both_ways(sandbox: Sandbox) -> None:
    checks = (
        "assert f(int) is int and f(range(2, 9, 3)) == range(2, 9, 3) and type(f(range(3))) is range",
        "assert f([1j, complex(-0.0, 2)]) == [1j, complex(-0.0, 2)]",
        "assert f(b'\\x00\\xff') == b'\\x00\\xff' and f(10**60) == 10**60 and f(-0.0) == 0",
        "assert f({(1, 2): {3}, None: frozenset('a')}) == {(1, 2): {3}, None: frozenset('a')}",
        "assert f('h\\u00e9\\U0001f600') == 'h\\u00e9\\U0001f600'",
        "assert f(float('inf')) == float('inf') and f(True) is True and f(1) is not True",
        "assert f(x=3) == 3 and f(*[4]) == 4 and f(**{'x': 5}) == 5",
        "assert kind(int, 3) and kind((int, str), 'a') and not kind(list, 3)",
    )
    program = "def f(x): return x\ndef kind(t, x): return isinstance(x, t)"
    assert grade(sandbox, program, *checks, objects=("kind",))[0] == [P] * 8


def test_the_script_keeps_its_own_copy_of_what_it_passes(sandbox: Sandbox) -> None:
    checks = ("given = [3, 1, 2]\nassert f(given) == 3", "assert given == [3, 1, 2]", "assert f(given) == 3")
    assert grade(sandbox, "def f(x):\n    n = len(x)\n    x.clear()\n    return n", *checks)[0] == [P] * 3
