from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgpo.errors import UserError
from psgpo.evaluation.metrics import (
    best_of_k_curve,
    bootstrap_mean,
    bootstrap_ratio,
    mean_over_seeds,
    mean_pass_at_k,
    paired_difference,
    paired_seed_difference,
    pass_at_k,
    pass_at_k_by_group,
    problem_pass_at_k,
    t_quantile_95,
    wilson,
)

RESULTS = {"a": [True, False, False, False], "b": [True, True, False, False], "c": [False] * 4}


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)  # of 6 pairs one misses both
    assert pass_at_k(5, 3, 3) == 1.0
    assert pass_at_k(5, 0, 5) == 0.0
    assert math.isnan(pass_at_k(3, 3, 4))
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5)
    for n, c, k in [(4, 5, 1), (4, -1, 1), (4, 1, 0)]:
        with pytest.raises(ValueError, match="pass@k needs"):
            pass_at_k(n, c, k)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(passed, data):
    k = data.draw(st.integers(1, len(passed)))
    subsets = list(itertools.combinations(passed, k))
    assert pass_at_k(len(passed), sum(passed), k) == pytest.approx(np.mean([any(subset) for subset in subsets]))


def test_pass_at_1_is_the_mean_of_c_over_n():
    assert mean_pass_at_k(RESULTS, 1).value == pytest.approx((1 / 4 + 2 / 4 + 0) / 3)
    assert problem_pass_at_k(RESULTS, 1).tolist() == [0.25, 0.5, 0.0]


def test_best_of_k_rises_to_the_share_of_problems_ever_solved():
    curve = best_of_k_curve(RESULTS, resamples=200)
    assert [e.value for e in curve] == pytest.approx([0.25, (0.5 + 5 / 6) / 3, (0.75 + 1) / 3, 2 / 3])
    assert [e.count for e in curve] == [3] * 4
    assert best_of_k_curve({}) == []


def test_too_few_samples_are_undefined_for_the_mean_too():
    uneven = RESULTS | {"d": [True, True]}
    assert math.isnan(mean_pass_at_k(uneven, 3).value)
    assert mean_pass_at_k(uneven, 3).to_json() == {"value": None, "low": None, "high": None, "count": 4}
    assert math.isnan(mean_pass_at_k({}, 1).value)


def test_bootstrap_interval_holds_the_mean_and_shrinks():
    few = bootstrap_mean([0.0, 1.0] * 10)
    many = bootstrap_mean([0.0, 1.0] * 250)
    assert few.low < few.value == 0.5 < few.high
    assert many.high - many.low < few.high - few.low
    # 20 fair coins: the standard error of the mean is sqrt(.25 / 20) = .112, so about .28 to .72.
    assert few.low == pytest.approx(0.28, abs=0.04)
    assert few.high == pytest.approx(0.72, abs=0.04)
    assert bootstrap_mean([0.0, 1.0] * 10) == few
    assert bootstrap_mean([0.3] * 5).low == pytest.approx(0.3)


def test_bootstrap_interval_covers_at_its_level():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        estimate = bootstrap_mean((rng.random(60) < 0.3).astype(float), resamples=300, seed=trial)
        hits += estimate.low <= 0.3 <= estimate.high
    assert 0.89 <= hits / 300 <= 0.99


def test_a_ratio_weighs_responses_and_skips_empty_problems():
    found = bootstrap_ratio([1, 0, 5], [1, 3, 0])
    assert (found.value, found.count) == (0.25, 2)
    assert found.low == 0.0
    assert found.high == 1.0
    assert math.isnan(bootstrap_ratio([], []).value)
    equal = bootstrap_ratio([1, 0, 1, 1], [2, 2, 2, 2], seed=3)
    assert equal == bootstrap_mean([0.5, 0.0, 0.5, 0.5], seed=3)


def test_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(1)
    ability = rng.random(80)
    a = {f"p{i}": (rng.random(16) < p).tolist() for i, p in enumerate(ability)}
    b = {f"p{i}": (rng.random(16) < p * 0.8).tolist() for i, p in reversed(list(enumerate(ability)))}
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(mean_pass_at_k(a, 1).value - mean_pass_at_k(b, 1).value)
    alone = mean_pass_at_k(a, 1)
    assert difference.high - difference.low < alone.high - alone.low
    assert paired_difference(a, a).low == paired_difference(a, a).high == 0.0


