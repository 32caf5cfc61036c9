"""Rewards, pure: line scores and the verdict become one reward per response token.

    r_t = λ(passed) · Σ_m g_m · 1[t = T_m]  +  R_UT · 1[t = T]  −  β · (log π_θ(y_t|·) − log π_ref(y_t|·))

PSGPO (arXiv 2410.17621, section 4.2): g_m = R_φ(x, y^(≤m)) / T at the last token T_m of line m; R_UT = 1 when every
unit test passes, else 0; λ = 0.25 when the tests fail and 0.025 when they pass. The form of g is a named variant,
`LINE_REWARDS`.

PRLCoder (arXiv 2502.01715) is the same sum with other weights: r_t = Σ_i R_P · 1[t = T_i] − β · log-ratio is λ = 1 for
every response, no 1/T and no R_UT; its ORM arm pays R_O once, at the last token (`program`). The weight of R_UT is a
setting.

Other forms: `difference` (PAV), `min-form` (PURE), `first-error` (after VPPO), see each. `sum` with lambda_pass = 0
pays lines of failed responses alone. docs/reward-shapes.md compares them, and says what differs from their papers.

Differs from the papers: `progress` and `redistribute` (ours) are in none; λ are the recipe's.

# L code lines, T response tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
BEST = 1.0
"""What a PRM of target `sign` says of a prefix that can be completed."""
MIN_FORM_TEMPERATURE = 0.1
"""τ of `min-form`. Of scores from -1 to 1 one that is .5 above the least has e^-5 of its weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredLines:
    """What a form of line reward reads of one response."""

    scores: Array
    """R_m = R(x, y^(≤m)) per line. Shape: (L,); of an ORM (1,)."""
    neutral: Flags
    """Lines that are paid nothing and seen by no form: comments, blank lines, docstrings. Shape: (L,)."""
    passed: bool
    """The verdict of the whole response."""
    length_norm: bool
    """Divide by T = L, in the forms that do."""
    start: float
    """R_0 of `difference`."""

    def shared_out(self, reward_L: Array) -> Array:
        """Divided by T where `length_norm` is on. T counts neutral lines too: adding comments dilutes the reward."""
        return reward_L / len(reward_L) if self.length_norm and len(reward_L) else reward_L

    def placed(self, reward_C: Array) -> Array:
        """Rewards of the code lines in their places, 0 on neutral lines. Shape: (L,)."""
        reward_L = np.zeros(len(self.neutral))
        reward_L[~self.neutral] = reward_C
        return reward_L


LineReward = Callable[[ScoredLines], Array]
"""g_L of one response, before λ."""


def none(lines: ScoredLines) -> Array:
    """g_m = 0: unit tests alone, the RL baseline."""
    return np.zeros(len(lines.neutral))


def sum_over_lines(lines: ScoredLines) -> Array:
    """g_m = R_m / T, and 0 on neutral lines: PSGPO's DenseReward. Without `length_norm`, g_m = R_m."""
    return lines.shared_out(np.where(lines.neutral, 0.0, lines.scores))


def progress(lines: ScoredLines) -> Array:
    """g_m = M_m − M_(m−1), M_m = max(0, R_1, …, R_m) over code lines, R clipped to at most 1: never negative.

    R is a PRM's estimate of the fraction of the program that is done and right. The total is max_m R_m ≤ 1, however
    many lines the program has, so there is nothing to gain by stopping early, padding, or going back and forth;
    `length_norm` has no effect.
    """
    score_L = np.where(lines.neutral, 0.0, np.minimum(lines.scores, 1.0))
    return np.diff(np.maximum.accumulate(np.concatenate([[0.0], score_L])))


def difference(lines: ScoredLines) -> Array:
    """g_m = R_m − R_(m−1) over code lines, R_0 = `start`: potential-based.

    Ng, Harada and Russell 1999; PAV (arXiv 2410.08146), where R is the success rate of another policy from here on.
    The total is R_last − R_0: what a line earns, the next can lose, and padding earns nothing. With R_0 = 1 (target
    `sign`) it is never above 0, and a policy can learn to write nothing; to end early on a line that scores well is
    worth as much as a whole program. On exact progress it equals `progress`. `length_norm` has no effect.
    """
    code_C = lines.scores[~lines.neutral]
    return lines.placed(np.diff(code_C, prepend=lines.start))


