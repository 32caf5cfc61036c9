"""From a score to P(good), fitted on problems that are neither trained on nor measured. Pure NumPy.

- temperature: P = σ(s / t), one number t > 0 by least log loss. Keeps the order and the point 0 <-> 1/2.
- isotonic: the non-decreasing step function of least squares (pool adjacent violators), which is that of least log
  loss too; linear between the blocks, constant outside. Keeps the order up to ties; needs some hundred lines.

Not fitted: P = (R + 1) / 2 for `sign`, R for `soft`, σ(s) for `correct` and for `progress` margins.
"""

# N scored lines

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psgpo.errors import UserError
from psgpo.prm.record import Target

Array = NDArray[np.float64]
METHODS = ("temperature", "isotonic")
OUT_OF_REACH = 1e9
"""A score that no model gives."""
LEAST_LINES = 20
"""Fewer say nothing about probabilities."""


def fit_calibration(method: str, scores: ArrayLike, good: ArrayLike) -> dict[str, Any]:
    """The calibration to put into `ScorerRecord`.

    Args:
        scores: of lines. Shape: (N,).
        good: whether each is good. Shape: (N,).

    Raises:
        UserError: an unknown method, too few lines, or lines of one class only.
    """
    scores_N, good_N = np.asarray(scores, dtype=np.float64), np.asarray(good, dtype=np.bool_)
    if method not in METHODS:
        raise UserError(f"calibration {method!r}: allowed are {', '.join(METHODS)}")
    check_lines(good_N)
    if method == "temperature":
        return {"method": method, "temperature": fit_temperature(scores_N, good_N)}
    knots, values = fit_isotonic(scores_N, good_N)
    return {"method": method, "scores": knots.tolist(), "probabilities": values.tolist()}


def check_lines(good: ArrayLike) -> None:
    """Refuse lines that no calibration can be fitted on.

    Raises:
        UserError: too few, or of one class.
    """
    good_N = np.asarray(good, dtype=np.bool_)
    if len(good_N) < LEAST_LINES or good_N.all() or not good_N.any():
        raise UserError(
            f"calibration: {len(good_N)} lines to fit on, {int(good_N.sum())} of them good; it needs at least "
            f"{LEAST_LINES} and both classes. Label more problems, or raise --choosing or use "
            "--calibration none (of a recipe, lower labels.holdout)"
        )


def even_score(calibration: dict[str, Any]) -> float:
    """The score from which on P(good) >= 1/2: where a fitted model parts good from bad.

    0 for a temperature. Where an isotonic fit stays on one side of 1/2, a score that nothing reaches.
    """
    if calibration["method"] == "temperature":
        return 0.0
    knots, values = np.array(calibration["scores"]), np.array(calibration["probabilities"])
    if values[0] >= 0.5 or values[-1] < 0.5:
        return -OUT_OF_REACH if values[0] >= 0.5 else OUT_OF_REACH
    k = int(np.argmax(values >= 0.5))
    step = (0.5 - values[k - 1]) / (values[k] - values[k - 1])
    return float(knots[k - 1] + step * (knots[k] - knots[k - 1]))


def probabilities(scores: ArrayLike, calibration: dict[str, Any] | None, target: Target) -> Array:
    """P(good) of scores; without a calibration the target's own reading (see this module). Shape: (N,)."""
    scores_N = np.asarray(scores, dtype=np.float64)
    if calibration is None:
        if target in ("sign", "soft"):
            return np.clip((scores_N + 1) / 2 if target == "sign" else scores_N, 0.0, 1.0)
        return sigmoid(scores_N)
    if calibration["method"] == "temperature":
        return sigmoid(scores_N / calibration["temperature"])
    return np.interp(scores_N, calibration["scores"], calibration["probabilities"])


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def fit_temperature(scores: Array, good: NDArray[np.bool_]) -> float:
    """argmin over t in [0.001, 1000] of the log loss of σ(s / t), by golden section on log t (the loss is unimodal)."""
    signed_N = np.where(good, scores, -scores)

    def loss(log_t: float) -> float:
        return float(np.mean(np.logaddexp(0.0, -signed_N / math.exp(log_t))))

    low, high = math.log(1e-3), math.log(1e3)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(80):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def fit_isotonic(scores: Array, good: NDArray[np.bool_]) -> tuple[Array, Array]:
    """(scores, share of good lines there): the first and the last score of each block, increasing.

    >>> fit_isotonic(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True]))
    (array([0.1, 0.2, 0.3, 0.4]), array([0. , 0.5, 0.5, 1. ]))
    """
    values, place = np.unique(scores, return_inverse=True)
    counts = np.bincount(place.reshape(-1)).astype(np.float64)
    hits = np.bincount(place.reshape(-1), weights=good.astype(np.float64))
    blocks: list[tuple[float, float, float, float]] = []  # count, hits, first and last score
    for value, count, hit in zip(values.tolist(), counts.tolist(), hits.tolist(), strict=True):
        blocks.append((count, hit, value, value))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][0] >= blocks[-1][1] * blocks[-2][0]:
            after, before = blocks.pop(), blocks.pop()
            blocks.append((before[0] + after[0], before[1] + after[1], before[2], after[3]))
    knots = {score: hit / count for count, hit, first, last in blocks for score in (first, last)}
    return np.array([*knots]), np.array([*knots.values()])
