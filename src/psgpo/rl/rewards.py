"""Rewards, pure: line scores and the verdict become one reward per response token.

    r_t = λ(passed) · Σ_m g_m · 1[t = T_m]  +  R_UT · 1[t = T]  −  β · (log π_θ(y_t|·) − log π_ref(y_t|·))

PSGPO (arXiv 2410.17621, section 4.2): g_m = R_φ(x, y^(≤m)) / T at the last token T_m of line m; R_UT = 1 when every
unit test passes, else 0; λ = 0.25 when the tests fail and 0.025 when they pass. The form of g is a named variant,
`LINE_REWARDS`.

PRLCoder (arXiv 2502.01715) is the same sum with other weights: r_t = Σ_i R_P · 1[t = T_i] − β · log-ratio is λ = 1 for
every response, no 1/T and no R_UT; its ORM arm pays R_O once, at the last token (`program`). The weight of R_UT is a
setting.

Differs from the papers: `progress` (ours) is in neither; its λ are the recipe's.

# L code lines, T response tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
LineReward = Callable[[Array, Flags, bool], Array]
"""(score_L, neutral_L, length_norm) -> g_L, before λ."""


def none(score_L: Array, neutral_L: Flags, length_norm: bool) -> Array:
    """g_m = 0: unit tests alone, the RL baseline."""
    return np.zeros(len(neutral_L))


def sum_over_lines(score_L: Array, neutral_L: Flags, length_norm: bool) -> Array:
    """g_m = R_m / T, and 0 on neutral lines: PSGPO's DenseReward. Without `length_norm`, g_m = R_m.

    T counts every line of the response, neutral ones included, so that adding comments dilutes the reward.
    """
    reward_L = np.where(neutral_L, 0.0, score_L)
    return reward_L / len(score_L) if length_norm and len(score_L) else reward_L


def progress(score_L: Array, neutral_L: Flags, length_norm: bool) -> Array:
    """g_m = M_m − M_(m−1), M_m = max(0, R_1, …, R_m) over code lines, R clipped to at most 1: never negative.

    R is a PRM's estimate of the fraction of the program that is done and right. The total is max_m R_m ≤ 1, however
    many lines the program has, so there is nothing to gain by stopping early, padding, or going back and forth;
    `length_norm` has no effect.
    """
    running_L = np.maximum.accumulate(np.concatenate([[0.0], np.where(neutral_L, 0.0, np.minimum(score_L, 1.0))]))
    return np.diff(running_L)


def whole_program(score_L: Array, neutral_L: Flags, length_norm: bool) -> Array:
    """g = R_O, an ORM's one score of the whole program: L is 1, and the "line" ends where the response does."""
    return score_L


LINE_REWARDS: dict[str, LineReward] = {
    "none": none,
    "sum": sum_over_lines,
    "progress": progress,
    "program": whole_program,
}


def line_rewards(
    form: str,
    score_L: Array,
    neutral_L: Sequence[bool],
    *,
    passed: bool,
    lambda_fail: float,
    lambda_pass: float,
    length_norm: bool = True,
    neutral_lines: bool = True,
) -> Array:
    """λ · g_L for one response.

    Args:
        form: a name in `LINE_REWARDS`.
        score_L: R(x, y^(≤m)) per line; ignored (may be empty) by `none`; of `program` one number.
        neutral_L: comment, blank and docstring lines.
        passed: the verdict; chooses λ.
        neutral_lines: False rewards comment lines as code lines are: the safeguard off.
    """
    neutral = np.asarray(neutral_L, dtype=np.bool_) if neutral_lines else np.zeros(len(neutral_L), dtype=np.bool_)
    weight = lambda_pass if passed else lambda_fail
    return weight * LINE_REWARDS[form](np.asarray(score_L, dtype=np.float64), neutral, length_norm)


def token_rewards(line_reward_L: Array, line_ends_L: Sequence[int], *, tokens: int, unit_test_reward: float) -> Array:
    """Place line rewards at line ends and R_UT, times its weight, at the last token. Shape: (tokens,).

    Lines that end in the same token (a tokenizer that merges newlines) add up there.

        >>> token_rewards(np.array([0.5, -0.25]), [1, 3], tokens=5, unit_test_reward=1.0).tolist()
        [0.0, 0.5, 0.0, -0.25, 1.0]
    """
    reward_T = np.zeros(tokens)
    np.add.at(reward_T, np.asarray(line_ends_L, dtype=np.int64), line_reward_L)
    if tokens:
        reward_T[-1] += unit_test_reward
    return reward_T
