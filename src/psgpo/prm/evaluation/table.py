"""How well scores tell good lines from bad ones, one scorer after the other on the same lines. Pure NumPy.

A scorer gives every line a number, higher for better. A line whose number is below a threshold is called bad. Two
thresholds are used, because trivial baselines have none of their own:

own      what the PRM says its threshold is
fitted   chosen on one half of the problems for the other, both ways round: the most accurate one for lines, the one
         with the largest ProcessBench F1 for first errors

Lines are those with a label, each prefix of a problem once (`programs.counted_lines`). Intervals are 95 % percentile
bootstraps over problems. Undefined is NaN.
"""

# L code lines of a program, N lines of all programs, M programs whose first error is known or that are right

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.firsterror.judges import RIGHT, named_line
from psgpo.firsterror.measure import best_threshold, figures, halves, harmonic
from psgpo.prm.evaluation.programs import EvalProgram, counted_lines
from psgpo.prm.measure import QUINTILES, auroc, calibration, classification, f1

Array = NDArray[np.float64]
Json = dict[str, Any]
NAN = float("nan")
LENGTHS = 4
"""Groups of programs by their number of lines."""
RESAMPLES = 300


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What one scorer says of all programs."""

    name: str
    evidence: Sequence[Array]
    """Higher is better; of each program a number per line. Shapes: (L,)."""
    threshold: float | None = None
    """The scorer's own."""
    probabilities: Mapping[str, Sequence[Array]] = field(default_factory=dict)
    """`raw` and `calibrated`: P(good) per line, where the scorer gives one. Shapes: (L,)."""


class Lines:
    """The counted lines of programs, side by side."""

    def __init__(self, programs: Sequence[EvalProgram]) -> None:
        self.programs = programs
        labels = counted_lines(programs)
        self.where = [np.flatnonzero(row) for row in labels]
        """Indices of the counted lines of each program."""
        self.program_N = np.repeat(np.arange(len(programs)), [len(row) for row in self.where])
        self.good_N = self.of([np.array(row) for row in labels]) > 0
        self.number_N = np.concatenate([*self.where, np.zeros(0, dtype=int)]).astype(int) + 1
        self.length_N = np.array([len(p.labels) for p in programs])[self.program_N]
        self.position_N = self.number_N / self.length_N
        sides = halves(programs)
        self.first_half = np.isin(np.arange(len(programs)), sides[0])
        names = {name: n for n, name in enumerate(dict.fromkeys(p.problem_id for p in programs))}
        self.problem = np.array([names[p.problem_id] for p in programs])
        self.problems = len(names)

    def of(self, values: Sequence[Any]) -> Any:
        """The entries of counted lines, of values per line of every program. Shape: (N,)."""
        return np.concatenate([*(np.asarray(v)[w] for v, w in zip(values, self.where, strict=True)), np.zeros(0)])


def measure_scorer(lines: Lines, scored: Scored, *, resamples: int = RESAMPLES, seed: int = 0) -> Json:
    """All measures of one scorer, ready for JSON.

    Returns:
        `fitted`, and `own` where the scorer has a threshold: see `_decisions`. `calibration`: ECE and bins of each of
        `scored.probabilities`, with an interval of the ECE.
    """
    evidence_N = lines.of(scored.evidence)
    found: Json = {"fitted": _fitted(lines, scored, evidence_N, resamples, seed)}
    if scored.threshold is not None:
        called_N = evidence_N >= scored.threshold
        named = {i: named_line(p, scored.evidence[i], scored.threshold) for i, p in _known(lines.programs)}
        found["own"] = {"threshold": scored.threshold}
        found["own"] |= _decisions(lines, evidence_N, called_N, named, resamples, seed)
    found["calibration"] = {}
    for name, values in scored.probabilities.items():
        predicted_N = lines.of(values)
        result = calibration(predicted_N, lines.good_N)
        pieces = {"ece": lambda n, p=predicted_N: calibration(p[n], lines.good_N[n])["ece"]}
        result["interval"] = _intervals(lines, pieces, {}, resamples, seed)["ece"]
        found["calibration"][name] = result
    return found


