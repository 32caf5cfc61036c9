"""Boosted trees for two classes: histograms, log loss, trees grown level by level.

A tree of depth D splits every node of a level: feature and bin of the largest gain G_l²/(H_l + λ) + G_r²/(H_r + λ) −
G²/(H + λ), with G and H the sums of first and second derivatives of the loss; a leaf adds −rate · G/(H + λ).
"""

# N examples, F features, K nodes of a level

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from psgpo.prm.calibrate import sigmoid

Array = NDArray[np.float64]
Bins = NDArray[np.int64]
_BINS, _LAMBDA, _LEAST = 48, 5.0, 2.0
"""Bins of a feature, λ, and the least second derivative on either side of a split."""
_ROWS, _FEATURES = 0.7, 0.6
"""Shares that one tree sees."""


@dataclass
class Tree:
    """Per level, the feature and the last bin on the left of each node; the leaves' values."""

    features: list[NDArray[np.int64]] = field(default_factory=list)
    bins: list[NDArray[np.int64]] = field(default_factory=list)
    leaves: Array = field(default_factory=lambda: np.zeros(0))

    def nodes(self, bins_NF: Bins) -> NDArray[np.int64]:
        node_N = np.zeros(len(bins_NF), dtype=np.int64)
        rows = np.arange(len(bins_NF))
        for feature_K, bin_K in zip(self.features, self.bins, strict=True):
            node_N = 2 * node_N + (bins_NF[rows, feature_K[node_N]] > bin_K[node_N])
        return node_N


class BoostedTrees:
    """Fit once, then `scores`: log odds of the second class."""

    def __init__(self, *, trees: int = 250, depth: int = 4, rate: float = 0.06, seed: int = 0) -> None:
        self._count, self._depth, self._rate = trees, depth, rate
        self._rng = np.random.default_rng(seed)
        self._trees: list[Tree] = []

    def fit(self, x_NF: Array, truth_N: NDArray[np.bool_], weight_N: Array) -> BoostedTrees:
        quantiles = np.linspace(0, 1, _BINS + 1)[1:-1]
        self._cuts = [np.unique(np.quantile(column, quantiles)) for column in x_NF.T]
        share = float(np.average(truth_N, weights=weight_N))
        self._base = float(np.log(share / (1 - share)))
        bins_NF, score_N = self._binned(x_NF), np.full(len(x_NF), self._base)
        for _ in range(self._count):
            chance_N = sigmoid(score_N)
            tree = self._grow(bins_NF, weight_N * (chance_N - truth_N), weight_N * chance_N * (1 - chance_N))
            score_N += tree.leaves[tree.nodes(bins_NF)]
            self._trees.append(tree)
        return self

    def scores(self, x_NF: Array) -> Array:
        bins_NF = self._binned(x_NF)
        score_N = np.full(len(x_NF), self._base)
        for tree in self._trees:
            score_N += tree.leaves[tree.nodes(bins_NF)]
        return score_N

    def _binned(self, x_NF: Array) -> Bins:
        found = [np.searchsorted(cuts, column, side="right") for cuts, column in zip(self._cuts, x_NF.T, strict=True)]
        return np.stack(found, axis=1)

    def _grow(self, bins_NF: Bins, first_N: Array, second_N: Array) -> Tree:
        rows = np.flatnonzero(self._rng.random(len(bins_NF)) < _ROWS)
        columns = np.flatnonzero(self._rng.random(bins_NF.shape[1]) < _FEATURES)
        bins, first, second = bins_NF[rows], first_N[rows], second_N[rows]
        tree = Tree()
        for level in range(self._depth):
            feature_K, bin_K = _best_splits(bins, first, second, tree.nodes(bins), 2**level, columns)
            tree.features.append(feature_K)
            tree.bins.append(bin_K)
        node, K = tree.nodes(bins), 2**self._depth
        G_K, H_K = np.bincount(node, first, K), np.bincount(node, second, K)
        tree.leaves = -self._rate * G_K / (H_K + _LAMBDA)
        return tree


def _best_splits(
    bins: Bins, first: Array, second: Array, node: NDArray[np.int64], K: int, columns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(feature, last bin on the left) of each node; a node without a gain keeps everything on the left."""
    G_K1, H_K1 = np.bincount(node, first, K)[:, None], np.bincount(node, second, K)[:, None]
    best_K, feature_K, bin_K = np.full(K, 1e-6), np.zeros(K, dtype=np.int64), np.full(K, _BINS)
    for column in columns:
        place = node * _BINS + bins[:, column]
        G_KB = np.bincount(place, first, K * _BINS).reshape(K, _BINS).cumsum(axis=1)
        H_KB = np.bincount(place, second, K * _BINS).reshape(K, _BINS).cumsum(axis=1)
        gain_KB = G_KB**2 / (H_KB + _LAMBDA) + (G_K1 - G_KB) ** 2 / (H_K1 - H_KB + _LAMBDA)
        gain_KB -= G_K1**2 / (H_K1 + _LAMBDA)
        gain_KB[(H_KB < _LEAST) | (H_K1 - H_KB < _LEAST)] = 0.0
        at_K = gain_KB.argmax(axis=1)
        gain_K = gain_KB[np.arange(K), at_K]
        better_K = gain_K > best_K
        best_K[better_K], feature_K[better_K], bin_K[better_K] = gain_K[better_K], column, at_K[better_K]
    return feature_K, bin_K
