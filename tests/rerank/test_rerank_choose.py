"""Exact expectations against enumeration of every subset."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psgpo.evaluation import pass_at_k
from psgpo.rerank.choose import best_of_n, majority_of_n, vote_clusters

responses = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.5, float("nan")]), st.sampled_from([0, 1, 2, None]), st.booleans()),
    min_size=1,
    max_size=7,
)


def enumerated(rows, choose):
    """Mean over all subsets of n of the mean value of what `choose` may take."""
    found = []
    for n in range(1, len(rows) + 1):
        worth = [np.mean([value for *_, value in choose(subset)]) for subset in combinations(rows, n)]
        found.append(np.mean(worth))
    return found


def best(subset):
    scores = [-np.inf if np.isnan(score) else score for score, *_ in subset]
    return [row for row, score in zip(subset, scores, strict=True) if score == max(scores)]


@settings(max_examples=150)
@given(responses)
def test_best_of_n_is_the_mean_over_all_subsets(rows):
    scores, _, values = zip(*rows, strict=True)
    assert best_of_n(scores, values) == pytest.approx(enumerated(rows, best))


@settings(max_examples=150)
@given(responses)
def test_majority_is_the_mean_over_all_subsets_and_tied_clusters(rows):
    def mean_of_largest(subset):
        sizes = Counter(vote for _, vote, _ in subset if vote is not None)
        if not sizes:
            return subset
        largest = [vote for vote, size in sizes.items() if size == max(sizes.values())]
        # A random one of the tied clusters, a random member of it; of the problem's own members of that cluster in
        # this subset, whose mean over subsets is the cluster's.
        return [(None, None, np.mean([value for _, other, value in subset if other == vote])) for vote in largest]

    _, votes, values = zip(*rows, strict=True)
    assert majority_of_n(votes, values) == pytest.approx(enumerated(rows, mean_of_largest))


def test_by_hand():
    # Scores 3 > 2 > 1, only the middle one passes: of one 1/3; of two it is the best of {2, 1} alone; of three never.
    assert best_of_n([3, 2, 1], [0, 1, 0]) == pytest.approx([1 / 3, 1 / 3, 0])
    # Two equal outputs outvote the third response only when both are there; among two different ones a coin decides.
    assert majority_of_n([0, 0, 1], [1, 1, 0]) == pytest.approx([2 / 3, 2 / 3, 1])


@pytest.mark.parametrize("passed", [[1, 0, 0, 1, 0], [0, 0, 0], [1, 1]])
def test_reductions(passed):
    n = len(passed)
    oracle = [pass_at_k(n, sum(passed), k) for k in range(1, n + 1)]
    assert best_of_n(passed, passed) == pytest.approx(oracle)
    mean = [np.mean(passed)] * n
    assert best_of_n([7.0] * n, passed) == pytest.approx(mean)  # ties are a random choice
    assert majority_of_n(range(n), passed) == pytest.approx(mean)  # so are outputs that all differ
    assert majority_of_n([None] * n, passed) == pytest.approx(mean)


def test_hundreds_of_responses_stay_finite_and_exact():
    rng = np.random.default_rng(0)
    votes, passed = rng.integers(0, 5, size=300).tolist(), rng.random(300) < 0.3
    found = majority_of_n(votes, passed)
    assert found[0] == pytest.approx(passed.mean())
    sizes = Counter(votes)
    top = [vote for vote, size in sizes.items() if size == max(sizes.values())]
    members = [np.mean([p for p, vote in zip(passed, votes, strict=True) if vote == name]) for name in top]
    assert found[-1] == pytest.approx(np.mean(members))
    assert best_of_n(rng.random(300), passed)[0] == pytest.approx(passed.mean())


def test_clusters_need_one_output():
    assert vote_clusters([(None,), ("x",), ("x",), ("y",)]) == [None, 0, 0, 1]
