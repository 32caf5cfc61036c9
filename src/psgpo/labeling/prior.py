"""Where a failed program first goes wrong, guessed from the policy's surprise.

    P(first wrong line = l) = softmax_l(theta . f_l)

f_l: log of the line's summed and of its largest surprise (nats), whether it is the first or the last line. theta is
fitted on failed programs whose first wrong line is known, by maximum likelihood with a small ridge. Neutral lines are
left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RIDGE = 0.05
STEPS = 400
RATE = 0.2
FLOOR = 0.01
"""Nats; keeps the logarithm of a certain line finite."""

Features = np.ndarray
"""(L, F) float64."""


def line_features(surprise: Sequence[Sequence[float]]) -> Features:
    """Features of the lines of one program.

    Args:
        surprise: per line, the surprise -log p of each of its tokens. At least one line.
    """
    sums = np.array([sum(line) for line in surprise])
    largest = np.array([max(line, default=0.0) for line in surprise])
    edges = np.zeros((len(surprise), 2))
    edges[0, 0] = edges[-1, 1] = 1.0
    return np.column_stack([np.log(sums + FLOOR), np.log(largest + FLOOR), edges])


def fit_prior(programs: Sequence[Features], wrong: Sequence[int]) -> np.ndarray:
    """theta, shape (F,). `wrong[i]` is the index of the first wrong line of program i; zeros where nothing is known."""
    count = programs[0].shape[1] if programs else 4
    theta = np.zeros(count)
    for _ in range(STEPS if programs else 0):
        gradient = -RIDGE * theta
        for features, line in zip(programs, wrong, strict=True):
            gradient = gradient + (features[line] - posterior(features, theta) @ features) / len(programs)
        theta = theta + RATE * gradient
    return theta


def posterior(features: Features, theta: np.ndarray) -> np.ndarray:
    """P(first wrong line = l), shape (L,)."""
    scores = features @ theta
    weights = np.exp(scores - scores.max())
    chances: np.ndarray = weights / weights.sum()
    return chances


def sure_labels(chances: np.ndarray, sure: float) -> list[float]:
    """Per line +1 where P(first wrong > l) >= sure, -1 where P(first wrong <= l) >= sure, else 0."""
    below = np.cumsum(chances)
    return [1.0 if 1 - share >= sure else -1.0 if share >= sure else 0.0 for share in below]
