"""Noisy binary search: one completion at a time, placed where the posterior of m* is most open.

m* in 0..T with prior P0. A completion of the first m lines passes with probability p where m <= m*, never beyond. So

    pass at m   P(m* = k) = 0 for k < m                 proof
    fail at m   P(m* = k) *= 1 - p for k >= m           evidence only: a good prefix often fails

The next m is the one whose answer is expected to leave the least entropy. Lines are labelled +1 where P(m* >= line) is
at least `sure`, -1 where P(m* < line) is, else 0: what a fixed K calls -1 after K failures stays open here.

What differs from noisy binary search in the literature: only failures lie, and the search stops by its labels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

NoisySearch = Generator[int, bool, np.ndarray]
"""Yields a line to complete once, is sent whether the completion passed, returns P(m* = k), shape (T + 1,)."""


def noisy_search(prior: np.ndarray, *, passing: float, draws: int, sure: float = 0.85) -> NoisySearch:
    """Search with at most `draws` completions.

    Args:
        prior: P0(m* = k), shape (T + 1,).
        passing: p, in (0, 1).
        draws: most completions.
        sure: the search ends when every line can be labelled.
    """
    belief: np.ndarray = prior / prior.sum()
    lines = len(belief) - 1
    for _ in range(draws):
        if lines == 0 or all(labels_of(belief, sure)):
            break
        line = 1 + int(np.argmin([_entropy_after(belief, m, passing) for m in range(1, lines + 1)]))
        belief = _after(belief, line, passed=(yield line), passing=passing)
    return belief


def uniform_prior(lines: int) -> np.ndarray:
    """The same chance for every m* in 0..T - 1, and little for T: the program as it is fails."""
    prior = np.ones(lines + 1)
    prior[-1] = 0.1
    normal: np.ndarray = prior / prior.sum()
    return normal


def labels_of(belief: np.ndarray, sure: float) -> list[float]:
    """Label of every line 1..T."""
    good = 1 - np.cumsum(belief)[:-1]
    return [1.0 if chance >= sure else -1.0 if 1 - chance >= sure else 0.0 for chance in good]


def soft_labels(belief: np.ndarray) -> list[float]:
    """2 P(m* >= line) - 1 of every line 1..T."""
    return [float(value) for value in 2 * (1 - np.cumsum(belief)[:-1]) - 1]


def _after(belief: np.ndarray, line: int, *, passed: bool, passing: float) -> np.ndarray:
    good = np.arange(len(belief)) >= line
    chance = np.where(good, passing, 0.0)
    updated = belief * (chance if passed else 1 - chance)
    total = float(updated.sum())
    # A pass that the belief ruled out is still a proof.
    return updated / total if total > 0 else good / good.sum()


def _entropy_after(belief: np.ndarray, line: int, passing: float) -> float:
    passes = passing * float(belief[line:].sum())
    failed = _entropy(_after(belief, line, passed=False, passing=passing))
    succeeded = _entropy(_after(belief, line, passed=True, passing=passing)) if passes > 0 else 0.0
    return passes * succeeded + (1 - passes) * failed


def _entropy(belief: np.ndarray) -> float:
    some = belief[belief > 0]
    return float(-(some * np.log(some)).sum())


def soft_success(passed: Sequence[int], drawn: Sequence[int]) -> list[float]:
    """Math-Shepherd's soft labels: 2 (share of a line's completions that pass) - 1; NaN where none was drawn."""
    return [2 * wins / count - 1 if count else float("nan") for wins, count in zip(passed, drawn, strict=True)]
