"""Comparisons by hand-worked examples."""

from __future__ import annotations

import math
from typing import Any

import pytest

from psgpo.errors import UserError
from psgpo.execution.comparators import COMPARATORS, STDOUT_COMPARATORS
from psgpo.execution.encoding import check_tests
from psgpo.records import Call, CallTests

NAN = math.nan


@pytest.mark.parametrize(
    ("expected", "actual", "exact", "equal", "close"),
    [
        (1, 1, True, True, True),
        (1, True, False, True, False),
        (True, True, True, True, True),
        (1, 1.0, False, True, True),
        ([1, 2], (1, 2), False, False, True),
        ([1, [2]], [1, [2]], True, True, True),
        ([1, 2], [1], False, False, False),
        ({1: "a"}, {True: "a"}, False, True, False),
        ({1, 2}, {1.0, 2.0}, False, True, False),
        ({"a": {1}}, {"a": {1}}, True, True, True),
        ({"a": 1.0}, {"a": 1.0000001}, False, False, True),
        ({"a": 1}, {"b": 1}, False, False, False),
        (frozenset({1}), {1}, False, True, False),
        (0.1 + 0.2, 0.3, False, False, True),
        (1e12, 1e12 + 1, False, False, True),
        (1.0, 1.1, False, False, False),
        (NAN, float("nan"), True, False, True),
        (NAN, 1.0, False, False, False),
        (math.inf, math.inf, True, True, True),
        (math.inf, 1e308, False, False, False),
        (1.0, math.inf, False, False, False),
        (1.0, NAN, False, False, False),
        (10**400, 10**400, True, True, True),
        (10**400, 1.0, False, False, False),
        ("a", "a", True, True, True),
        ("a", b"a", False, False, False),
        (None, None, True, True, True),
        (None, 0, False, False, False),
        (-0.0, 0.0, True, True, True),
    ],
)
def test_comparators(expected: Any, actual: Any, exact: bool, equal: bool, close: bool) -> None:
    found = tuple(COMPARATORS[name](expected, actual, (), 0.0) for name in ("exact", "equal", "close"))
    assert found == (exact, equal, close)


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance", "holds"),
    [
        (1.0, 1.01, 0.1, True),
        ([{"a": 1.0}], ({"a": 1.2},), 0.1, False),
        ([{"a": 1.0}], ({"a": 1.01},), 0.1, True),
        (1.0, 1.0 + 5e-7, 0.0, True),
        (0.0, 5e-7, 1e-9, False),  # closer than the comparator asks for by itself
        (1e12, 1e12 + 1, 1e-9, True),  # the relative part stays
        (1, True, 2.0, False),
    ],
)
def test_close_takes_the_tests_tolerance(expected: Any, actual: Any, tolerance: float, holds: bool) -> None:
    assert COMPARATORS["close"](expected, actual, (), tolerance) is holds


@pytest.mark.parametrize("comparator", ["exact", "equal"])
def test_a_tolerance_that_would_do_nothing_is_refused(comparator: str) -> None:
    tests = CallTests(function="f", calls=(Call(args=(), expected=1.0),), comparator=comparator, tolerance=0.1)
    with pytest.raises(UserError, match=f"tolerance = 0.1: comparator '{comparator}' has none; use 'close'"):
        check_tests(tests)


# Rules of the benchmarks.


