"""Rewards, advantages, losses: numbers worked by hand, and reductions to simpler algorithms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psgpo.rl.advantages import explained_variance, gae, whiten
from psgpo.rl.losses import policy_loss, policy_moves, value_loss
from psgpo.rl.rewards import line_rewards, token_rewards

PAPER = {"lambda_fail": 0.25, "lambda_pass": 0.025}


def test_dense_reward_of_a_failed_response() -> None:
    # T = 4, third line a comment: 0.25 / 4 * [1, 1, 0, -1]
    reward = line_rewards("sum", np.array([1.0, 1.0, 0.7, -1.0]), [False, False, True, False], passed=False, **PAPER)
    np.testing.assert_allclose(reward, [0.0625, 0.0625, 0.0, -0.0625])


def test_dense_reward_of_a_passing_response_is_a_tenth() -> None:
    reward = line_rewards("sum", np.array([1.0, 0.5]), [False, False], passed=True, **PAPER)
    np.testing.assert_allclose(reward, [0.0125, 0.00625])


def test_safeguards_off() -> None:
    scores, neutral = np.array([1.0, 0.5]), [False, True]
    plain = line_rewards("sum", scores, neutral, passed=False, length_norm=False, **PAPER)
    np.testing.assert_allclose(plain, [0.25, 0.0])
    both = line_rewards("sum", scores, neutral, passed=False, length_norm=False, neutral_lines=False, **PAPER)
    np.testing.assert_allclose(both, [0.25, 0.125])


def test_progress_pays_increments_of_the_running_maximum() -> None:
    scores = np.array([-0.1, 0.25, 0.9, 0.2, 0.5, 1.3])
    neutral = [False, False, True, False, False, False]
    reward = line_rewards("progress", scores, neutral, passed=False, lambda_fail=2.0, lambda_pass=0.0)
    np.testing.assert_allclose(reward, [0.0, 0.5, 0.0, 0.0, 0.5, 1.0])


@given(st.lists(st.floats(-2, 2), max_size=12))
def test_progress_is_never_negative_and_bounded(scores: list[float]) -> None:
    reward = line_rewards(
        "progress", np.array(scores), [False] * len(scores), passed=True, lambda_fail=0, lambda_pass=1
    )
    assert (reward >= 0).all()
    assert math.isclose(reward.sum(), min(1.0, max([0.0, *scores])), abs_tol=1e-12)


def test_rewards_land_on_line_ends_and_add_up_where_two_lines_share_a_token() -> None:
    reward = token_rewards(np.array([0.1, 0.2, 0.3]), [1, 1, 3], tokens=4, unit_test_reward=1.0)
    np.testing.assert_allclose(reward, [0.0, 0.3, 0.0, 1.3])


@pytest.mark.parametrize("form", ["none", "sum", "progress"])
def test_lambda_zero_is_the_baseline_bit_for_bit(form: str) -> None:
    scores, ends = np.array([0.3, -0.7, 0.9]), [0, 2, 4]
    lines = line_rewards(form, scores, [False] * 3, passed=False, lambda_fail=0.0, lambda_pass=0.0)
    dense = token_rewards(lines, ends, tokens=5, unit_test_reward=0.0)
    bare = token_rewards(np.zeros(0), [], tokens=5, unit_test_reward=0.0)
    assert np.array_equal(dense, bare)


def tensors(*rows: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


def test_gae_by_hand() -> None:
    # gamma 0.5, lambda 0.5. delta_2 = 1 - 0.5, delta_1 = 0 + 0.5*0.5 - 0.25 = 0, delta_0 = 2 + 0.5*0.25 - 1
    reward, value, mask = tensors([[2.0, 0.0, 1.0, 9.0]], [[1.0, 0.25, 0.5, 7.0]], [[1.0, 1.0, 1.0, 0.0]])
    advantages, returns = gae(reward, value, mask, gamma=0.5, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[1.125 + 0.25 * 0.125, 0.125, 0.5, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[2.15625, 0.375, 1.0, 0.0]]))


def test_gae_reductions() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, value = (torch.randn(3, 6, generator=generator) for _ in range(2))
    mask = (torch.arange(6) < torch.tensor([[6], [4], [1]])).float()
    reward = reward * mask
    td, _ = gae(reward, value, mask, gamma=0.9, lam=0.0)
    following = torch.nn.functional.pad((value * mask)[:, 1:], (0, 1))
    torch.testing.assert_close(td, (reward + 0.9 * following - value) * mask)
    monte_carlo, returns = gae(reward, value, mask, gamma=1.0, lam=1.0)
    to_go = reward.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(returns, to_go * mask)
    torch.testing.assert_close(monte_carlo, (to_go - value) * mask)


def test_padding_on_either_side_changes_nothing() -> None:
    reward, value = tensors([[0.5, 1.0]], [[0.2, 0.4]])
    plain, _ = gae(reward, value, torch.ones(1, 2), gamma=0.9, lam=0.8)
    pad = torch.nn.functional.pad
    padded, _ = gae(
        pad(reward, (2, 3)), pad(value, (2, 3), value=5.0), pad(torch.ones(1, 2), (2, 3)), gamma=0.9, lam=0.8
    )
    torch.testing.assert_close(padded[:, 2:4], plain)
    assert padded[:, :2].abs().sum() == 0
    assert padded[:, 4:].abs().sum() == 0


def test_whitening() -> None:
    value, mask = tensors([[1.0, 3.0, 100.0]], [[1.0, 1.0, 0.0]])
    torch.testing.assert_close(whiten(value, mask), torch.tensor([[-1.0, 1.0, 0.0]]))
    torch.testing.assert_close(whiten(value / 100, mask, floor=0.1), torch.tensor([[-0.1, 0.1, 0.0]]))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.25 / 3])
def test_whitening_without_a_least_deviation_makes_nothing_of_equal_values(value: float) -> None:
    mask = torch.ones(7, 13)
    mask[:, 11:] = 0.0
    same = torch.full((7, 13), value)
    same[:, 11:] = 9.0
    assert torch.equal(whiten(same, mask, floor=0.0), torch.zeros(7, 13))
    same[2, 3] += 1e-3
    found = whiten(same, mask, floor=0.0)
    assert found[2, 3] == pytest.approx(76**0.5, rel=1e-4)  # one of 77 is off: √(n − 1) deviations


def test_explained_variance() -> None:
    returns, mask = tensors([[1.0, 2.0, 3.0]], [[1.0, 1.0, 1.0]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.zeros(1, 3), returns, mask) == 0.0
    assert math.isnan(explained_variance(returns, torch.ones(1, 3), mask))


def test_policy_loss_by_hand() -> None:
    # ratios 1.5 and 0.5 with clip 0.2: min(1.5*1, 1.2*1) = 1.2; min(0.5*-1, 0.8*-1) = -0.8; a free 1.1 * 2
    old = torch.zeros(1, 3)
    new = torch.log(torch.tensor([[1.5, 0.5, 1.1]]))
    loss, clipped = policy_loss(new, old, torch.tensor([[1.0, -1.0, 2.0]]), torch.ones(1, 3), clip=0.2, denominator=3)
    assert loss.item() == pytest.approx(-(1.2 - 0.8 + 2.2) / 3)
    assert clipped.item() == 2


def test_the_interval_of_the_ratio_may_reach_further_up_than_down() -> None:
    # ratios 1.5, 1.25 and 0.5, clip 0.2 below and 0.3 above: 1.3 clipped, 1.25 free, 0.8 * -1 clipped
    old, new = torch.zeros(1, 3), torch.log(torch.tensor([[1.5, 1.25, 0.5]]))
    advantage, every = torch.tensor([[1.0, 1.0, -1.0]]), torch.ones(1, 3)
    loss, clipped = policy_loss(new, old, advantage, every, clip=0.2, clip_high=0.3, denominator=1)
    assert loss.item() == pytest.approx(-(1.3 + 1.25 - 0.8))
    assert clipped.item() == 2


def test_how_far_a_policy_moved_by_hand() -> None:
    # ratios 2, 1 and 1/2: 2 - 1 - log 2, 0, 1/2 - 1 + log 2
    kl, largest = policy_moves(torch.log(torch.tensor([2.0, 1.0, 0.5])), torch.zeros(3))
    assert kl.item() == pytest.approx(0.5)
    assert largest.item() == pytest.approx(2.0)
    assert [value.item() for value in policy_moves(torch.zeros(0), torch.zeros(0))] == [0.0, 0.0]


def test_value_loss_by_hand() -> None:
    # old 0, new 1, return 2, clip 0.5: max((1-2)², (0.5-2)²) = 2.25
    loss, clipped = value_loss(
        torch.tensor([[1.0]]), torch.zeros(1, 1), torch.tensor([[2.0]]), torch.ones(1, 1), clip=0.5, denominator=1
    )
    assert loss.item() == pytest.approx(1.125)
    assert clipped.item() == 1


def test_gradients_add_up_over_parts_because_the_denominator_is_given() -> None:
    generator = torch.Generator().manual_seed(1)
    old, advantage = (torch.randn(4, 5, generator=generator) for _ in range(2))
    mask = (torch.rand(4, 5, generator=generator) > 0.3).float()
    whole, parts = (torch.zeros(4, 5, requires_grad=True) for _ in range(2))
    policy_loss(whole, old, advantage, mask, clip=0.2, denominator=float(mask.sum()))[0].backward()
    for rows in (slice(0, 1), slice(1, 4)):
        policy_loss(parts[rows], old[rows], advantage[rows], mask[rows], clip=0.2, denominator=float(mask.sum()))[
            0
        ].backward()
    torch.testing.assert_close(whole.grad, parts.grad)