def _fitted(lines: Lines, scored: Scored, evidence_N: Array, resamples: int, seed: int) -> Json:
    """Decisions with the thresholds that suit the other half of the problems."""
    called_N = np.zeros(len(evidence_N), dtype=bool)
    named: dict[int, int] = {}
    thresholds: Json = {"lines": [], "first_error": []}
    known = _known(lines.programs)
    for side in (True, False):
        here_N = lines.first_half[lines.program_N] == side
        other_N = ~here_N if (~here_N).any() else here_N
        cut = best_cut(evidence_N[other_N], lines.good_N[other_N])
        called_N[here_N] = evidence_N[here_N] >= cut
        thresholds["lines"].append(cut)
        here = [i for i, _ in known if lines.first_half[i] == side]
        fit = [i for i, _ in known if lines.first_half[i] != side] or here
        if here:
            cut = best_threshold([lines.programs[i] for i in fit], [list(scored.evidence[i]) for i in fit])
            thresholds["first_error"].append(cut)
            named |= {i: named_line(lines.programs[i], scored.evidence[i], cut) for i in here}
    return {"thresholds": thresholds} | _decisions(lines, evidence_N, called_N, named, resamples, seed)


def best_cut(evidence_N: Array, good_N: NDArray[np.bool_]) -> float:
    """The threshold with the most right decisions: the middle between two scores, the lowest of equals.

    >>> best_cut(np.array([0.0, 1.0, 2.0]), np.array([False, True, True]))
    0.5
    """
    values, place_N = np.unique(evidence_N, return_inverse=True)
    if not len(values):
        return NAN
    good = np.bincount(place_N.reshape(-1), weights=good_N, minlength=len(values))
    bad = np.bincount(place_N.reshape(-1), weights=~good_N, minlength=len(values))
    # Below the lowest every line is called good; each value that falls below the cut turns its lines.
    right = good.sum() + np.concatenate([[0.0], np.cumsum(bad - good)])
    cuts = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    return float(cuts[int(np.argmax(right))])


def _decisions(
    lines: Lines, evidence_N: Array, called_N: NDArray[np.bool_], named: Mapping[int, int], resamples: int, seed: int
) -> Json:
    """Measures of decisions about lines and first errors.

    Returns:
        `lines`: `classification` of all lines; `by_position` (fifths), `by_length` (fourths of the lines by the length
        of their program): the same per group. `by_kind`: per kind of bug, `lines` that are bad and the share found,
        `programs` and the share whose first error is named exactly. `first_error`: `firsterror.measure.figures`.
        `intervals` of five of these.
    """
    good_N = lines.good_N

    def group(inside_N: NDArray[np.bool_]) -> Json:
        return classification(good_N[inside_N], called_N[inside_N], evidence_N[inside_N])

    fifth_N = np.clip(np.ceil(lines.position_N * QUINTILES - 1e-9).astype(int) - 1, 0, QUINTILES - 1)
    indices = sorted(named)
    items, answers = [lines.programs[i] for i in indices], [named[i] for i in indices]
    exact = np.array([p.first_error is not None and a == p.first_error for p, a in zip(items, answers, strict=True)])
    wrong = np.array([p.first_error is not None for p in items], dtype=bool)
    silent = np.array([a == RIGHT for a in answers], dtype=bool)

    line_pieces = {
        "accuracy": lambda n: _mean(good_N[n] == called_N[n]),
        "f1_bad": lambda n: f1(~good_N[n], ~called_N[n]),
        "auroc": lambda n: auroc(evidence_N[n], good_N[n]),
    }
    program_pieces = {
        "first_error_exact": lambda m: _mean(exact[m][wrong[m]]),
        "first_error_f1": lambda m: harmonic(_mean(exact[m][wrong[m]]), _mean(silent[m][~wrong[m]])),
    }
    return {
        "lines": group(np.ones(len(good_N), dtype=bool)),
        "by_position": [
            {"from": q / QUINTILES, "to": (q + 1) / QUINTILES} | group(fifth_N == q) for q in range(QUINTILES)
        ],
        "by_length": [
            {"from": low, "to": high} | group((lines.length_N >= low) & (lines.length_N <= high))
            for low, high in length_groups(lines.length_N)
        ],
        "by_kind": _by_kind(lines, called_N, items, answers),
        "first_error": figures(items, answers),
        "intervals": _intervals(lines, line_pieces, program_pieces, resamples, seed, indices),
    }


