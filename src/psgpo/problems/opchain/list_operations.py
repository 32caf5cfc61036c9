"""Operations from lists of integers to lists of integers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

from psgpo.problems.opchain.operation import Operation, always, each, keep


def _list(
    name: str,
    apply: Callable[[Any, int], Any],
    phrasings: tuple[str, ...],
    correct: tuple[str, ...],
    *wrong: tuple[str, ...],
    parameters: range | None = None,
    defined: Callable[[Any, int], bool] = always,
) -> Operation:
    return Operation(
        name=name,
        takes="list",
        gives="list",
        apply=apply,
        phrasings=phrasings,
        correct=correct,
        wrong=wrong,
        parameters=tuple(parameters or ()),
        defined=defined,
    )


def _swap_pairs(state: list[int], _: int) -> list[int]:
    out = list(state)
    for i in range(0, len(out) - 1, 2):
        out[i], out[i + 1] = out[i + 1], out[i]
    return out


def _neighbours(expression: str) -> tuple[str, ...]:
    return (
        f"x = [{expression} for a, b in zip(x, x[1:])]",
        f"out = []\nfor a, b in zip(x, x[1:]):\n    out.append({expression})\nx = out",
    )


def _swap_loop(span: str) -> tuple[str, ...]:
    return (
        f"for i in range({span}):\n    x[i], x[i + 1] = x[i + 1], x[i]",
        f"for i in range({span}):\n    t = x[i]\n    x[i] = x[i + 1]\n    x[i + 1] = t",
    )


def _minus(number: str) -> tuple[str, ...]:
    return (
        f"t = {number}\nx = [v - t for v in x]",
        f"t = {number}\nout = []\nfor v in x:\n    out.append(v - t)\nx = out",
    )


def _not_empty(state: list[int], _: int) -> bool:
    return len(state) > 0


def _longer(state: list[int], parameter: int) -> bool:
    return len(state) > parameter


WITH_PARAMETER = (
    _list(
        "add_each",
        lambda x, k: [v + k for v in x],
        ("add K to each", "increase each by K", "add K to every number"),
        each("v + K"),
        each("v - K"),
        each("v + KM"),
        parameters=range(2, 10),
    ),
    _list(
        "subtract_each",
        lambda x, k: [v - k for v in x],
        ("subtract K from each", "decrease each by K", "take K from every number"),
        each("v - K"),
        each("K - v"),
        each("v + K"),
        parameters=range(2, 10),
    ),
    _list(
        "multiply_each",
        lambda x, k: [v * k for v in x],
        ("multiply each by K", "scale each by K", "multiply every number by K"),
        each("v * K"),
        each("v + K"),
        each("v * KP"),
        parameters=range(2, 6),
    ),
    _list(
        "divide_each",
        lambda x, k: [v // k for v in x],
        ("divide each by K rounding down", "floor divide each by K", "divide every number by K rounding down"),
        each("v // K"),
        each("(v + KM) // K"),
        each("v % K"),
        parameters=range(2, 6),
    ),
    _list(
        "remainder_each",
        lambda x, k: [v % k for v in x],
        ("take each modulo K", "replace each by its remainder modulo K", "reduce every number modulo K"),
        each("v % K"),
        each("v % KP"),
        each("v // K"),
        parameters=range(4, 10),
    ),
    _list(
        "keep_multiples",
        lambda x, k: [v for v in x if v % k == 0],
        ("keep the multiples of K", "keep numbers divisible by K", "drop numbers not divisible by K"),
        keep("v % K == 0"),
        keep("v % K != 0"),
        keep("v // K == 0"),
        parameters=range(3, 6),
    ),
    _list(
        "keep_above",
        lambda x, k: [v for v in x if v > k],
        ("keep numbers above K", "keep numbers greater than K", "drop numbers up to K"),
        keep("v > K"),
        keep("v >= K"),
        keep("v < K"),
        parameters=range(2, 10),
    ),
    _list(
        "keep_up_to",
        lambda x, k: [v for v in x if v <= k],
        ("keep numbers up to K", "keep numbers that are at most K", "drop numbers above K"),
        keep("v <= K"),
        keep("v < K"),
        keep("v >= K"),
        parameters=range(2, 10),
    ),
    _list(
        "cap_each",
        lambda x, k: [min(v, k) for v in x],
        ("cap each at K", "replace numbers above K by K", "limit every number to at most K"),
        each("min(v, K)"),
        each("max(v, K)"),
        keep("v <= K"),
        parameters=range(2, 10),
    ),
    _list(
        "take_first",
        lambda x, k: x[:k],
        ("take the first K", "keep only the first K", "drop all but the first K"),
        ("x = x[:K]", "out = []\nfor v in x[:K]:\n    out.append(v)\nx = out"),
        ("x = x[:KM]", "out = []\nfor v in x[:KM]:\n    out.append(v)\nx = out"),
        ("x = x[-K:]", "out = []\nfor v in x[-K:]:\n    out.append(v)\nx = out"),
        parameters=range(3, 7),
        defined=_longer,
    ),
    _list(
        "drop_first",
        lambda x, k: x[k:],
        ("drop the first K", "remove the first K", "skip the first K"),
        ("x = x[K:]", "out = []\nfor v in x[K:]:\n    out.append(v)\nx = out"),
        ("x = x[KM:]", "out = []\nfor v in x[KM:]:\n    out.append(v)\nx = out"),
        ("x = x[:-K]", "out = []\nfor v in x[:-K]:\n    out.append(v)\nx = out"),
        parameters=range(2, 4),
        defined=_longer,
    ),
    _list(
        "rotate",
        lambda x, k: x[k:] + x[:k],
        ("move the first K to the end", "rotate left by K", "put the first K last"),
        ("x = x[K:] + x[:K]", "t = x[:K]\nx = x[K:] + t"),
        ("x = x[-K:] + x[:-K]", "t = x[:-K]\nx = x[-K:] + t"),
        ("x = x[KM:] + x[:KM]", "t = x[:KM]\nx = x[KM:] + t"),
        parameters=range(2, 5),
        defined=_longer,
    ),
    _list(
        "append",
        lambda x, k: [*x, k],
        ("append K", "put K at the end", "put K last"),
        ("x = x + [K]", "x.append(K)"),
        ("x = [K] + x", "x.insert(0, K)"),
        ("x = x + [KP]", "x.append(KP)"),
        parameters=range(2, 10),
    ),
    _list(
        "prepend",
        lambda x, k: [k, *x],
        ("prepend K", "put K at the front", "put K first"),
        ("x = [K] + x", "x.insert(0, K)"),
        ("x = x + [K]", "x.append(K)"),
        ("x = x[:1] + [K] + x[1:]", "x.insert(1, K)"),
        parameters=range(2, 10),
    ),
)

WITHOUT_PARAMETER = (
    _list(
        "reverse",
        lambda x, _: x[::-1],
        ("reverse", "reverse the order", "put it in reverse order"),
        ("x = x[::-1]", "out = []\nfor v in x:\n    out = [v] + out\nx = out", "x.reverse()"),
        (
            "x = sorted(x, reverse=True)",
            "out = []\nfor v in sorted(x):\n    out = [v] + out\nx = out",
            "x.sort(reverse=True)",
        ),
        ("x = x[:0:-1]", "out = []\nfor v in x[1:]:\n    out = [v] + out\nx = out"),
    ),
    _list(
        "sort_up",
        lambda x, _: sorted(x),
        ("sort", "sort in increasing order", "sort from smallest to largest"),
        ("x = sorted(x)", "x.sort()"),
        ("x = sorted(x, reverse=True)", "x.sort(reverse=True)"),
        ("x = sorted(set(x))", "t = set(x)\nx = sorted(t)"),
    ),
    _list(
        "sort_down",
        lambda x, _: sorted(x, reverse=True),
        ("sort in decreasing order", "sort from largest to smallest", "sort with the largest first"),
        ("x = sorted(x, reverse=True)", "x.sort(reverse=True)", "x = sorted(x)\nx = x[::-1]"),
        ("x = sorted(x)", "x.sort()", "x = sorted(x)\nx = x[::1]"),
        ("x = x[::-1]", "x.reverse()", "x = list(x)\nx = x[::-1]"),
    ),
    _list(
        "unique",
        lambda x, _: list(dict.fromkeys(x)),
        ("remove duplicates", "keep the first of equal numbers", "drop repeated numbers"),
        (
            "out = []\nfor v in x:\n    if v not in out:\n        out.append(v)\nx = out",
            "x = list(dict.fromkeys(x))",
        ),
        ("out = []\nfor v in x:\n    if v not in out[-1:]:\n        out.append(v)\nx = out",),
        ("out = []\nfor v in sorted(x):\n    if v not in out:\n        out.append(v)\nx = out", "x = sorted(set(x))"),
    ),
    _list(
        "square_each",
        lambda x, _: [v * v for v in x],
        ("square each", "replace each by its square", "square every number"),
        each("v * v"),
        each("v + v"),
        each("v * v * v"),
    ),
    _list(
        "absolute_each",
        lambda x, _: [abs(v) for v in x],
        ("take absolute values", "replace each by its absolute value", "drop the signs"),
        (*each("abs(v)"), "out = []\nfor v in x:\n    if v < 0:\n        v = -v\n    out.append(v)\nx = out"),
        each("max(v, 0)"),
        (*each("-v"), "out = []\nfor v in x:\n    if v != 0:\n        v = -v\n    out.append(v)\nx = out"),
    ),
    _list(
        "negate_each",
        lambda x, _: [-v for v in x],
        ("negate each", "flip the signs", "change the sign of every number"),
        each("-v"),
        each("~v"),
        each("abs(v)"),
    ),
    _list(
        "keep_even",
        lambda x, _: [v for v in x if v % 2 == 0],
        ("keep the even numbers", "drop the odd numbers", "keep only even numbers"),
        keep("v % 2 == 0"),
        keep("v % 2 == 1"),
        ("x = x[::2]", "out = []\nfor v in x[::2]:\n    out.append(v)\nx = out"),
    ),
    _list(
        "keep_odd",
        lambda x, _: [v for v in x if v % 2 == 1],
        ("keep the odd numbers", "drop the even numbers", "keep only odd numbers"),
        keep("v % 2 == 1"),
        keep("v % 2 == 0"),
        ("x = x[1::2]", "out = []\nfor v in x[1::2]:\n    out.append(v)\nx = out"),
    ),
    _list(
        "zero_negatives",
        lambda x, _: [max(v, 0) for v in x],
        ("replace negative numbers by 0", "set negative numbers to 0", "raise every number to at least 0"),
        (*each("max(v, 0)"), "out = []\nfor v in x:\n    if v < 0:\n        v = 0\n    out.append(v)\nx = out"),
        keep("v >= 0"),
        (*each("min(v, 0)"), "out = []\nfor v in x:\n    if v > 0:\n        v = 0\n    out.append(v)\nx = out"),
    ),
    _list(
        "running_sum",
        lambda x, _: list(accumulate(x)),
        ("take running sums", "replace each by the sum so far", "sum up step by step"),
        (
            "t = 0\nout = []\nfor v in x:\n    t += v\n    out.append(t)\nx = out",
            "x = [sum(x[:i + 1]) for i in range(len(x))]",
        ),
        (
            "t = 0\nout = []\nfor v in x:\n    out.append(t)\n    t += v\nx = out",
            "x = [sum(x[:i]) for i in range(len(x))]",
        ),
        (
            "t = 1\nout = []\nfor v in x:\n    t += v\n    out.append(t)\nx = out",
            "x = [sum(x[:i + 1]) + 1 for i in range(len(x))]",
        ),
    ),
    _list(
        "running_largest",
        lambda x, _: list(accumulate(x, max)),
        ("take running largest", "replace each by the largest so far", "keep the largest step by step"),
        (
            "t = x[0]\nout = []\nfor v in x:\n    t = max(t, v)\n    out.append(t)\nx = out",
            "x = [max(x[:i + 1]) for i in range(len(x))]",
        ),
        (
            "t = x[-1]\nout = []\nfor v in x:\n    t = max(t, v)\n    out.append(t)\nx = out",
            "x = [max(x[:i + 1] + x[-1:]) for i in range(len(x))]",
        ),
        (
            "t = x[0]\nout = []\nfor v in x:\n    t = min(t, v)\n    out.append(t)\nx = out",
            "x = [min(x[:i + 1]) for i in range(len(x))]",
        ),
        defined=_not_empty,
    ),
    _list(
        "differences",
        lambda x, _: [b - a for a, b in pairwise(x)],
        ("take differences of neighbours", "subtract each from the next", "replace by steps between neighbours"),
        _neighbours("b - a"),
        _neighbours("a - b"),
        _neighbours("abs(b - a)"),
    ),
    _list(
        "add_position",
        lambda x, _: [v + i for i, v in enumerate(x)],
        ("add to each its position from 0", "add the position from 0 to each", "add to every number its index"),
        (
            "x = [v + i for i, v in enumerate(x)]",
            "out = []\nfor i, v in enumerate(x):\n    out.append(v + i)\nx = out",
        ),
        (
            "x = [v + i for i, v in enumerate(x, 1)]",
            "out = []\nfor i, v in enumerate(x, 1):\n    out.append(v + i)\nx = out",
        ),
        (
            "x = [v * i for i, v in enumerate(x)]",
            "out = []\nfor i, v in enumerate(x):\n    out.append(v * i)\nx = out",
        ),
    ),
    _list(
        "swap_pairs",
        _swap_pairs,
        ("swap neighbours in pairs", "swap first with second and so on in pairs", "swap each pair"),
        _swap_loop("0, len(x) - 1, 2"),
        _swap_loop("0, len(x) - 1, 1"),
        _swap_loop("1, len(x) - 1, 2"),
    ),
    _list(
        "subtract_smallest",
        lambda x, _: [v - min(x) for v in x],
        ("subtract the smallest from each", "decrease each by the smallest", "shift so that the smallest is 0"),
        _minus("min(x)"),
        _minus("x[0]"),
        _minus("max(x)"),
        defined=_not_empty,
    ),
)

LIST_OPERATIONS = WITH_PARAMETER + WITHOUT_PARAMETER
