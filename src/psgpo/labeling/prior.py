"""Where a failed program first goes wrong, guessed from the policy's surprise.

    P(first wrong line = l) ∝ h_l prod_(i<l) (1 - h_i),    h_l = sigmoid(theta . f_l)

h_l is the chance that line l is wrong after right ones: what comes after the first mistake, further mistakes
included, does not blur it (a softmax over all lines does). f_l: 1, log of the line's summed and of its largest surprise
(nats), whether it is the first or the last line, its relative position. theta is the maximum a posteriori under a
wide normal distribution around "every line as likely", on failed programs whose first wrong line is known. Neutral
lines are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PRECISION = 0.1
"""Of the normal distribution around `START`."""
START = np.array([-5.0, 0.0, 0.0, 0.0, 0.0, 0.0])
STEPS = 30
FLOOR = 0.01
"""Nats; keeps the logarithm of a certain line finite."""
FOLDS = 5
SURE = (0.75, 0.8, 0.85, 0.9, 0.95)
"""Chances from which a line may be labelled."""

Features = np.ndarray
"""(L, F) float64."""


def line_features(surprise: Sequence[Sequence[float]]) -> Features:
    """Features of the lines of one program.

    Args:
        surprise: per line, the surprise -log p of each of its tokens. At least one line.
    """
    L = len(surprise)
    sums = np.array([sum(line) for line in surprise])
    largest = np.array([max(line, default=0.0) for line in surprise])
    edges = np.zeros((L, 2))
    edges[0, 0] = edges[-1, 1] = 1.0
    return np.column_stack([np.ones(L), np.log(sums + FLOOR), np.log(largest + FLOOR), edges, np.arange(L) / L])


def fit_prior(programs: Sequence[Features], wrong: Sequence[int]) -> np.ndarray:
    """theta, shape (F,), by Newton's method. `wrong[i]` is the index of the first wrong line of program i."""
    theta = START.copy()
    if not programs:
        return theta
    # A line before the first wrong one says "right", the first wrong one "wrong", lines after it nothing.
    lines = np.concatenate([features[: last + 1] for features, last in zip(programs, wrong, strict=True)])
    answers = np.concatenate([np.arange(last + 1) == last for last in wrong])
    for _ in range(STEPS):
        chances = _hazard(lines, theta)
        slope = lines.T @ (answers - chances) - PRECISION * (theta - START)
        curvature = (lines * (chances * (1 - chances))[:, None]).T @ lines + PRECISION * np.eye(len(theta))
        step = np.linalg.solve(curvature, slope)
        theta = theta + step * min(1.0, 2.0 / max(1e-9, float(np.abs(step).max())))  # far steps overshoot
    return theta


def posterior(features: Features, theta: np.ndarray) -> np.ndarray:
    """P(first wrong line = l), shape (L,)."""
    hazard = _hazard(features, theta)
    weights = hazard * np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]])
    chances: np.ndarray = weights / weights.sum()
    return chances


def choose_sure(programs: Sequence[Features], wrong: Sequence[int], groups: Sequence[str], target: float) -> float:
    """The smallest of `SURE` from which labels are right in the share `target` of lines; the largest if none is.

    Cross-validation: theta is fitted without the groups (problems) of a fold, and labels the programs of that fold.
    """
    names = list(dict.fromkeys(groups))
    fold = {name: number % FOLDS for number, name in enumerate(names)}
    if len(names) < FOLDS:
        return SURE[-1]
    chances: list[np.ndarray] = [np.zeros(0)] * len(programs)
    for number in range(FOLDS):
        inside = [i for i, name in enumerate(groups) if fold[name] == number]
        outside = [i for i, name in enumerate(groups) if fold[name] != number]
        theta = fit_prior([programs[i] for i in outside], [wrong[i] for i in outside])
        for i in inside:
            chances[i] = posterior(programs[i], theta)
    for sure in SURE:
        labels = [sure_labels(chance, sure) for chance in chances]
        right = [
            (label > 0) == (line < last)
            for row, last in zip(labels, wrong, strict=True)
            for line, label in enumerate(row)
            if label
        ]
        if right and sum(right) >= target * len(right):
            return sure
    return SURE[-1]


def sure_labels(chances: np.ndarray, sure: float) -> list[float]:
    """Per line +1 where P(first wrong > l) >= sure, -1 where P(first wrong <= l) >= sure, else 0."""
    below = np.cumsum(chances)
    return [1.0 if 1 - share >= sure else -1.0 if share >= sure else 0.0 for share in below]


def _hazard(features: Features, theta: np.ndarray) -> np.ndarray:
    chances: np.ndarray = 1 / (1 + np.exp(-np.clip(features @ theta, -30, 30)))
    return chances
