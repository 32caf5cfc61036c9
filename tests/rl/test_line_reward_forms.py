"""Every form of line reward: numbers worked by hand, bounds on totals, and what neutral lines must not change."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgpo.config import ArmSettings
from psgpo.config.rewards import READABLE, LineRewardName
from psgpo.report.tables import REWARD_WORDS
from psgpo.rl.rewards import LINE_REWARDS, PAYS_LINES_OF, can_pay_lines, line_rewards

SIGNS = st.lists(st.floats(-1, 1), min_size=1, max_size=12)
OF_CODE = ["sum", "progress", "difference", "redistribute", "min-form", "first-error"]


def paid(form: str, scores: list[float], neutral: list[bool] | None = None, *, passed: bool = False, **more) -> list:
    reward = line_rewards(
        form,
        np.array(scores),
        neutral or [False] * len(scores),
        passed=passed,
        lambda_fail=1.0,
        lambda_pass=1.0,
        **more,
    )
    return reward.tolist()


def test_config_and_registry_name_the_same_forms() -> None:
    assert set(get_args(LineRewardName)) == set(LINE_REWARDS) == {"none", *READABLE} == set(REWARD_WORDS)


def test_difference_by_hand() -> None:
    scores, neutral = [0.75, 9.0, 0.25, 1.0], [False, True, False, False]
    assert paid("difference", scores, neutral) == [-0.25, 0.0, -0.5, 0.75]
    assert paid("difference", scores, neutral, start=0.0) == [0.75, 0.0, -0.5, 0.75]
    assert paid("difference", scores, neutral, neutral_lines=False, start=0.0) == [0.75, 8.25, -8.75, 0.75]


@given(SIGNS, st.floats(-1, 1))
def test_difference_telescopes(scores: list[float], start: float) -> None:
    assert math.isclose(sum(paid("difference", scores, start=start)), scores[-1] - start, abs_tol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_difference_of_what_never_falls_is_progress(scores: list[float]) -> None:
    rising = sorted(scores)
    np.testing.assert_allclose(paid("difference", rising, start=0.0), paid("progress", rising), atol=1e-12)


def test_redistribute_by_hand() -> None:
    # Falls from 1: 0.5 at line 1, nothing while it is above the least, 1.0 at line 4, 0.5 at line 5.
    scores, neutral = [0.5, -1.0, 0.75, -0.5, -1.0], [False, True, False, False, False]
    assert paid("redistribute", scores, neutral) == [-0.25, 0.0, 0.0, -0.5, -0.25]
    assert paid("redistribute", [1.0, 1.2, 1.0], [False, False, True]) == [0.0, -1.0, 0.0]
    assert paid("redistribute", scores, neutral, passed=True) == [0.0] * 5


@given(SIGNS)
def test_redistribute_places_exactly_one(scores: list[float]) -> None:
    reward = paid("redistribute", scores)
    assert max(reward) <= 0
    assert math.isclose(sum(reward), -1.0, rel_tol=1e-9)


def test_exact_labels_put_all_of_it_on_the_first_wrong_line() -> None:
    scores, neutral = [1.0, 1.0, 1.0, -1.0, -1.0], [False, False, True, False, False]
    assert paid("redistribute", scores, neutral) == [0.0, 0.0, 0.0, -1.0, 0.0]
    assert paid("difference", scores, neutral) == [0.0, 0.0, 0.0, -2.0, 0.0]
    assert paid("first-error", scores, neutral) == [0.2, 0.2, 0.0, -0.2, 0.0]


def test_min_form_by_hand() -> None:
    # Weights of scores 0.1 apart stand as 1 to e.
    low, high = 1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1))
    np.testing.assert_allclose(paid("min-form", [0.3, 5.0, 0.2], [False, True, False]), [high * 0.3, 0.0, low * 0.2])


@given(SIGNS)
def test_min_form_adds_up_to_between_the_least_and_the_mean(scores: list[float]) -> None:
    total = sum(paid("min-form", scores))
    assert min(scores) - 1e-9 <= total <= np.mean(scores) + 1e-9


def test_first_error_by_hand() -> None:
    scores = [0.5, 0.0, -0.1, 0.9, -1.0]
    assert paid("first-error", scores) == [0.2, 0.2, -0.2, 0.0, 0.0]
    assert paid("first-error", scores, length_norm=False) == [1.0, 1.0, -1.0, 0.0, 0.0]


@given(SIGNS)
def test_first_error_is_bounded(scores: list[float]) -> None:
    reward = paid("first-error", scores)
    assert -1 / len(scores) - 1e-9 <= sum(reward) <= 1 + 1e-9
    assert sum(value < 0 for value in reward) == any(score < 0 for score in scores)


@pytest.mark.parametrize("form", OF_CODE)
@pytest.mark.parametrize("passed", [False, True])
def test_neutral_lines_are_paid_nothing_and_their_scores_change_nothing(form: str, passed: bool) -> None:
    neutral = [True, False, True, False, True]
    one = paid(form, [5.0, 0.5, -5.0, -0.5, 5.0], neutral, passed=passed)
    other = paid(form, [-1.0, 0.5, 0.0, -0.5, 1.0], neutral, passed=passed)
    assert one == other
    assert [one[m] for m in (0, 2, 4)] == [0.0] * 3


@pytest.mark.parametrize("form", OF_CODE)
def test_a_response_without_code_is_paid_nothing(form: str) -> None:
    assert paid(form, []) == []
    assert paid(form, [1.0, -1.0], [True, True]) == [0.0, 0.0]


@pytest.mark.parametrize("form", OF_CODE)
def test_lambda_zero_pays_nothing(form: str) -> None:
    reward = line_rewards(form, np.array([0.5, -0.5]), [False] * 2, passed=False, lambda_fail=0.0, lambda_pass=1.0)
    assert not reward.any()


def test_failed_only_is_the_sum_with_no_weight_on_passing_responses() -> None:
    arm = ArmSettings(line_reward="sum", prm="p", lambda_fail=1.0, lambda_pass=0.0)
    for passed, total in ((True, 0.0), (False, 0.25)):
        reward = line_rewards(
            arm.line_reward,
            np.array([1.0, -0.5]),
            [False] * 2,
            passed=passed,
            lambda_fail=arm.lambda_fail,
            lambda_pass=arm.lambda_pass,
        )
        assert reward.sum() == total


@pytest.mark.parametrize("form", OF_CODE)
@pytest.mark.parametrize("passed", [False, True])
@pytest.mark.parametrize("lambdas", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_lines_can_be_paid_exactly_where_some_score_is(form: str, passed: bool, lambdas: tuple[float, float]) -> None:
    weights = dict(zip(("lambda_fail", "lambda_pass"), lambdas, strict=True))
    rows = ([1.0, -0.5], [0.25, 0.5], [-1.0, -1.0])
    some = any(line_rewards(form, np.array(row), [False] * 2, passed=passed, **weights).any() for row in rows)
    assert can_pay_lines(form, passed=passed, **weights) == some


def test_forms_without_lines_pay_none() -> None:
    assert set(PAYS_LINES_OF) <= set(LINE_REWARDS)
    for form in set(LINE_REWARDS) - set(OF_CODE):
        assert not any(can_pay_lines(form, passed=p, lambda_fail=1.0, lambda_pass=1.0) for p in (False, True))
