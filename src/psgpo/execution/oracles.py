"""What counts as right in the benchmarks that have rules of their own: EvalPlus and LiveCodeBench.

Every judge runs on the trusted side on plain values of exact builtin types, of which `actual` may be chosen to do harm.
A judge answers False where the benchmark's own check would raise, hashes no member of a set that the program chose, and
leaves endless comparisons to the tester's watchdog. Standard library only; what is seldom needed is imported late.

What differs from the benchmarks:
- EvalPlus accepts every answer to Mbpp/164 and always 0 for Mbpp/295, so that a constant passes. Here an answer is the
  reference's or follows a reading of the text: the sum of all divisors (164 only), or of the proper ones.
- LiveCodeBench takes a tuple for a list at the top only, here at every depth (its expected values are JSON, so a list
  is the only sequence they can hold), and knows no tolerance; here the one that the problem's text grants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

Judge = Callable[[Any, Any, tuple[Any, ...], float], bool]

RELATIVE_TOLERANCE = 1e-7
"""EvalPlus compares floats with |actual - expected| <= atol + 1e-7 |expected|."""
FLOAT_TOLERANCE = 1e-6
"""Its absolute tolerance where the expected value is a float, or a flat sequence of floats, and the task names none."""
_SEQUENCES = (list, tuple)
_COLLECTIONS = (list, tuple, set, frozenset, dict)
_REAL = (int, float, bool)
_NUMBERS = (*_REAL, complex)


def evalplus(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """Python's `==`; failing that, numbers within the tolerance in values of the same type and shape."""
    if expected == actual:
        return True
    if tolerance == 0 and _is_floats(expected):
        tolerance = FLOAT_TOLERANCE
    return tolerance != 0 and type(expected) is type(actual) and _all_close(expected, actual, tolerance)


def _is_floats(value: Any) -> bool:
    if type(value) in _SEQUENCES:
        return len(value) > 0 and all(type(item) is float for item in value)
    return type(value) is float


def _all_close(expected: Any, actual: Any, tolerance: float) -> bool:
    if type(expected) in _SEQUENCES and type(actual) in _SEQUENCES:
        return len(expected) == len(actual) and all(
            _all_close(want, got, tolerance) for want, got in zip(expected, actual, strict=True)
        )
    if type(expected) not in _NUMBERS or type(actual) not in _NUMBERS:
        return False
    if expected == actual:
        return True
    try:
        distance, scale = float(abs(actual - expected)), float(abs(expected))
    except OverflowError:
        return False
    return scale != math.inf and distance <= tolerance + RELATIVE_TOLERANCE * scale


