"""Noisy binary search: one completion at a time, placed where the posterior of m* is most open.

m* in 0..T with prior P0, p in a few values with equal chance. A completion of the first m lines passes with
probability p where m <= m*, never beyond. So

    pass at m   P(m* = k, p) *= p for k >= m, 0 for k < m      proof
    fail at m   P(m* = k, p) *= 1 - p for k >= m               evidence only: a good prefix often fails

The next m is the one whose answer is expected to leave the least entropy of m*. Lines are labelled +1 where
P(m* >= line) is at least `sure`, -1 where P(m* < line) is, else 0: what a fixed K calls -1 after K failures stays open
here where failures are what a weak policy gives anyway.

What differs from noisy binary search in the literature: only failures lie, how often they do is learned on the way,
and the search stops by its labels.
"""

# P values of p, K = T + 1 values of m*, M = T lines to ask about

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from psgpo.labeling.search import Answer, Finding, Question, Search

SURE = 0.85
PASSING = (0.1, 0.3, 0.6)
"""Chances that a completion of a good prefix passes."""

NoisySearch = Generator[Question, Answer, np.ndarray]
"""Asks for one more completion of a line at a time; returns P(m* = k), shape (T + 1,)."""


def hard_steps(prior: np.ndarray, draws: int) -> Search:
    """Labels -1 and +1, and 0 where the posterior is unsure."""
    belief = yield from noisy_search(prior, passing=PASSING, draws=draws, sure=SURE)
    labels = labels_of(belief, SURE)
    return Finding(_last(labels), tuple(labels))


def soft_posterior_steps(prior: np.ndarray, draws: int) -> Search:
    """Labels 2 P(m* >= line) - 1; m* as with hard labels."""
    belief = yield from noisy_search(prior, passing=PASSING, draws=draws, sure=SURE)
    return Finding(_last(labels_of(belief, SURE)), tuple(soft_labels(belief)))


def noisy_search(prior: np.ndarray, *, passing: Sequence[float], draws: int, sure: float = SURE) -> NoisySearch:
    """Search with at most `draws` completions; what is known without drawing costs none.

    Args:
        prior: P0(m* = k), shape (T + 1,).
        passing: values of p, in (0, 1).
        draws: most completions.
        sure: the search ends when every line can be labelled.
    """
    p_P1 = np.array(passing)[:, None]
    belief_PK = np.tile(prior / prior.sum() / len(passing), (len(passing), 1))
    lines = len(prior) - 1
    failures = [0] * (lines + 1)
    known = 0
    while lines:
        while known < lines and (answer := (yield Question(known + 1, 0))).certain:
            known += 1
            belief_PK = _sure(belief_PK, known, answer.solvable)
        if draws == 0 or all(labels_of(belief_PK.sum(0), sure)):
            break
        line = 1 + int(np.argmin(_entropies_after(belief_PK, p_P1)))
        answer = yield Question(line, failures[line] + 1)
        if answer.certain:
            belief_PK = _sure(belief_PK, line, answer.solvable)
            continue
        belief_PK = _after(belief_PK, line, p_P1, passed=answer.solvable)
        failures[line] += 1
        draws -= 1
        known = max(known, line) if answer.solvable else known
    belief_K: np.ndarray = belief_PK.sum(0)
    return belief_K


def uniform_prior(lines: int) -> np.ndarray:
    """The same chance for every m* in 0..T - 1, and little for T: the program as it is fails."""
    prior = np.ones(lines + 1)
    prior[-1] = 0.1
    normal: np.ndarray = prior / prior.sum()
    return normal


def line_prior(surprise: Sequence[float]) -> np.ndarray:
    """P0(m* = k) in proportion to the summed surprise of line k + 1: what the policy found odd is likelier wrong."""
    prior = np.array([*(value + 0.1 for value in surprise), 0.1])
    normal: np.ndarray = prior / prior.sum()
    return normal


def labels_of(belief: np.ndarray, sure: float) -> list[float]:
    """Label of every line 1..T."""
    good = 1 - np.cumsum(belief)[:-1]
    return [1.0 if chance >= sure else -1.0 if 1 - chance >= sure else 0.0 for chance in good]


def soft_labels(belief: np.ndarray) -> list[float]:
    """2 P(m* >= line) - 1 of every line 1..T."""
    return [float(value) for value in np.clip(2 * (1 - np.cumsum(belief)[:-1]) - 1, -1, 1)]


def _last(labels: Sequence[float]) -> int:
    return sum(label > 0 for label in labels)


def _after(belief_PK: np.ndarray, line: int, p_P1: np.ndarray, *, passed: bool) -> np.ndarray:
    good_K = np.arange(belief_PK.shape[1]) >= line
    chance_PK = np.where(good_K, p_P1, 0.0)
    return _normal(belief_PK * (chance_PK if passed else 1 - chance_PK), good_K)


def _sure(belief_PK: np.ndarray, line: int, solvable: bool) -> np.ndarray:
    kept_K = (np.arange(belief_PK.shape[1]) >= line) == solvable
    return _normal(belief_PK * kept_K, kept_K)


def _normal(belief_PK: np.ndarray, possible_K: np.ndarray) -> np.ndarray:
    """Sums to 1. Where the belief had ruled out what was seen, what is possible has equal chances."""
    total = float(belief_PK.sum())
    even: np.ndarray = np.broadcast_to(possible_K / possible_K.sum() / len(belief_PK), belief_PK.shape)
    return belief_PK / total if total > 0 else even


def _entropies_after(belief_PK: np.ndarray, p_P1: np.ndarray) -> np.ndarray:
    """Expected entropy of m* after one completion of each line; infinite for lines that are settled."""
    size = belief_PK.shape[1]
    belief_K = belief_PK.sum(0)
    good_MK = np.arange(size) >= np.arange(1, size)[:, None]
    passed_MK = good_MK * (belief_PK * p_P1).sum(0)
    expected_M = _entropy(passed_MK) + _entropy(belief_K - passed_MK)
    settled_M = ((good_MK * belief_K).sum(1) == 0) | ((~good_MK * belief_K).sum(1) == 0)
    found: np.ndarray = np.where(settled_M, np.inf, expected_M)
    return found


def _entropy(weights_MK: np.ndarray) -> np.ndarray:
    """Entropy of each row as a distribution, times the row's weight."""
    total_M = weights_MK.sum(1)
    some_MK = np.where(weights_MK > 0, weights_MK, 1.0)
    found: np.ndarray = total_M * np.log(np.where(total_M > 0, total_M, 1.0)) - (weights_MK * np.log(some_MK)).sum(1)
    return found