def judged(name: str, expected: Any, actual: Any, arguments: tuple[Any, ...] = (), tolerance: float = 0.0) -> bool:
    found = COMPARATORS[name](expected, actual, arguments, tolerance)
    assert type(found) is bool
    return found


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance", "holds"),
    [
        (1, True, 0.0, True),  # Python's ==
        ([1, 2], (1, 2), 0.0, False),
        (0.3, 0.1 + 0.2, 0.0, True),  # floats always have 1e-6
        (0.3, 0.30001, 0.0, False),
        (0.3, 0.30001, 1e-4, True),
        (2.0, 2, 0.0, True),
        (0.5, "0.5", 1e-4, False),
        (1.0000001, 1, 1e-4, False),  # another type, and not equal
        ([0.1, 0.2], [0.1 + 1e-9, 0.2], 0.0, True),
        ([0.1, 0.2], (0.1 + 1e-9, 0.2), 0.0, False),
        ([0.1, 0.2], [0.1 + 1e-9], 0.0, False),
        ([[0.1]], [[0.1 + 1e-9]], 0.0, False),  # nested floats have a tolerance only where the task names one
        ([[0.1]], [[0.1 + 1e-9]], 1e-6, True),
        ([[0.1]], [(0.1 + 1e-9,)], 1e-6, True),
        ([], [0.1], 1e-4, False),
        (1e12, 1e12 + 1, 0.0, True),  # 1e-7 relative
        (1e12, 1e12 + 1e6, 0.0, False),
        (math.inf, math.inf, 0.0, True),
        (math.inf, 1e308, 0.0, False),
        (1.0, math.inf, 0.0, False),
        (NAN, NAN, 0.0, False),
        (1.0, NAN, 0.0, False),
        (1j, 1j + 1e-9, 1e-6, True),
        (10**400, 10**400 + 1, 1e-4, False),
        ({"a": 0.1}, {"a": 0.1 + 1e-9}, 1e-6, False),
        (None, 0, 1e-4, False),
    ],
)
def test_evalplus(expected: Any, actual: Any, tolerance: float, holds: bool) -> None:
    assert judged("evalplus", expected, actual, (), tolerance) is holds


@pytest.mark.parametrize(
    ("expected", "actual", "holds"),
    [
        ((4, 5), (5, 4), True),
        ((4, 5), [5, 4, 4], True),
        ([4, 5], {4, 5}, True),
        ([4, 5], {4: 1, 5: 1}, True),
        ((4, 5), (4,), False),
        ((4, 5), (4, 5, 6), False),
        ((), (), True),
        ((4,), 4, False),
        ((4,), None, False),
        ((4,), ([4],), False),
        ((4,), "4", False),
        ((1,), (True, 1.0), True),
    ],
)
def test_evalplus_set(expected: Any, actual: Any, holds: bool) -> None:
    assert judged("evalplus-set", expected, actual) is holds


def test_find_zero() -> None:
    line, cubic = ([1, 2],), ([-6, 11, -6, 1],)  # 1 + 2x; (x-1)(x-2)(x-3)
    assert judged("evalplus-find-zero", -0.5, -0.5, line, 1e-4)
    assert judged("evalplus-find-zero", 1.0, 3, cubic, 1e-4)
    for wrong in (0.5, NAN, math.inf, 1e308, None, "-0.5", [-0.5], -0.5 + 0j):
        assert not judged("evalplus-find-zero", -0.5, wrong, line, 1e-4)


def test_sums_of_divisors() -> None:
    # 6 and 11 have the divisor sum 12 but the proper ones 6 and 1; 36's root counts twice for the reference.
    assert judged("evalplus-are-equivalent", False, True, (6, 11))
    assert judged("evalplus-are-equivalent", False, False, (6, 11))
    assert not judged("evalplus-are-equivalent", False, True, (6, 12))
    assert not judged("evalplus-are-equivalent", True, False, (6, 6))
    assert not judged("evalplus-are-equivalent", False, None, (6, 12))
    assert not judged("evalplus-are-equivalent", False, [True], (6, 12))
    # 8: 1 + 2 + 4 = 7, the reference of MBPP+ v0.1 says 15.
    assert judged("evalplus-sum-div", 15.0, 7, (8,))
    assert judged("evalplus-sum-div", 15.0, 15, (8,))
    assert not judged("evalplus-sum-div", 15.0, 0, (8,))
    assert judged("evalplus-sum-div", 1, 0, (1,))
    assert judged("evalplus-sum-div", 1.0, 0, (True,))
    assert judged("evalplus-sum-div", 999_983.0 + 1, 1, (999_983,))