def evalplus_set(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """The same members, in any order and number."""
    if type(expected) not in _COLLECTIONS or type(actual) not in _COLLECTIONS:
        return False
    return _same_members(expected, actual)


def _same_members(expected: Iterable[Any], actual: Iterable[Any]) -> bool:
    """Builds a set of the expected members only: hostile ones may all hash alike."""
    try:
        wanted = {member: index for index, member in enumerate(dict.fromkeys(expected))}
        found = {wanted[member] for member in actual}
    except (KeyError, TypeError):
        return False
    return len(found) == len(wanted)


def find_zero(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """HumanEval/32: any x with |p(x)| <= tolerance, p given by its coefficients from the constant up."""
    if type(actual) not in _REAL:
        return False
    try:
        value = sum(coefficient * math.pow(actual, power) for power, coefficient in enumerate(arguments[0]))
    except (ArithmeticError, ValueError):
        return False
    return bool(abs(value) <= tolerance)


def are_equivalent(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """Mbpp/164: the reference's answer, or the truth about the sums of all, or of all proper, divisors.

    The reference counts the root of a square twice, so a right program differs from it.
    """
    if type(actual) is not bool:
        return bool(expected == actual)
    if expected == actual:
        return True
    first, second = arguments
    sums = _divisor_sum(first), _divisor_sum(second)
    return actual in (sums[0] == sums[1], sums[0] - first == sums[1] - second)


def _divisor_sum(number: int) -> int:
    total, rest, prime = 1, number, 2
    while prime * prime <= rest:
        power = 1
        while rest % prime == 0:
            rest, power = rest // prime, power * prime + 1
        total, prime = total * power, prime + 1
    return total * (rest + 1) if rest > 1 else total


def sum_div(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """Mbpp/295: the reference's answer, or the sum of the proper divisors, which the text's example means."""
    (number,) = arguments
    return evalplus(expected, actual, arguments, tolerance) or bool(actual == _divisor_sum(number) - number)


def digit_distance(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """Mbpp/558: the reference drops the longer number's last digits; numbers aligned at their last digit count too."""
    if evalplus(expected, actual, arguments, tolerance):
        return True
    first, second = map(str, arguments)
    width = max(len(first), len(second))
    aligned = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(actual == sum(abs(int(left) - int(right)) for left, right in aligned))


def surface_area(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """Mbpp/581: the reference takes the slant height; the height of the pyramid, rounded to an integer, counts too."""
    edge, height = arguments
    area = round(edge**2 + 2 * edge * math.hypot(edge / 2, height))
    if type(actual) in _REAL and abs(actual - area) <= tolerance:
        return True
    return evalplus(expected, actual, arguments, tolerance)


def livecodebench(expected: Any, actual: Any, arguments: tuple[Any, ...], tolerance: float) -> bool:
    """Python's `==` with a tuple as good as a list, and numbers within the tolerance (absolute or relative)."""
    if type(expected) in _SEQUENCES and type(actual) in _SEQUENCES:
        return len(expected) == len(actual) and all(
            livecodebench(want, got, arguments, tolerance) for want, got in zip(expected, actual, strict=True)
        )
    if type(expected) is dict and type(actual) is dict:
        return len(expected) == len(actual) and all(
            key in actual and livecodebench(value, actual[key], arguments, tolerance) for key, value in expected.items()
        )
    return bool(expected == actual) or (
        tolerance > 0
        and type(expected) in (int, float)
        and type(actual) in (int, float)
        and _within(expected, actual, tolerance)
    )


def _within(expected: Any, actual: Any, tolerance: float) -> bool:
    try:
        wanted, found = float(expected), float(actual)
    except (OverflowError, ValueError):
        return False
    return math.isfinite(wanted) and abs(found - wanted) <= tolerance * max(1.0, abs(wanted))


def livecodebench_stdout(expected: str, actual: str, tolerance: float = 0.0) -> bool:
    """As many lines, each equal or the same decimal numbers; white space around lines and text does not count."""
    wanted, found = (text.strip().split("\n") for text in (expected, actual))
    return len(wanted) == len(found) and all(
        _same_line(want.strip(), got.strip(), tolerance) for want, got in zip(wanted, found, strict=True)
    )


def _same_line(expected: str, actual: str, tolerance: float) -> bool:
    if expected == actual:
        return True
    from decimal import Decimal

    words, others = expected.split(), actual.split()
    if len(words) != len(others):
        return False
    try:
        for word, other in zip(words, others, strict=True):
            want, got = Decimal(word), Decimal(other)
            if want != got and not (tolerance > 0 and _within(want, got, tolerance)):
                return False
    except (ArithmeticError, ValueError):
        return False
    return True


def _stdout_within(tolerance: float) -> Callable[[str, str], bool]:
    return lambda expected, actual: livecodebench_stdout(expected, actual, tolerance)


TOLERANCE_DIGITS = range(1, 16)
"""Tolerances that a problem's text may grant: 1e-1 to 1e-15."""

ORACLES: dict[str, Judge] = {
    "evalplus": evalplus,
    "evalplus-set": evalplus_set,
    "evalplus-find-zero": find_zero,
    "evalplus-are-equivalent": are_equivalent,
    "evalplus-sum-div": sum_div,
    "evalplus-digit-distance": digit_distance,
    "evalplus-surface-area": surface_area,
    "livecodebench": livecodebench,
}
STDOUT_ORACLES: dict[str, Callable[[str, str], bool]] = {"livecodebench": livecodebench_stdout} | {
    f"livecodebench-1e-{digits}": _stdout_within(float(f"1e-{digits}")) for digits in TOLERANCE_DIGITS
}
