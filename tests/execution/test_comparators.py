"""Comparisons by hand-worked examples."""

from __future__ import annotations

import math
from typing import Any

import pytest

from psgpo.execution.comparators import COMPARATORS

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
