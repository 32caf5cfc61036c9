"""What a step says of its rollouts, and partial test credit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pytest

from psgpo.config import ArmSettings
from psgpo.execution import Sandbox
from psgpo.lines import code_lines
from psgpo.prm import ScorerRecord
from psgpo.problems.programs import judged_lines
from psgpo.records import Call, CallTests, Completion, Problem, Status, Verdict
from psgpo.rl.metrics import rollout_metrics
from psgpo.rl.rollout import Rollout, TextLineScorer, judged_rollout, rewarded_lines, rewarded_tokens

TEXT = "def solve(x):\n\n    # note\n    x = x\n    return x\n"
DOUBLE = CallTests(function="solve", calls=tuple(Call(args=(n,), expected=2 * n) for n in (0, 1, 2, 3)))
HALF = ArmSettings(partial_credit=0.5)


def rollout(passed: int, text: str = TEXT, problem: str = "p") -> Rollout:
    """A response of which `passed` of 4 tests hold; one token a line."""
    lines = code_lines(text)
    status = Status.PASSED if passed == 4 else Status.WRONG_ANSWER
    return Rollout(
        problem=Problem(id=problem, prompt="", tests=DOUBLE),
        prompt_ids=(1,),
        token_ids=tuple(range(len(lines))),
        logprobs=(0.0,) * len(lines),
        finished=True,
        text=text,
        line_ends=tuple(range(len(lines))),
        neutral=tuple(line.neutral for line in lines),
        verdict=Verdict(status=status, tests_passed=passed, tests_total=4),
    )


def test_a_failed_response_is_paid_for_the_tests_that_hold() -> None:
    lines = np.zeros(5)
    assert rewarded_tokens(rollout(1), lines, HALF).tolist() == [0, 0, 0, 0, 0.125]
    assert rewarded_tokens(rollout(4), lines, HALF).tolist() == [0, 0, 0, 0, 1.0]
    assert rewarded_tokens(rollout(1), lines, ArmSettings()).tolist() == [0.0] * 5


def test_the_sandbox_runs_every_test_whatever_fails() -> None:
    with Sandbox() as sandbox:
        wrong, stuck = sandbox.grade(
            [
                ("def solve(x):\n    return 1 if x == 0 else 2 * x\n", DOUBLE),
                ("def solve(x):\n    if x == 0:\n        raise ValueError\n    return 2 * x\n", DOUBLE),
            ]
        )
    assert (wrong.passed, wrong.fraction) == (False, 0.75)
    assert (stuck.passed, stuck.fraction) == (False, 0.75)
    judged = dataclasses.replace(rollout(0), verdict=wrong)
    assert rewarded_tokens(judged, np.zeros(5), HALF)[-1] == 0.375


def test_rewards_by_kind_add_up() -> None:
    rollouts = [rollout(4), rollout(2), rollout(0, problem="q")]
    lines = [np.full(5, 0.01), np.full(5, 0.02), np.full(5, -0.01)]
    found = rollout_metrics(rollouts, lines, HALF)
    assert found["reward_unit_test"] == pytest.approx(1 / 3)
    assert found["reward_partial"] == pytest.approx(0.25 / 3)
    assert found["reward_lines"] == pytest.approx(0.1 / 3)
    paid = [rewarded_tokens(one, line, HALF).sum() for one, line in zip(rollouts, lines, strict=True)]
    assert sum(paid) / 3 == pytest.approx(found["reward_unit_test"] + found["reward_partial"] + found["reward_lines"])
    assert found["all_fail_share"] == 0.5


def test_shares_of_lines_that_say_or_do_nothing() -> None:
    found = rollout_metrics([rollout(0), rollout(0, "def solve(x):\n    return x\n")], [np.zeros(5), np.zeros(2)], HALF)
    assert found["lines_per_response"] == 3.5
    assert found["comment_ratio"] == pytest.approx(2 / 7)
    assert found["blank_share"] == pytest.approx(1 / 7)
    assert found["noop_share"] == pytest.approx(1 / 5)
    empty = rollout_metrics([rollout(0, "")], [np.zeros(0)], HALF)
    assert (empty["comment_ratio"], empty["blank_share"], empty["noop_share"]) == (0.0, 0.0, 0.0)


class ScoresEveryLine:
    """A PRM of texts: line m scores m/10."""

    record = ScorerRecord(kind="encoder", scope="line", target="sign", prompt_template="", threshold=0.0)

    def readable(self, problem: str, code: str) -> bool:
        return True

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        return [np.arange(1, len(code_lines(text)) + 1) / 10 for _, text in pairs]


@pytest.mark.parametrize("starter", ["def solve(x):\n", ""])
def test_what_follows_a_continued_function_is_neither_judged_nor_paid(starter: str) -> None:
    text = "    # note\n    return 2 * x\n\nprint(solve(3))\nx = 1\n"
    ends = list(accumulate(len(line) for line in text.splitlines(keepends=True)))  # one token a line
    problem = Problem(id="p", prompt="", tests=DOUBLE, starter_code=starter)
    completion = Completion(token_ids=tuple(range(5)), logprobs=(0.0,) * 5, finished=True)
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=4)
    judged = judged_rollout(problem, (1,), completion, text, ends, verdict)
    assert judged_lines(problem, text) == code_lines(text)[: len(judged.line_ends)]
    assert (judged.line_ends, judged.neutral) == (
        ((0, 1, 2), (True, False, True)) if starter else (tuple(range(5)), (True, False, True, False, False))
    )
    (scores,) = TextLineScorer(ScoresEveryLine()).score([judged])
    assert scores.tolist() == [0.1, 0.2, 0.3] if starter else [0.1, 0.2, 0.3, 0.4, 0.5]
    arm = ArmSettings(line_reward="sum", prm="p")
    paid = rewarded_tokens(judged, rewarded_lines(judged, scores, arm), arm)
    assert len(paid) == 5
    assert (paid[3:] == 0).all() == bool(starter)