def redistribute(lines: ScoredLines) -> Array:
    """g_m = −(M_(m−1) − M_m) / Σ_k (M_(k−1) − M_k) if the tests fail, M_m = min(R_1, …, R_m) over code lines; else 0.

    M_0 = 1, the best score of target `sign`; where nothing falls, −1 at the last code line. Ours: the PRM says *where*
    a failed response loses, never how much. The total is −1 for every failed response with a code line, so the PRM
    cannot be flattered; only a response without code escapes the loss. `length_norm` has no effect.
    """
    code_C = lines.scores[~lines.neutral]
    if lines.passed or not len(code_C):
        return np.zeros(len(lines.neutral))
    running = np.minimum.accumulate(np.concatenate([[BEST], np.minimum(code_C, BEST)]))
    fall_C = running[:-1] - running[1:]
    if not fall_C.any():
        fall_C[-1] = 1.0
    # By the largest first: the sum of the tiniest falls that floats know has no inverse.
    fall_C = fall_C / fall_C.max()
    return lines.placed(-fall_C / fall_C.sum())


def min_form(lines: ScoredLines) -> Array:
    """g_m = w_m R_m, w = softmax(−R / τ) over code lines, τ = `MIN_FORM_TEMPERATURE`: the total is about min_m R_m.

    PURE (arXiv 2504.15275). The total lies between the least score and the mean, so padding with lines that score well
    earns nothing; few lines, none of them bad, are the easy way to a high one. `length_norm` has no effect.
    """
    code_C = lines.scores[~lines.neutral]
    if not len(code_C):
        return np.zeros(len(lines.neutral))
    weight_C = np.exp((code_C.min() - code_C) / MIN_FORM_TEMPERATURE)
    return lines.placed(weight_C / weight_C.sum() * code_C)


def first_error(lines: ScoredLines) -> Array:
    """g_m = +1/T on code lines before the first with R_m < 0, −1/T on that line, 0 after it.

    After the idea of VPPO (arXiv 2601.18984), that a PRM says where the first error is and no more: the right prefix
    is rewarded, the first error penalised. Ours are the shares of T, that the penalty lies on the first wrong line
    alone (VPPO's on what comes after the mistake), and that passing responses are paid too, with their λ (VPPO: failed
    ones). The total lies in [−1/T, 1]. A short good start and an early stop earns all of it, as with `sum`; lines
    after the error cost nothing and dilute. Without `length_norm`, ±1.
    """
    wrong_C = lines.scores[~lines.neutral] < 0
    wrong_so_far_C = np.cumsum(wrong_C)
    reward_C = np.where(wrong_so_far_C == 0, 1.0, np.where(wrong_C & (wrong_so_far_C == 1), -1.0, 0.0))
    return lines.shared_out(lines.placed(reward_C))


def whole_program(lines: ScoredLines) -> Array:
    """g = R_O, an ORM's one score of the whole program: L is 1, and the "line" ends where the response does."""
    return lines.scores


LINE_REWARDS: dict[str, LineReward] = {
    "none": none,
    "sum": sum_over_lines,
    "progress": progress,
    "difference": difference,
    "redistribute": redistribute,
    "min-form": min_form,
    "first-error": first_error,
    "program": whole_program,
}
PAYS_LINES_OF: dict[str, tuple[bool, ...]] = {"none": (), "program": (), "redistribute": (False,)}
"""Of a form that cannot pay the lines of every response: the verdicts (passed) of those whose lines it can pay. What
`program` pays stands at the last token."""


def can_pay_lines(form: str, *, passed: bool, lambda_fail: float, lambda_pass: float) -> bool:
    """Whether some score gives a line of a response with this verdict a reward."""
    return passed in PAYS_LINES_OF.get(form, (False, True)) and bool(lambda_pass if passed else lambda_fail)


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
    start: float = 1.0,
) -> Array:
    """λ · g_L for one response.

    Args:
        form: a name in `LINE_REWARDS`.
        score_L: R(x, y^(≤m)) per line; ignored (may be empty) by `none`; of `program` one number.
        neutral_L: comment, blank and docstring lines.
        passed: the verdict; chooses λ.
        neutral_lines: False rewards comment lines as code lines are: the safeguard off.
        start: R_0 of `difference`, the score of the program without a line.
    """
    neutral = np.asarray(neutral_L, dtype=np.bool_) if neutral_lines else np.zeros(len(neutral_L), dtype=np.bool_)
    weight = lambda_pass if passed else lambda_fail
    lines = ScoredLines(
        scores=np.asarray(score_L, dtype=np.float64),
        neutral=neutral,
        passed=passed,
        length_norm=length_norm,
        start=start,
    )
    return weight * LINE_REWARDS[form](lines)


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