def test_paired_difference_needs_the_same_problems():
    with pytest.raises(UserError, match=r"1 problem\(s\) only in the first, 0"):
        paired_difference(RESULTS, {"a": [True], "b": [True]})


def test_groups_come_in_order_with_their_counts():
    groups = pass_at_k_by_group(RESULTS, {"a": 10, "b": 9, "c": 10}, 2)
    assert list(groups) == [9, 10]
    assert [e.count for e in groups.values()] == [1, 2]
    assert groups[9].value == pytest.approx(5 / 6)
    assert groups[10].value == pytest.approx(0.25)
    assert list(pass_at_k_by_group(RESULTS, {"a": None, "b": 2, "c": "x"})) == [2, "x", None]


def test_seed_difference_by_hand():
    found = paired_seed_difference([0.30, 0.34, 0.32], [0.20, 0.22, 0.24])
    # Differences .10 .12 .08: mean .10, standard deviation .02, t(2) = 4.3027.
    assert found.value == pytest.approx(0.10)
    assert found.high - found.value == pytest.approx(4.3027 * 0.02 / math.sqrt(3), abs=1e-6)
    assert found.count == 3
    one = paired_seed_difference([0.5], [0.25])
    assert one.value == 0.25
    assert math.isnan(one.low)
    assert math.isnan(paired_seed_difference([], []).value)
    with pytest.raises(ValueError, match="a value per seed"):
        paired_seed_difference([0.5], [])


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (100, 1.984)])
def test_t_quantiles_are_those_of_the_tables(degrees, quantile):
    assert t_quantile_95(degrees) == pytest.approx(quantile, abs=6e-4)


def test_mean_over_seeds_by_hand():
    # Seeds .3 and .5, problems .2 and .6: v = .02 / 2 + .08 / 2, 1 degree each, so d = .05^2 / (.01^2 + .04^2) = 1.47
    shared = mean_over_seeds([{"a": 0.1, "b": 0.5}, {"a": 0.3, "b": 0.7}])
    assert (shared.value, shared.count) == (pytest.approx(0.4), 2)
    assert shared.high - shared.value == pytest.approx(12.7062 * 0.05**0.5)
    # Other problems in every seed: the seeds' own spread says all, as `paired_seed_difference` of the means.
    means = [0.3, 0.5, 0.4, 0.1, 0.2]
    own = mean_over_seeds([{f"{s}a": mean - 0.1, f"{s}b": mean + 0.1} for s, mean in enumerate(means)])
    alone = paired_seed_difference(means, [0.0] * 5)
    assert (own.value, own.low, own.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_mean_over_seeds_without_an_interval():
    assert math.isnan(mean_over_seeds([{"a": 1.0}]).low)
    assert mean_over_seeds([]).count == 0
    assert math.isnan(mean_over_seeds([{"a": 1.0}, {"a": math.nan}]).value)
    same = mean_over_seeds([{"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}])
    assert (same.low, same.high) == (0.5, 0.5)


@pytest.mark.parametrize(("seed_spread", "problem_spread"), [(0.0, 0.3), (0.1, 0.0), (0.05, 0.3)])
def test_interval_over_seeds_and_problems_covers_at_its_level(seed_spread, problem_spread):
    rng = np.random.default_rng(0)
    seeds, problems, covered = 4, 40, 0
    for _ in range(400):
        effects = rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, problem_spread, (1, problems))
        values = 0.1 + effects + rng.normal(0, 0.1, (seeds, problems))
        found = mean_over_seeds([dict(enumerate(row)) for row in values])
        covered += found.low <= 0.1 <= found.high
    assert covered / 400 > 0.92


def test_wilson_by_hand():
    # 3 of 90: (3 + 1.92) / 93.84 = .0524 in the middle; at 0 of 10 the textbook's 0 to 27.8 %.
    found = wilson(3, 90)
    assert (found.value, found.low, found.high) == pytest.approx((1 / 30, 0.0114, 0.0935), abs=1e-4)
    assert (wilson(0, 10).low, wilson(0, 10).high) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert math.isnan(wilson(0, 0).value)
