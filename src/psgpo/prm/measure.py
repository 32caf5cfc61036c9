"""How good a PRM is, from its line scores and a truth. Pure NumPy.

A truth says of every response how many leading lines are good (m*): `search` labels say what the rollouts found,
`exact` labels what the embedded benchmark's oracle knows. Line m is good when m <= m*; for a PRM of target `sign`, when
its label is above 0, which with hard labels is the same. With rates and chances (`soft`, `noisy-soft`) it is not: a PRM
that learned "-.5" of a line from which one completion in four passes is right to score it so. Neutral lines (comments,
blank lines) say nothing about correctness and are left out everywhere; "first error" is the first other line that is
not good. A response whose lines are all good counts as right, whatever its verdict.

Which lines a PRM calls good:

- `sign`: those with R > 0.
- `progress`: R estimates the share of the program that is done and right, at the end m*/T. So its largest value in the
  response says how many lines are good, and line m is called good while m <= T max(0, R_1, ..., R_T) + 0.5: after that
  line the score rises no more. The margin is the score behind AUROC. Unlike `sign` this looks at the whole response,
  and a regression's caution near 1 makes it report errors in right responses. Where the progress counts operations
  (exact labels), not lines, even a perfect PRM stays below 1.

- `soft`: those with R > 1/2, R the share of completions that pass. Good is what m* says: a line from which one
  completion in twenty passes counts as good, so AUROC says more than accuracy.

Undefined numbers (F1 without a positive, AUROC of one class, a mean of nothing) are NaN, null in the JSON.
"""

# L code lines, N lines of all responses together

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psgpo.jsonl import finite

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
TrainedTarget = Literal["sign", "progress", "soft"]
"""What a PRM of a recipe learns. What a folder's scores are (`psgpo.prm.record.Target`) has one more."""
EVEN = {"sign": 0.0, "soft": 0.5}
"""A line that scores above it is called good."""
NAN = float("nan")
QUINTILES = 5
CALIBRATION_BINS = 10


@dataclass(frozen=True, kw_only=True)
class ScoredResponse:
    """One response: what the PRM said and what is true."""

    problem_id: str
    scores: Array
    """R(x, y^(<=m)). Shape: (L,)."""
    neutral: Sequence[bool]
    """Comment, blank and docstring lines. Shape: (L,)."""
    last_good: int
    """m*: lines 1..m* are good, where there are no `labels`."""
    labels: Sequence[float] | None = None
    """What the truth says of each line, in [-1, 1], where the target is sign: above 0 is good. Shape: (L,)."""
    progress: Sequence[float] | None = None
    """The true share that is done after each line, where the target is progress; of soft, the share of completions that
    passed. Shape: (L,)."""
    error_known: bool = True
    """Whether the truth says where the first bad line is, or that there is none; else the response has no part in
    `first_error` and `processbench`."""


def measure(
    responses: Sequence[ScoredResponse], target: TrainedTarget, *, resamples: int = 0, seed: int = 0
) -> dict[str, Any]:
    """All measures of one PRM against one truth, ready for JSON (see the keys below).

    Args:
        resamples: of problems, behind `intervals`; 0 leaves the intervals null.

    Returns:
        `responses`, `problems`: counts.
        `lines`: `classification` of all lines.
        `by_position`: the same per fifth of the program, line m of T being at m/T, with `from` (excluded) and `to`.
        `first_error`: `responses` with an error; shares `exact` and `within_one` line (neutral ones not counted).
        `processbench`: `accuracy_wrong` (first error exactly found), `accuracy_right` (no error reported), `f1` (their
            harmonic mean), `right` (count). Both of responses with `error_known`.
        `calibration`: see `calibration`; of (R+1)/2 against (label+1)/2, which is line goodness where labels are hard,
            or of R against the true share.
        `intervals`: 95 % percentile bootstrap over problems, [low, high]: `accuracy`, `auroc`, `f1_good`, `f1_bad`,
            `first_error_exact`, `first_error_within_one`, `processbench_f1`; `auroc_by_position` has one per fifth.
        `regression`: `mse`, `correlation` (Pearson) of R with the true share; null for `sign`.
    """
    decisions = [_decide(response, target) for response in responses]
    good_N = _concat([good for good, _, _ in decisions]).astype(bool)
    called_N = _concat([called for _, called, _ in decisions]).astype(bool)
    evidence_N = _concat([evidence for _, _, evidence in decisions])
    fifths = [_fifths(response) for response in responses]
    fifth_N = _concat(fifths).astype(int)
    by_position = [
        {"from": q / QUINTILES, "to": (q + 1) / QUINTILES}
        | classification(good_N[fifth_N == q], called_N[fifth_N == q], evidence_N[fifth_N == q])
        for q in range(QUINTILES)
    ]
    score_N = _concat([_kept(r.scores, r) for r in responses])
    if target == "sign":
        calibrated = calibration((score_N + 1) / 2, _concat([_chances(r) for r in responses]))
        regression = {"mse": NAN, "correlation": NAN}
    else:
        truth_N = _concat([_kept(_progress(r), r) for r in responses])
        calibrated = calibration(score_N, truth_N)
        regression = {"mse": _mean((score_N - truth_N) ** 2), "correlation": correlation(score_N, truth_N)}
    found = {
        "target": target,
        "responses": len(responses),
        "problems": len({response.problem_id for response in responses}),
        "lines": classification(good_N, called_N, evidence_N),
        "by_position": by_position,
        **first_errors(*_known_errors(responses, decisions)),
        "calibration": calibrated,
        "regression": regression,
        "intervals": _intervals(responses, decisions, fifths, resamples, seed),
    }
    return finite(found)  # type: ignore[no-any-return]


