"""How a returned value is compared with the expected one. Both are plain data of exact builtin types.

A judge runs on the trusted side and gets (expected, actual, arguments, tolerance). To add one, write the function and
list it in `COMPARATORS`; tests name it in their `comparator` field. Standard output is judged by `STDOUT_COMPARATORS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from psgpo.execution.oracles import ORACLES, STDOUT_ORACLES

Judge = Callable[[Any, Any, tuple[Any, ...], float], bool]
"""(expected, actual, arguments of the call, absolute tolerance) -> whether the answer holds."""

RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-6


def exact(expected: Any, actual: Any) -> bool:
    """Equal values of equal types, at every depth: 1, True and 1.0 differ, so do lists and tuples; NaN equals NaN.

    Inside sets and dict keys a NaN equals nothing, because Python cannot look it up.
    """
    kind = type(expected)
    if kind is not type(actual):
        return False
    if kind is list or kind is tuple:
        return len(expected) == len(actual) and all(map(exact, expected, actual))
    if kind is dict:
        return _same_members(expected, actual) and all(exact(value, actual[key]) for key, value in expected.items())
    if kind is set or kind is frozenset:
        return _same_members(expected, actual)
    return bool(expected == actual) or (kind is float and expected != expected and actual != actual)


def _same_members(expected: Any, actual: Any) -> bool:
    """Equal sets (or dict keys) whose partners also have equal types: {1} and {True} differ."""
    if len(expected) != len(actual):
        return False
    partner = {member: member for member in actual}
    return all(member in partner and exact(member, partner[member]) for member in expected)


def equal(expected: Any, actual: Any) -> bool:
    """Python's own `==`: 1 equals 1.0 and True, a list never equals a tuple, NaN equals nothing."""
    return bool(expected == actual)


def close(expected: Any, actual: Any, tolerance: float = ABSOLUTE_TOLERANCE) -> bool:
    """Numbers within the tolerance, or within 1e-6 of the expected one, lists and tuples alike; the rest exactly.

    A bool is no number here; infinities and NaN equal only themselves. Members of sets and dict keys compare exactly.
    """
    if type(expected) in (int, float) and type(actual) in (int, float):
        return _close_numbers(expected, actual, tolerance)
    if type(expected) in (list, tuple) and type(actual) in (list, tuple):
        return len(expected) == len(actual) and all(
            close(want, got, tolerance) for want, got in zip(expected, actual, strict=True)
        )
    if type(expected) is dict and type(actual) is dict:
        return _same_members(expected, actual) and all(
            close(value, actual[key], tolerance) for key, value in expected.items()
        )
    return exact(expected, actual)


def _close_numbers(expected: float, actual: float, tolerance: float) -> bool:
    if expected == actual or (expected != expected and actual != actual):
        return True
    try:
        difference, scale = float(abs(expected - actual)), float(abs(expected))
    except OverflowError:
        return False
    if scale == math.inf:
        return False
    return difference <= max(tolerance, RELATIVE_TOLERANCE * scale)


def _close(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    return close(expected, actual, tolerance or ABSOLUTE_TOLERANCE)


def _of_values(compare: Callable[[Any, Any], bool]) -> Judge:
    """A judge that looks at the two values only."""
    return lambda expected, actual, arguments, tolerance: compare(expected, actual)


def lines(expected: str, actual: str) -> bool:
    """Equal lines; white space at the end of a line and empty lines at the end of the text do not count."""
    return _lines(expected) == _lines(actual)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


_VALUES = {"exact": exact, "equal": equal}
WITHOUT_TOLERANCE = frozenset(_VALUES)
"""Comparators for which tests may give no tolerance: it would do nothing."""
COMPARATORS: dict[str, Judge] = {name: _of_values(compare) for name, compare in _VALUES.items()}
COMPARATORS |= {"close": _close} | ORACLES
STDOUT_COMPARATORS: dict[str, Callable[[str, str], bool]] = {"exact": str.__eq__, "lines": lines} | STDOUT_ORACLES
