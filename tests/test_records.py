"""Tests, problems and verdicts as JSON, there and back; malformed ones say what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from psgpo import records
from psgpo.records import (
    AssertTests,
    Call,
    CallTests,
    Problem,
    Status,
    StdioCase,
    StdioTests,
    Tests,
    Verdict,
)

read_tests = records.tests_from_json  # by another name, or it would be taken for a test

SUITES: list[Tests] = [
    CallTests(function="f", calls=(Call(args=(1, (2, {3})), expected={4: b"5"}),)),
    CallTests(
        function="Solution.solve",
        calls=(Call(args=(), expected=None), Call(args=([math.inf],), expected=1j)),
        comparator="close",
        tolerance=1e-4,
    ),
    AssertTests(entry_point="f", checks=("assert f(1) == 2", "assert f(2) == 3")),
    AssertTests(entry_point="f", checks=("assert True",), setup="import math", objects=("Tree", "Node")),
    StdioTests(cases=(StdioCase(stdin="1\n", expected="2"), StdioCase(stdin="", expected="")), comparator="exact"),
    StdioTests(cases=(StdioCase(stdin="h\u00e9", expected="2"),)),
]


@pytest.mark.parametrize("tests", SUITES)
def test_tests_come_back_from_json_text(tests: Tests) -> None:
    assert read_tests(json.loads(json.dumps(tests.to_json(), allow_nan=False))) == tests


@pytest.mark.parametrize("tests", SUITES)
def test_problems_come_back_from_json_text(tests: Tests) -> None:
    problem = Problem(
        id="a/1", prompt="p", tests=tests, starter_code="def f():", preamble="import re", metadata={"k": [1]}
    )
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem


def test_what_a_record_leaves_out_has_defaults() -> None:
    call = {"args": [1], "expected": 2}
    assert read_tests({"kind": "calls", "function": "f", "calls": [call]}) == CallTests(
        function="f", calls=(Call(args=(1,), expected=2),), comparator="exact", tolerance=0.0
    )
    assert read_tests({"kind": "asserts", "entry_point": "f", "checks": ["f()"]}).to_json() == {
        "kind": "asserts",
        "entry_point": "f",
        "checks": ["f()"],
    }
    assert read_tests({"kind": "stdio", "cases": [{"stdin": "", "expected": ""}]}) == StdioTests(
        cases=(StdioCase(stdin="", expected=""),), comparator="lines"
    )


CALL = {"args": [1], "expected": 2}
CALLS = {"kind": "calls", "function": "f", "calls": [CALL]}
ASSERTS = {"kind": "asserts", "entry_point": "f", "checks": ["f()"]}
STDIO = {"kind": "stdio", "cases": [{"stdin": "", "expected": ""}]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "kind"),
        ([], "kind"),
        ({}, "one of calls, asserts, stdio"),
        ({"kind": "fuzz"}, "one of calls, asserts, stdio"),
        (CALLS | {"calls": []}, "no tests"),
        (ASSERTS | {"checks": []}, "no tests"),
        (STDIO | {"cases": []}, "no tests"),
        (CALLS | {"function": "a b"}, "name of a function"),
        (CALLS | {"function": "f()"}, "name of a function"),
        (CALLS | {"function": ".f"}, "name of a function"),
        (CALLS | {"function": 5}, "name of a function"),
        (CALLS | {"calls": [CALL | {"args": "ab"}]}, "args must be a list"),
        (CALLS | {"calls": [CALL | {"expected": math.nan}]}, "bare NaN"),
        (CALLS | {"calls": [CALL | {"args": [{"k": [math.inf]}]}]}, "bare NaN or infinity"),
        (CALLS | {"calls": [CALL | {"expected": {"$nope": 1}}]}, "unknown tagged value"),
        (CALLS | {"tolerance": "small"}, "tolerance must be a number"),
        (CALLS | {"tolerance": -1e-9}, "tolerance must be a number"),
        (CALLS | {"tolerance": math.nan}, "tolerance must be a number"),
        (CALLS | {"tolerance": True}, "tolerance must be a number"),
        (CALLS | {"comparator": ["exact"]}, "comparator must be a name"),
        (STDIO | {"comparator": 5}, "comparator must be a name"),
        (ASSERTS | {"entry_point": "f.g"}, "must be names"),
        (ASSERTS | {"entry_point": None}, "must be names"),
        (ASSERTS | {"objects": ["a b"]}, "must be names"),
        (ASSERTS | {"objects": "Tree"}, "must be names"),
        (ASSERTS | {"checks": "f()"}, "must be a list of Python statements"),
        (ASSERTS | {"checks": [5]}, "must be a list of Python statements"),
        (ASSERTS | {"setup": ["import re"]}, "setup must be Python statements"),
        (STDIO | {"cases": [{"stdin": 5, "expected": ""}]}, "the texts 'stdin' and 'expected'"),
        (STDIO | {"cases": [{"stdin": "", "expected": None}]}, "the texts 'stdin' and 'expected'"),
        (
            CALLS | {"comparater": "close"},
            r"unknown keys \['comparater'\] in tests of kind 'calls'; allowed: \['kind', ",
        ),
        (CALLS | {"calls": [CALL | {"kwargs": {}}]}, r"unknown keys \['kwargs'\] in a call; allowed: \['args', 'exp"),
        (CALLS | {"calls": [5]}, "a call must be an object, found int"),
        (
            ASSERTS | {"setup_code": "", "timeout": 1},
            r"unknown keys \['setup_code', 'timeout'\] in .*'asserts'; allowed",
        ),
        (STDIO | {"tolerance": 1e-3}, r"unknown keys \['tolerance'\] in tests of kind 'stdio'; allowed"),
        (STDIO | {"cases": [{"stdin": "", "expected": "", "args": 1}]}, r"unknown keys \['args'\] in a stdio case"),
    ],
)
def test_malformed_tests_are_named(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_tests(record)


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "calls", "function": "f"},
        {"kind": "calls", "calls": [CALL]},
        CALLS | {"calls": [{"args": [1]}]},
        CALLS | {"calls": [5]},
        CALLS | {"calls": 5},
        {"kind": "asserts", "entry_point": "f"},
        {"kind": "asserts", "checks": ["f()"]},
        ASSERTS | {"objects": 5},
        {"kind": "stdio"},
        STDIO | {"cases": [{"stdin": ""}]},
        STDIO | {"cases": ["ab"]},
    ],
)
def test_missing_parts_raise_what_the_reader_of_a_file_reports(record: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_tests(record)


def test_a_problem_names_itself_when_its_tests_are_malformed() -> None:
    with pytest.raises(ValueError, match="problem a/1: the problem has no tests"):
        Problem.from_json({"id": "a/1", "prompt": "p", "tests": CALLS | {"calls": []}})
    with pytest.raises(ValueError, match=r"unknown keys \['promt'\]"):
        Problem.from_json({"id": "a/1", "promt": "p", "tests": CALLS})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("difficulty", "easy", "'difficulty' must be a whole number, found 'easy'"),
        ("difficulty", True, "'difficulty' must be a whole number, found True"),
        ("reference_solution", 5, "'reference_solution' must be text, found 5"),
        ("starter_code", ["def f():"], "'starter_code' must be text"),
        ("metadata", [], r"'metadata' must be an object, found \[\]"),
    ],
)
def test_what_a_problem_may_leave_out_has_its_type(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"problem a/1: {message}"):
        Problem.from_json({"id": "a/1", "prompt": "p", "tests": CALLS, key: value})


def test_null_is_what_a_problem_leaves_out() -> None:
    least = {"id": "a/1", "prompt": "p", "tests": CALLS}
    optional = ("source", "split", "difficulty", "starter_code", "preamble", "reference_solution", "metadata")
    problem = Problem.from_json(least | dict.fromkeys(optional))
    assert problem == Problem.from_json(least)
    assert problem.metadata == {}


def test_verdicts_come_back_and_count() -> None:
    verdict = Verdict(
        status=Status.TIMEOUT,
        tests_passed=1,
        tests_total=4,
        first_failing=1,
        outcomes=(Status.PASSED, Status.TIMEOUT, Status.TIMEOUT, Status.TIMEOUT),
        mode="calls",
        confinement="full",
    )
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
    assert (verdict.passed, verdict.fraction) == (False, 0.25)
    assert Verdict(status=Status.PASSED, tests_passed=2, tests_total=2).passed
    assert Verdict(status=Status.INFRASTRUCTURE, tests_passed=0, tests_total=0).fraction == 0.0