def length_groups(length_N: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(least, most lines of a program) of groups that hold about as many lines each; fewer where lengths coincide.

    >>> length_groups(np.array([2, 2, 3, 3, 4, 4, 9, 9]))
    [(2, 2), (3, 3), (4, 4), (5, 9)]
    """
    if not len(length_N):
        return []
    shares = np.arange(1, LENGTHS + 1) / LENGTHS
    tops = sorted({int(top) for top in np.quantile(length_N, shares, method="inverted_cdf")})
    lows = [int(length_N.min()), *(top + 1 for top in tops[:-1])]
    return list(zip(lows, tops, strict=True))


def _by_kind(
    lines: Lines, called_N: NDArray[np.bool_], items: Sequence[EvalProgram], answers: Sequence[int]
) -> dict[str, Json]:
    """Per kind of bug; empty where no program names one."""
    kind = np.array([p.kind if p.outcome == "wrong" else "" for p in lines.programs])
    kind_N = kind[lines.program_N]
    found: dict[str, Json] = {}
    for name in sorted(set(kind) - {""}):
        bad_N = ~lines.good_N & (kind_N == name)
        hits = [a == p.first_error for p, a in zip(items, answers, strict=True) if p.kind == name and p.first_error]
        found[name] = {
            "lines": int(bad_N.sum()),
            "found": float(np.mean(~called_N[bad_N])) if bad_N.any() else NAN,
            "programs": len(hits),
            "first_error_exact": sum(hits) / len(hits) if hits else NAN,
        }
    return found


def _known(programs: Sequence[EvalProgram]) -> list[tuple[int, EvalProgram]]:
    return [(i, p) for i, p in enumerate(programs) if p.outcome != "unknown"]


def _intervals(
    lines: Lines,
    of_lines: Mapping[str, Callable[[Any], float]],
    of_programs: Mapping[str, Callable[[Any], float]],
    resamples: int,
    seed: int,
    programs: Sequence[int] = (),
) -> dict[str, list[float]]:
    """[2.5 %, 97.5 %] of numbers over resamples of problems; each is a function of indices that may repeat.

    Args:
        programs: which programs the functions of programs index, in their order.
    """
    rng = np.random.default_rng(seed)
    problem_N, problem_M = lines.problem[lines.program_N], lines.problem[np.array(programs, dtype=int)]
    drawn: dict[str, list[float]] = {name: [] for name in (*of_lines, *of_programs)}
    for _ in range(resamples):
        times = np.bincount(rng.integers(lines.problems, size=lines.problems), minlength=lines.problems)
        n = np.repeat(np.arange(len(problem_N)), times[problem_N])
        m = np.repeat(np.arange(len(problem_M)), times[problem_M])
        for name, value in of_lines.items():
            drawn[name].append(value(n))
        for name, value in of_programs.items():
            drawn[name].append(value(m))
    defined = {name: [v for v in values if not math.isnan(v)] for name, values in drawn.items()}
    return {
        name: [float(q) for q in np.percentile(values, [2.5, 97.5])] if values else [NAN, NAN]
        for name, values in defined.items()
    }


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else NAN
