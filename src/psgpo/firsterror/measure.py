"""ProcessBench's figure for code. Pure functions.

    acc_wrong   share of wrong programs whose first wrong line is named exactly
    acc_right   share of right programs that are called right
    F1          2 acc_wrong acc_right / (acc_wrong + acc_right)        (ProcessBench, arXiv 2412.06559)

Undefined is NaN: no wrong or no right program. F1 is 0 when both are 0.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from psgpo.firsterror.items import Item, Judged
from psgpo.firsterror.judges import NO_ANSWER, RIGHT, named_line

Json = dict[str, Any]
_DRAWS = 500


def figures(items: Sequence[Judged], named: Sequence[int]) -> Json:
    """The figures of one group of items; `named` holds a line, RIGHT or NO_ANSWER for each."""
    pairs = list(zip(items, named, strict=True))
    wrong = [(item.first_error, answer) for item, answer in pairs if item.first_error is not None]
    right = [answer for item, answer in pairs if item.first_error is None]
    exact = _share([answer == line for line, answer in wrong])
    near = _share([answer > 0 and abs(answer - line) <= 1 for line, answer in wrong if line is not None])
    called = _share([answer == RIGHT for answer in right])
    return {
        "wrong": len(wrong),
        "right": len(right),
        "acc_wrong": exact,
        "acc_wrong_within_1": near,
        "acc_right": called,
        "f1": harmonic(exact, called),
        "no_answer": sum(answer == NO_ANSWER for answer in named),
    }


def summary(items: Sequence[Item], named: Sequence[int]) -> Json:
    """Figures of all items, with a 95 % bootstrap interval of F1 over problems, and by source and kind of error."""
    result = {"all": figures(items, named) | {"f1_interval": interval(items, named)}}
    result["by_source"] = {
        source: _part(items, named, lambda item, s=source: item.source == s)
        for source in sorted({item.source for item in items})
    }
    kinds = sorted({(item.source, item.kind) for item in items if item.first_error is not None})
    result["by_kind"] = {
        f"{source}: {kind}": _part(
            items, named, lambda i, s=source, k=kind: i.first_error is not None and (i.source, i.kind) == (s, k)
        )["acc_wrong"]
        for source, kind in kinds
    }
    return result


def harmonic(a: float, b: float) -> float:
    """Harmonic mean; 0 when both are 0."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def interval(items: Sequence[Judged], named: Sequence[int], *, draws: int = _DRAWS) -> list[float]:
    """[2.5 %, 97.5 %] of F1 when problems are drawn with replacement; draws without a figure are left out."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.problem_id, []).append(index)
    rng, names, values = random.Random(0), list(groups), []
    for _ in range(draws):
        drawn = [index for name in rng.choices(names, k=len(names)) for index in groups[name]]
        value = figures([items[i] for i in drawn], [named[i] for i in drawn])["f1"]
        if not math.isnan(value):
            values.append(value)
    if not values:
        return [math.nan, math.nan]
    values.sort()
    return [values[int(0.025 * (len(values) - 1))], values[math.ceil(0.975 * (len(values) - 1))]]


def best_threshold(items: Sequence[Judged], scores: Sequence[Sequence[float]]) -> float:
    """The threshold with the largest F1 on these items; the middle between two scores, the lowest of equals.

    A wrong program is named exactly by the thresholds above the score of its first error and not above any score before
    it; a right one is called right by those not above its lowest score. So one pass counts both for every threshold.
    """
    every = sorted({row[line - 1] for item, row in zip(items, scores, strict=True) for line in item.candidates})
    cuts = [every[0] - 1, *((a + b) / 2 for a, b in pairwise(every)), every[-1] + 1]
    gained, lost, silent = [], [], []
    for item, row in zip(items, scores, strict=True):
        if item.first_error is None:
            silent.append(min(row[line - 1] for line in item.candidates))
            continue
        before = min((row[line - 1] for line in item.candidates if line < item.first_error), default=math.inf)
        if row[item.first_error - 1] < before:
            gained.append(row[item.first_error - 1])
            lost.append(before)
    wrong = len(items) - len(silent)
    if not wrong or not silent:
        return cuts[0]
    for values in (gained, lost, silent):
        values.sort()

    def value(cut: float) -> float:
        exact = (bisect_left(gained, cut) - bisect_left(lost, cut)) / wrong
        return harmonic(exact, 1 - bisect_left(silent, cut) / len(silent))

    return max(cuts, key=value)


def halves(items: Sequence[Judged]) -> list[list[int]]:
    """Indices of the items of one half of the problems, and of the other; of one problem the first is empty."""
    problems = sorted({item.problem_id for item in items})
    random.Random(0).shuffle(problems)
    first = set(problems[: len(problems) // 2])
    return [[i for i, item in enumerate(items) if (item.problem_id in first) == side] for side in (True, False)]


def cross_fitted(items: Sequence[Judged], scores: Sequence[Sequence[float]]) -> tuple[list[int], list[float]]:
    """(named lines, two thresholds): each half of the problems is judged with the threshold that suits the other."""
    sides = halves(items)
    named, thresholds = [RIGHT] * len(items), []
    for here, there in (sides, sides[::-1]):
        fit = there or here
        cut = best_threshold([items[i] for i in fit], [scores[i] for i in fit])
        thresholds.append(cut)
        for i in here:
            named[i] = named_line(items[i], scores[i], cut)
    return named, thresholds


def _part(items: Sequence[Item], named: Sequence[int], wanted: Any) -> Json:
    chosen = [(item, answer) for item, answer in zip(items, named, strict=True) if wanted(item)]
    return figures([item for item, _ in chosen], [answer for _, answer in chosen])


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan


def render(result: Mapping[str, Any]) -> str:
    """The summary for people."""
    rows = [("all", result["all"]), *result["by_source"].items()]
    lines = [f"{'':<10}{'wrong':>7}{'right':>7}{'acc wrong':>11}{'within 1':>10}{'acc right':>11}{'F1':>8}"]
    for name, f in rows:
        lines.append(
            f"{name:<10}{f['wrong']:>7}{f['right']:>7}{f['acc_wrong']:>11.3f}{f['acc_wrong_within_1']:>10.3f}"
            f"{f['acc_right']:>11.3f}{f['f1']:>8.3f}"
        )
    low, high = result["all"]["f1_interval"]
    lines.append(f"F1 of all: 95 % {low:.3f} to {high:.3f}, bootstrap over problems")
    if result["all"]["no_answer"]:
        lines.append(f"{result['all']['no_answer']} answers named neither a line nor none; they count as wrong")
    if "thresholds" in result:
        lines.append(f"thresholds {', '.join(format(t, '.4g') for t in result['thresholds'])}")
    if "own_threshold" in result:
        own = result["own_threshold"]
        lines.append(
            f"with the scorer's own threshold {own['threshold']:.4g}: acc wrong {own['acc_wrong']:.3f}, acc right "
            f"{own['acc_right']:.3f}, F1 {own['f1']:.3f}"
        )
    return "\n".join([*lines, ""])
