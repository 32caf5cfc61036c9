"""PRLCoder's reward as settings of an arm: numbers worked by hand, of whole PPO steps too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psgpo.config import ArmSettings, RlSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.models import TokenValueModel, create_policy, train_tokenizer
from psgpo.records import AssertTests, Completion, Problem, Status, Verdict
from psgpo.rl.learner import Batch
from psgpo.rl.ppo import PpoTrainer
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


TEXT = "a=1\nb=2\n"
"""Two lines; every character is a token, and an end-of-sequence token follows: T_1 = 3, T_2 = 7, T = 8."""
LOG_RATIO = {0: 0.5, 3: 1.0, 8: -0.25}
"""log π_θ − log π_old where it is not 0."""


class Scripted:
    """Sampler, sandbox and scorer at once: what each says is written down."""

    def __init__(self, tokenizer: Any, scores: list[list[float]]) -> None:
        self.ids = (*tokenizer(TEXT, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        self.scores = [np.array(score) for score in scores]

    def sample(self, prefixes: Sequence[Sequence[int]], **_: Any) -> list[Completion]:
        return [Completion(token_ids=self.ids, logprobs=(-1.0,) * len(self.ids), finished=True) for _ in prefixes]

    def grade(self, programs: Sequence[Any]) -> list[Verdict]:
        return [Verdict(status=Status.PASSED, tests_passed=1, tests_total=1) for _ in programs]

    def score(self, rollouts: Sequence[Rollout]) -> list[np.ndarray]:
        return self.scores[: len(rollouts)]


def stepped(
    arm: ArmSettings, scores: list[list[float]], out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], list[list[float]]]:
    """One PPO step with a response per score: (its metrics, the reward of every response's tokens)."""
    tokenizer = train_tokenizer(["x"], 258)  # bytes alone
    scripted = Scripted(tokenizer, scores)
    policy, reference = (create_policy(tokenizer, hidden_size=16, num_attention_heads=2) for _ in range(2))
    trainer = PpoTrainer(
        policy=policy,
        reference=reference,
        critic=TokenValueModel.from_policy(policy),
        tokenizer=tokenizer,
        sandbox=scripted,  # type: ignore[arg-type]
        arm=arm,
        rl=RlSettings(prompts_per_step=len(scores), minibatches=1, kl_beta=0.2),
        sampling=SamplingSettings(max_new_tokens=9),
        out=out,
        seed=0,
        scorer=scripted,
    )
    trainer.sampler = scripted  # type: ignore[assignment]
    prompt = (5, 6)

    def reference_logprobs(batch: Batch) -> torch.Tensor:
        logprobs = batch.old_logprobs.clone()
        for token, ratio in LOG_RATIO.items():
            logprobs[:, len(prompt) + token] -= ratio
        return logprobs

    rewards: list[torch.Tensor] = []
    targets = trainer._targets

    def spy(rollouts: Sequence[Rollout], batch: Batch, reward_BS: torch.Tensor) -> Any:
        rewards.append(reward_BS)
        return targets(rollouts, batch, reward_BS)

    monkeypatch.setattr(trainer.learner, "ref_logprobs", reference_logprobs)
    monkeypatch.setattr(trainer, "_targets", spy)
    problem = Problem(id="p", prompt="", tests=AssertTests(entry_point="f", checks=("assert f()",)))
    metrics = trainer.step(1, [(problem, prompt)])  # in step 0 the policy still is its reference
    return metrics, rewards[0][:, len(prompt) :].tolist()


def test_a_step_pays_lines_where_they_end_and_takes_the_log_ratio_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """r_t = Σ_i R_P(d, w_i) · 1[t = T_i] − β · log(π_θ / π_old), worked by hand with β = 0.2."""
    metrics, (reward_T,) = stepped(PRM_ARM, [[0.5, -0.75]], tmp_path, monkeypatch)
    assert reward_T == pytest.approx([-0.1, 0, 0, 0.3, 0, 0, 0, -0.75, 0.05])
    assert metrics["reward_total"] == pytest.approx(-0.5)
    assert metrics["kl"] == pytest.approx(1.25)
    assert metrics["unread_share"] == 0.0


def test_a_step_pays_an_orm_at_the_last_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """r_t = R_O(d, w) · 1[t = T] − β · log(π_θ / π_old), worked by hand with β = 0.2."""
    metrics, (reward_T,) = stepped(ORM_ARM, [[0.5]], tmp_path, monkeypatch)
    assert reward_T == pytest.approx([-0.1, 0, 0, -0.2, 0, 0, 0, 0, 0.55])
    assert metrics["reward_total"] == pytest.approx(0.25)


def test_a_step_says_how_many_responses_the_prm_could_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = float("nan")
    metrics, (_, unread_T) = stepped(PRM_ARM, [[0.5, -0.75], [nan, nan]], tmp_path, monkeypatch)
    assert unread_T == pytest.approx([-0.1, 0, 0, -1.2, 0, 0, 0, -1.0, 0.05])
    assert metrics["unread_share"] == 0.5


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
