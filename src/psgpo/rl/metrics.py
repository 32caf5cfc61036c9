"""What a step's rollouts say: pass rate, rewards by kind, and what a policy does that is paid for its lines. Pure.

# L code lines
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from psgpo.config import ArmSettings
from psgpo.lines import code_lines
from psgpo.rl.rollout import Rollout
from psgpo.syntax.noops import noop_lines

Metrics = dict[str, float]


def rollout_metrics(rollouts: Sequence[Rollout], line_reward_L: Sequence[np.ndarray], arm: ArmSettings) -> Metrics:
    """Means over the responses of a step; NaN for a mean over none.

    Args:
        line_reward_L: λ · g of every line of every rollout.

    Returns:
        Among others `reward_unit_test`, `reward_partial` and `reward_lines`, which add up to the reward before KL, and
        shares of lines: `comment_ratio` (neutral ones) and `blank_share` (of them, blank) of all lines, `noop_share`
        of the others.
    """
    passed_B = np.array([rollout.verdict.passed for rollout in rollouts])
    line_total_B = np.array([reward.sum() for reward in line_reward_L])
    partial_B = np.array([0.0 if rollout.verdict.passed else rollout.verdict.fraction for rollout in rollouts])
    lines = sum(len(rollout.neutral) for rollout in rollouts)
    neutral = sum(sum(rollout.neutral) for rollout in rollouts)
    by_problem: dict[str, bool] = defaultdict(bool)
    for rollout in rollouts:
        by_problem[rollout.problem.id] |= rollout.verdict.passed
    return {
        "pass_rate": float(passed_B.mean()),
        "all_fail_share": 1 - float(np.mean(list(by_problem.values()))),
        "reward_unit_test": arm.unit_test_reward * float(passed_B.mean()),
        "reward_partial": arm.partial_credit * float(partial_B.mean()),
        "reward_lines": float(line_total_B.mean()),
        "line_reward_pass": float(line_total_B[passed_B].mean()) if passed_B.any() else float("nan"),
        "line_reward_fail": float(line_total_B[~passed_B].mean()) if not passed_B.all() else float("nan"),
        "lines_per_response": lines / len(rollouts),
        "comment_ratio": neutral / max(1, lines),
        **_idle_shares(rollouts, lines, lines - neutral),
        "tokens_per_response": float(np.mean([len(rollout.token_ids) for rollout in rollouts])),
        "truncated_share": float(np.mean([not rollout.finished for rollout in rollouts])),
    }


def _idle_shares(rollouts: Sequence[Rollout], lines: int, code: int) -> Metrics:
    of_rollouts = [code_lines(rollout.text)[: len(rollout.neutral)] for rollout in rollouts]
    blank = sum(not line.text.strip() for of_one in of_rollouts for line in of_one)
    idle = sum(sum(noop_lines(of_one)) for of_one in of_rollouts)
    return {"blank_share": blank / max(1, lines), "noop_share": idle / max(1, code)}