def classification(good: Flags, called_good: Flags, evidence: Array) -> dict[str, Any]:
    """Counts and rates of line decisions: true class, called class, the score behind the call. All (N,)."""
    return {
        "lines": len(good),
        "good_share": _mean(good),
        "majority": max(_mean(good), 1 - _mean(good)) if len(good) else NAN,
        "accuracy": _mean(good == called_good),
        "accuracy_good": _mean(called_good[good]),
        "accuracy_bad": _mean(~called_good[~good]),
        "f1_good": f1(good, called_good),
        "f1_bad": f1(~good, ~called_good),
        "auroc": auroc(evidence, good),
    }


def f1(truth: Flags, called: Flags) -> float:
    """2 TP / (2 TP + FP + FN); NaN when the class neither occurs nor is called."""
    hits = 2 * int(np.sum(truth & called))
    total = int(np.sum(truth)) + int(np.sum(called))
    return hits / total if total else NAN


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney); NaN with one class."""
    scores_N, positive_N = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return NAN
    _, place, count = np.unique(scores_N, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # mean rank (from 1) of each distinct score
    rank_sum = float(rank[place.reshape(-1)][positive_N].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def first_errors(good: Sequence[Flags], called: Sequence[Flags]) -> dict[str, dict[str, Any]]:
    """Where the first bad line is and where it was reported, per response; neutral lines already left out."""
    exact, near, silent = [], [], []
    for good_L, called_L in zip(good, called, strict=True):
        true, reported = _first_false(good_L), _first_false(called_L)
        if true is None:
            silent.append(reported is None)
        else:
            exact.append(reported == true)
            near.append(reported is not None and abs(reported - true) <= 1)
    wrong, right = _mean(exact), _mean(silent)
    return {
        "first_error": {"responses": len(exact), "exact": wrong, "within_one": _mean(near)},
        "processbench": {
            "accuracy_wrong": wrong,
            "accuracy_right": right,
            "f1": 2 * wrong * right / (wrong + right) if wrong + right > 0 else 0.0 if exact and silent else NAN,
            "right": len(silent),
        },
    }


def calibration(predicted: ArrayLike, truth: ArrayLike) -> dict[str, Any]:
    """Expected calibration error over ten equal bins of [0, 1]; predictions are clipped into it.

    ECE = sum_b (n_b / N) |mean predicted in b - mean truth in b|. Bins hold `from`, `to`, `lines`, `predicted`, `true`.
    """
    predicted_N = np.clip(np.asarray(predicted, dtype=np.float64), 0, 1)
    truth_N = np.asarray(truth, dtype=np.float64)
    bin_N = np.minimum((predicted_N * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins, error = [], 0.0
    for b in range(CALIBRATION_BINS):
        inside = bin_N == b
        mean_predicted, mean_truth = _mean(predicted_N[inside]), _mean(truth_N[inside])
        edges = {"from": b / CALIBRATION_BINS, "to": (b + 1) / CALIBRATION_BINS}
        bins.append(edges | {"lines": int(inside.sum()), "predicted": mean_predicted, "true": mean_truth})
        if inside.any():
            error += float(inside.mean()) * abs(mean_predicted - mean_truth)
    return {"ece": error if len(truth_N) else NAN, "bins": bins}


def correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's r; NaN when one of them does not vary."""
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x_N) < 2 or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return NAN
    return float(np.corrcoef(x_N, y_N)[0, 1])


def lines_left(scores: ArrayLike) -> Array:
    """T max(0, R_1, ..., R_T) + 0.5 - m per line, R at most 1: how many good lines are still to come. Shape: (L,).

    >>> lines_left([0.25, 0.5, 0.45, 0.5]).tolist()
    [1.5, 0.5, -0.5, -1.5]
    """
    scores_L = np.clip(np.asarray(scores, dtype=np.float64), 0, 1)
    left: Array = len(scores_L) * np.max(scores_L, initial=0.0) + 0.5 - np.arange(1, len(scores_L) + 1)
    return left


