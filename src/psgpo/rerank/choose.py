"""Best of n and majority of n, exactly: expectations over every subset of n of the N responses that were drawn.

Nothing is simulated. With C(a, b) the number of ways to choose b of a, the chance that a random subset of n holds none
of a given responses is C(N - a, n) / C(N, n), the product behind unbiased pass@k (Chen et al., arXiv 2107.03374,
equation 1). The best of n has the score of a block of t tied responses with a better ones when the subset holds none of
the a and one of the t at least:

    P(block) = [C(N - a, n) - C(N - a - t, n)] / C(N, n)

A tie is broken at random, so a block is worth the mean of its values. Pure NumPy.
"""

# N responses of a problem, V of them with a vote, Q quadrature nodes

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@lru_cache(maxsize=64)
def absent(N: int) -> Array:
    """P(a random subset of n of N holds none of a given ones) at [a, n]; n = 0 holds none. Shape: (N + 1, N + 1).

    >>> absent(2).tolist()
    [[1.0, 1.0, 1.0], [1.0, 0.5, 0.0], [1.0, 0.0, 0.0]]
    """
    a, i = np.arange(N + 1)[:, None], np.arange(N)[None, :]
    factors = np.maximum(N - a - i, 0) / (N - i)
    table = np.concatenate([np.ones((N + 1, 1)), np.cumprod(factors, axis=1)], axis=1)
    table.setflags(write=False)
    return table


def best_of_n(scores: ArrayLike, values: ArrayLike) -> Array:
    """Expected value of the response with the highest score among n drawn, for n = 1..N. Shape: (N,).

    Args:
        scores: higher is better; NaN (nothing to score) is below all others. Shape: (N,).
        values: what a choice is worth, such as 1 for a pass. Shape: (N,).
    """
    scores_N = np.asarray(scores, dtype=np.float64)
    scores_N = np.where(np.isnan(scores_N), -np.inf, scores_N)
    values_N = np.asarray(values, dtype=np.float64)
    table, above = absent(len(scores_N)), 0
    expected_N = np.zeros(len(scores_N))
    for score in np.unique(scores_N)[::-1]:
        tied_N = scores_N == score
        t = int(tied_N.sum())
        expected_N += (table[above, 1:] - table[above + t, 1:]) * values_N[tied_N].mean()
        above += t
    return expected_N


def majority_of_n(votes: Sequence[int | None], values: ArrayLike) -> Array:
    """Expected value of a random response of the largest cluster among n drawn, for n = 1..N. Shape: (N,).

    Clusters of one size are as likely as each other. Responses without a vote are chosen only where nobody votes.

    Args:
        votes: the cluster of every response; None for no vote.
        values: as in `best_of_n`.
    """
    values_N = np.asarray(values, dtype=np.float64)
    N = len(values_N)
    silent = [i for i, vote in enumerate(votes) if vote is None]
    clusters = [[i for i, other in enumerate(votes) if other == vote] for vote in set(votes) - {None}]
    V = N - len(silent)
    chosen_V = np.zeros(V + 1)  # expected value of a choice among i voters
    if silent:
        chosen_V[0] = values_N[silent].mean()
    if V:
        worth = {size: [float(values_N[c].mean()) for c in clusters if len(c) == size] for size in map(len, clusters)}
        chosen_V[1:] = _largest_cluster(worth)[1:]
    voters, others, all_of_them = _choices(V), _choices(N - V), _choices(N)
    expected_N = np.zeros(N)
    for n in range(1, N + 1):
        i = np.arange(max(0, n - (N - V)), min(n, V) + 1)
        weights = voters[i] * others[n - i] / all_of_them[n]  # hypergeometric
        expected_N[n - 1] = float(weights @ chosen_V[i])
    return expected_N


def _largest_cluster(worth: dict[int, list[float]]) -> Array:
    """Expected value of the largest cluster of a random subset of i of V voters, at [i]. Shape: (V + 1,).

    Cluster j of size c_j wins with m members when no other has more and e others have as many, then with weight
    1 / (1 + e), which is the integral of u^e over [0, 1]. The number of such subsets is the coefficient of z^(i - m) in

        integral of C(c_j, m) * prod over k != j of [sum over l < m of C(c_k, l) z^l + u C(c_k, m) z^m]  du

    a polynomial in u, which Gauss-Legendre quadrature integrates exactly.

    Args:
        worth: size of a cluster to the mean values of the clusters of that size.
    """
    V = sum(size * len(values) for size, values in worth.items())
    count = sum(map(len, worth.values()))
    nodes, weights = np.polynomial.legendre.leggauss(count // 2 + 1)
    u_Q, weight_Q = (nodes + 1) / 2, weights / 2
    total_V = np.zeros(V + 1)
    for m in range(1, max(worth) + 1):
        factors = {size: _capped(size, m, u_Q) for size in worth}
        for size in (size for size in worth if size >= m):
            product = np.zeros((len(u_Q), V + 1))
            product[:, 0] = 1.0
            for other, values in worth.items():
                for _ in range(len(values) - (other == size)):
                    product = _times(product, factors[other])
            total_V[m:] += sum(worth[size]) * _choices(size)[m] * (weight_Q @ product)[: V + 1 - m]
    return total_V / _choices(V)


def _capped(size: int, m: int, u_Q: Array) -> Array:
    """Ways to draw l of `size`, l <= m, those with l = m times u. Shape: (Q, at most m + 1)."""
    row = np.tile(_choices(size)[: m + 1], (len(u_Q), 1))
    if size >= m:
        row[:, m] *= u_Q
    return row


def _times(left_QV: Array, right: Array) -> Array:
    """Product of polynomials in z, one per node; what lies above the degree of `left` cannot occur."""
    product = np.zeros_like(left_QV)
    width = left_QV.shape[1]
    for power in range(right.shape[1]):
        product[:, power:] += right[:, power : power + 1] * left_QV[:, : width - power]
    return product


@lru_cache(maxsize=1024)
def _choices(count: int) -> Array:
    """C(count, i) / 2^count at [i]: scaled, so that hundreds of responses do not overflow. Shape: (count + 1,)."""
    found = np.ones(1)
    for _ in range(count):
        found = (np.append(found, 0.0) + np.append(0.0, found)) / 2
    found.setflags(write=False)
    return found


def vote_clusters(outputs: Sequence[tuple[str | None, ...]]) -> list[int | None]:
    """Which responses gave the same outputs: a number per response; None where every call failed.

    Args:
        outputs: per response, a digest of what each call returned; None for a call that failed.

    >>> vote_clusters([("a", "b"), ("a", None), ("a", "b"), (None, None)])
    [0, 1, 0, None]
    """
    numbers: dict[tuple[str | None, ...], int] = {}
    return [None if all(output is None for output in row) else numbers.setdefault(row, len(numbers)) for row in outputs]