def test_digit_distance_and_surface() -> None:
    assert judged("evalplus-digit-distance", 3, 3, (12345, 9))
    assert judged("evalplus-digit-distance", 8, 1 + 2 + 3 + 4 + 4, (12345, 9))
    assert not judged("evalplus-digit-distance", 8, 15, (12345, 9))
    assert not judged("evalplus-digit-distance", 8, None, (12345, 9))
    # Edge 6, height 4: slant height 5, 36 + 4 * 15 = 96.
    assert judged("evalplus-surface-area", 84, 96, (6, 4))
    assert judged("evalplus-surface-area", 84, 84, (6, 4))
    for wrong in (95, None, "96", NAN, [96]):
        assert not judged("evalplus-surface-area", 84, wrong, (6, 4))


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance", "holds"),
    [
        ([1, 2], (1, 2), 0.0, True),
        ([[1], [2]], ((1,), [2]), 0.0, True),
        ([[1], [2]], [[2], [1]], 0.0, False),
        ([1], [1, 2], 0.0, False),
        (1, True, 0.0, True),
        (2.0, 2, 0.0, True),
        (0.5, 0.5000001, 0.0, False),
        (0.5, 0.5000001, 1e-5, True),
        (0.5, 0.6, 1e-5, False),
        (1e6, 1e6 + 1, 1e-5, True),
        (10**400, 10**400 + 1, 1e-5, False),
        (1.0, 10**400, 1e-5, False),
        (10**400, 1.0, 1e-5, False),
        (math.inf, 1.0, 1e-5, False),
        (1.0, NAN, 1e-5, False),
        ("1", 1, 1e-5, False),
        ({"a": [1]}, {"a": (1,)}, 0.0, True),
        ({"a": 1}, {"b": 1}, 0.0, False),
        ({"a": 1}, [("a", 1)], 0.0, False),
        (None, None, 0.0, True),
        (None, [], 0.0, False),
        ([], None, 0.0, False),
    ],
)
def test_livecodebench(expected: Any, actual: Any, tolerance: float, holds: bool) -> None:
    assert judged("livecodebench", expected, actual, (), tolerance) is holds


@pytest.mark.parametrize(
    ("expected", "actual", "holds"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2\n3\n", " 1 2 \n\t3 \n\n", True),
        ("1 2\n3\n", "1  2\n3\n", True),  # the same numbers
        ("a b", "a  b", False),
        ("1\n2", "1\n\n2", False),
        ("1 2", "1\n2", False),
        ("1.50", "1.5", True),
        ("1e3", "1000", True),
        ("1", "1.0000000000000000000001", False),
        ("50000000000000000", "50000000000000001", False),
        ("0.33333", "0.333333", False),
        ("1", "one", False),
        ("Yes", "yes", False),
        ("1 x", "1.0 x", False),  # a line with a word must be equal
        ("1", "NaN", False),
        ("NaN", "nan", False),
        ("1", "sNaN", False),
        ("1", "1e999999999999999999", False),
        ("", "", True),
        ("", " \n", True),
        ("", "0", False),
        ("1", "", False),
    ],
)
def test_livecodebench_stdout(expected: str, actual: str, holds: bool) -> None:
    assert STDOUT_COMPARATORS["livecodebench"](expected, actual) is holds


def test_livecodebench_stdout_with_a_tolerance() -> None:
    within = STDOUT_COMPARATORS["livecodebench-1e-5"]
    assert within("0.33333\n2", "0.3333333 \n2.000001\n")
    assert within("1000000", "1000001")
    for wrong in ("0.3334\n2", "0.33333", "x\n2", "inf\n2", "nan\n2", "sNaN\n2", "1e999999999\n2"):
        assert not within("0.33333\n2", wrong)
    assert not within("inf", "1")


@pytest.mark.parametrize("name", sorted(COMPARATORS))
def test_no_judge_raises_whatever_the_program_returns(name: str) -> None:
    nested: Any = 1
    for _ in range(99):
        nested = [nested]
    odd = [None, True, 0, -1, 10**5000, 0.0, NAN, math.inf, -math.inf, 1j, "", "a", b"", [], (), {}, set(), nested]
    odd += [[None], (1, "a"), {"a": 1}, {1: [2]}, {1, 2}, frozenset({1}), [[1.0], 2], range(3), [10**400, 1.0]]
    arguments: dict[str, tuple[Any, ...]] = {
        "evalplus-find-zero": ([1, 2],),
        "evalplus-sum-div": (8,),
        "evalplus-are-equivalent": (6, 11),
        "evalplus-digit-distance": (12, 345),
        "evalplus-surface-area": (3, 4),
    }
    for expected in odd:
        for actual in odd:
            for tolerance in (0.0, 1e-4):
                judged(name, expected, actual, arguments.get(name, ()), tolerance)


def test_colliding_members_cost_no_more_than_the_expected_set() -> None:
    colliding = [index * (2**61 - 1) for index in range(20_000)]  # all hash to 0: a set of them takes minutes
    assert not judged("evalplus-set", [1, 2, 3], colliding)
    assert judged("evalplus-set", [0], [0] * 100_000)