def _fifths(response: ScoredResponse) -> NDArray[np.int_]:
    """Per line that is not neutral, the fifth of the program it ends in, from 0."""
    position = _kept(np.arange(1, len(response.scores) + 1) / max(1, len(response.scores)), response)
    fifths: NDArray[np.int_] = np.clip(np.ceil(position * QUINTILES - 1e-9).astype(int) - 1, 0, QUINTILES - 1)
    return fifths


def _intervals(
    responses: Sequence[ScoredResponse],
    decisions: Sequence[tuple[Flags, Flags, Array]],
    fifths: Sequence[NDArray[np.int_]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Whole problems are drawn: lines of one response, and responses to one problem, are not independent."""
    members: dict[str, list[int]] = {}
    for i, response in enumerate(responses):
        members.setdefault(response.problem_id, []).append(i)
    groups = list(members.values())
    rng = np.random.default_rng(seed)
    names = ("accuracy", "auroc", "f1_good", "f1_bad", "first_error_exact", "first_error_within_one", "processbench_f1")
    drawn: dict[str, list[float]] = {name: [] for name in names}
    along: list[list[float]] = [[] for _ in range(QUINTILES)]
    for _ in range(resamples if groups else 0):
        indices = [i for g in rng.integers(len(groups), size=len(groups)) for i in groups[g]]
        chosen = [decisions[i] for i in indices]
        good, called = [good for good, _, _ in chosen], [called for _, called, _ in chosen]
        good_N, called_N = _concat(good).astype(bool), _concat(called).astype(bool)
        drawn["accuracy"].append(_mean(good_N == called_N))
        evidence_N, fifth_N = _concat([evidence for _, _, evidence in chosen]), _concat([fifths[i] for i in indices])
        drawn["auroc"].append(auroc(evidence_N, good_N))
        for fifth, values in enumerate(along):
            values.append(auroc(evidence_N[fifth_N == fifth], good_N[fifth_N == fifth]))
        drawn["f1_good"].append(f1(good_N, called_N))
        drawn["f1_bad"].append(f1(~good_N, ~called_N))
        errors = first_errors(*_known_errors([responses[i] for i in indices], chosen))
        drawn["first_error_exact"].append(errors["first_error"]["exact"])
        drawn["first_error_within_one"].append(errors["first_error"]["within_one"])
        drawn["processbench_f1"].append(errors["processbench"]["f1"])
    intervals: dict[str, Any] = {name: _percentiles(values) for name, values in drawn.items()}
    return intervals | {"auroc_by_position": [_percentiles(values) for values in along]}


def _known_errors(
    responses: Sequence[ScoredResponse], decisions: Sequence[tuple[Flags, Flags, Array]]
) -> tuple[list[Flags], list[Flags]]:
    """(good, called good) of the responses whose first bad line is known."""
    known = [of_one for response, of_one in zip(responses, decisions, strict=True) if response.error_known]
    return [good for good, _, _ in known], [called for _, called, _ in known]


def _percentiles(values: Sequence[float]) -> list[float]:
    """2.5 and 97.5 percentiles of the resamples in which the number is defined; NaN when there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return [float(q) for q in np.percentile(defined, [2.5, 97.5])] if defined else [NAN, NAN]


def _decide(response: ScoredResponse, target: TrainedTarget) -> tuple[Flags, Flags, Array]:
    """Per line that is not neutral: is it good, is it called good, and the score behind the call."""
    good = _good(response)
    if target in EVEN:
        evidence = np.asarray(response.scores, dtype=np.float64)
        called = evidence > EVEN[target]
    else:
        evidence = lines_left(response.scores)
        called = evidence >= 0
    return _kept(good, response), _kept(called, response), _kept(evidence, response)


def _good(response: ScoredResponse) -> Flags:
    if response.labels is not None:
        return np.asarray(response.labels, dtype=np.float64) > 0
    good: Flags = np.arange(1, len(response.scores) + 1) <= response.last_good
    return good


def _chances(response: ScoredResponse) -> Any:
    """Per line that is not neutral, the chance of being good that its label stands for."""
    if response.labels is None:
        return _kept(_good(response), response)
    return _kept((np.asarray(response.labels, dtype=np.float64) + 1) / 2, response)


def _kept(values: Any, response: ScoredResponse) -> Any:
    return np.asarray(values)[~np.asarray(response.neutral, dtype=np.bool_)]


def _progress(response: ScoredResponse) -> Array:
    assert response.progress is not None, "a PRM of shares is measured against the true shares"
    return np.asarray(response.progress, dtype=np.float64)


def _first_false(flags: Flags) -> int | None:
    where = np.flatnonzero(~flags)
    return int(where[0]) if len(where) else None


def _concat(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if parts else np.zeros(0)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else NAN
