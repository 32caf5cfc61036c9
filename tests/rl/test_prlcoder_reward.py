"""PRLCoder's reward as settings of an arm: the published formula written out, and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgpo.config import ArmSettings
from psgpo.errors import UserError
from psgpo.records import AssertTests, Problem, Status, Verdict
from psgpo.rl.rewards import line_rewards, token_rewards
from psgpo.rl.rollout import Rollout, rewarded_lines, rewarded_tokens

PRM_ARM = ArmSettings(
    line_reward="sum", prm="lines", lambda_fail=1.0, lambda_pass=1.0, length_norm=False, unit_test_reward=0.0
)
ORM_ARM = ArmSettings(line_reward="program", prm="whole", lambda_fail=1.0, lambda_pass=1.0, unit_test_reward=0.0)


def rollout(tokens: int, line_ends: tuple[int, ...], neutral: tuple[bool, ...], *, passed: bool) -> Rollout:
    """A judged response of which only lengths and places matter."""
    status = Status.PASSED if passed else Status.WRONG_ANSWER
    return Rollout(
        problem=Problem(id="p", prompt="", tests=AssertTests(entry_point="f", checks=("assert f()",))),
        prompt_ids=(),
        token_ids=(7,) * tokens,
        logprobs=(0.0,) * tokens,
        finished=True,
        text="",
        line_ends=line_ends,
        neutral=neutral,
        verdict=Verdict(status=status, tests_passed=int(passed), tests_total=1),
    )


def paid(found: Rollout, scores: list[float], arm: ArmSettings) -> list[float]:
    return rewarded_tokens(found, rewarded_lines(found, np.array(scores), arm), arm).tolist()


@given(st.data(), st.booleans())
def test_the_prm_arm_is_the_formula(data: st.DataObject, passed: bool) -> None:
    """r_t = Σ_i R_P(d, w_i) · 1[t = T_i] − β · log(π_θ / π_old), term by term."""
    tokens = data.draw(st.integers(1, 12))
    ends = data.draw(st.lists(st.integers(0, tokens - 1), max_size=6).map(sorted))
    numbers = st.floats(-3, 3)
    scores = data.draw(st.lists(numbers, min_size=len(ends), max_size=len(ends)))
    logprobs, old = (data.draw(st.lists(numbers, min_size=tokens, max_size=tokens)) for _ in range(2))
    beta = 0.05
    literal = []
    for t in range(tokens):
        r_t = 0.0
        for i in range(len(ends)):
            r_t += scores[i] * (1 if t == ends[i] else 0)
        literal.append(r_t - beta * (logprobs[t] - old[t]))
    found = rollout(tokens, tuple(ends), (False,) * len(ends), passed=passed)
    # The second term is the trainer's, `rewards - kl_beta * log_ratio`, for every arm alike.
    ours = np.array(paid(found, scores, PRM_ARM)) - beta * (np.array(logprobs) - np.array(old))
    np.testing.assert_allclose(ours, literal, atol=1e-12)


def test_a_pass_pays_nothing_by_itself() -> None:
    lines = {"line_ends": (1, 3), "neutral": (False, False)}
    right, wrong = (rollout(6, **lines, passed=passed) for passed in (True, False))
    assert paid(right, [0.5, -0.25], PRM_ARM) == paid(wrong, [0.5, -0.25], PRM_ARM) == [0, 0.5, 0, -0.25, 0, 0]
    half = PRM_ARM.model_copy(update={"unit_test_reward": 0.5})
    assert paid(right, [0.5, -0.25], half) == [0, 0.5, 0, -0.25, 0, 0.5]


def test_an_orm_pays_once_at_the_last_token_and_not_at_the_last_line() -> None:
    found = rollout(6, (1, 3), (False, True), passed=True)
    assert paid(found, [0.75], ORM_ARM) == [0, 0, 0, 0, 0, 0.75]
    no_lines = rollout(2, (), (), passed=False)
    assert paid(no_lines, [-1.0], ORM_ARM) == [0, -1.0]


def test_without_normalisation_and_lambda_the_sum_form_is_the_scores() -> None:
    scores = np.array([0.3, -2.0, 0.7])
    reward = line_rewards("sum", scores, [False] * 3, passed=True, lambda_fail=1, lambda_pass=1, length_norm=False)
    np.testing.assert_array_equal(reward, scores)
    assert token_rewards(reward, [0, 1, 2], tokens=3, unit_test_reward=0.0).tolist() == scores.tolist()


def test_an_arm_that_learns_from_nothing_is_refused() -> None:
    with pytest.raises((UserError, ValueError), match="leaves nothing to learn from"):
        ArmSettings(unit_test_reward=0.0)
