"""Credit without a critic: numbers worked by hand, reductions to the papers' outcome forms, and PPO with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ppo_world import RL, KilledError, World, dense, metrics, small_world, weights

from psgpo.config import ArmSettings, parse_recipe
from psgpo.errors import UserError
from psgpo.records import Call, CallTests, Problem, Status, Verdict
from psgpo.rl.advantages import group_normalised, leave_one_out, returns_to_go
from psgpo.rl.ppo import PpoTrainer
from psgpo.rl.rollout import Rollout, rewarded_lines, rewarded_tokens, step_ends

GROUPS = RL.model_copy(update={"responses_per_prompt": 4, "prompts_per_step": 2, "steps": 2})


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with small_world() as made:
        yield made


def tensors(*rows: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


MASK = torch.tensor([[0.0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
"""Two groups of two; a prompt of one token; responses of 3, 1, 2 and 2."""


def test_returns_to_go_by_hand() -> None:
    reward, mask = tensors([[9.0, 1.0, 0.0, 2.0]], [[0.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(returns_to_go(reward, mask, gamma=0.5), torch.tensor([[0.0, 1.5, 1.0, 2.0]]))


def test_leave_one_out_by_hand() -> None:
    reward = torch.tensor([[0.0, 1, 0, 2], [0, 4, 0, 0], [0, 0, 1, 0], [0, 2, 0, 0]])
    # Returns 3 2 2 and 4; 1 1 and 2 0. The second response has ended: its last return stands for all later tokens.
    wanted = torch.tensor([[0.0, -1, -2, -2], [0, 1, 0, 0], [0, -1, 1, 0], [0, 1, -1, 0]])
    torch.testing.assert_close(leave_one_out(reward, MASK, group=2, gamma=1.0), wanted)


def test_one_reward_at_the_end_is_rloo_as_published() -> None:
    outcome_B, lengths_B = torch.tensor([1.0, 0.0, 0.0, 0.5, 1.0, 1.0]), torch.tensor([4, 2, 3, 1, 4, 2])
    mask = (torch.arange(4) < lengths_B[:, None]).float()
    reward = torch.zeros(6, 4)
    reward[torch.arange(6), lengths_B - 1] = outcome_B
    others_B = torch.tensor([0.0, 0.5, 0.5, 1.0, 0.75, 0.75])
    wanted = (outcome_B - others_B)[:, None] * mask
    torch.testing.assert_close(leave_one_out(reward, mask, group=3, gamma=1.0), wanted)


def test_one_step_at_the_end_is_grpo_with_outcome_supervision() -> None:
    steps = torch.tensor([[0.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    reward = steps * torch.tensor([[1.0], [0.0], [0.5], [0.5]])
    # Group one: mean .5, deviation .5. Group two does not vary and says nothing.
    wanted = torch.tensor([[1.0], [-1.0], [0.0], [0.0]]) * MASK
    torch.testing.assert_close(group_normalised(reward, steps, MASK, group=2, floor=0.1), wanted)


def test_steps_of_a_group_are_normalised_together_and_add_up_to_the_left() -> None:
    reward, steps = torch.zeros(4, 4), torch.zeros(4, 4)
    steps[0, [1, 3]] = steps[1, 1] = steps[2, [1, 2]] = steps[3, [1, 2]] = 1.0
    reward[0, 1], reward[0, 3], reward[1, 1] = 3.0, 0.0, 0.0  # mean 1, deviation √2
    reward[2, 2] = 0.01  # mean .0025, deviation .0043…: below the least one
    found = group_normalised(reward, steps, MASK, group=2, floor=0.1)
    root = 2**0.5
    torch.testing.assert_close(found[0], torch.tensor([0.0, 1 / root, -1 / root, -1 / root]))
    torch.testing.assert_close(found[1], torch.tensor([0.0, -1 / root, 0, 0]))
    torch.testing.assert_close(found[2], torch.tensor([0.0, 0.05, 0.075, 0]))
    torch.testing.assert_close(found[3], torch.tensor([0.0, -0.05, -0.025, 0]))
    exact = group_normalised(reward, steps, MASK, group=2, floor=0.0)
    assert exact[2, 2] == pytest.approx(3**0.5)


def test_a_group_that_earns_the_same_teaches_nothing() -> None:
    reward = MASK.clone()
    assert not group_normalised(reward, MASK, MASK, group=4, floor=0.0).any()
    # Partial credit for one of three tests: no mean of eight such float32 numbers is the number itself.
    steps = torch.zeros(16, 5)
    steps[torch.arange(16), torch.arange(16) % 5] = 1.0
    reward = steps * (0.25 / 3)
    reward[8, 3] *= 2  # the second group differs in one response
    for floor in (0.0, 0.1):
        found = group_normalised(reward, steps, torch.ones(16, 5), group=8, floor=floor)
        assert not found[:8].any()
        assert found[8:].any()
    even = torch.zeros(2, 3)
    even[:, 2] = 1.0
    assert not leave_one_out(even, torch.ones(2, 3), group=2, gamma=0.9).any()


@pytest.mark.parametrize("advantage", ["grpo", "rloo"])
@pytest.mark.parametrize("arm", [ArmSettings(), dense(lambda_fail=1.0)], ids=["outcome", "lines"])
def test_ppo_without_a_critic(world: World, tmp_path: Path, advantage: str, arm: ArmSettings) -> None:
    trainer = world.trainer(tmp_path, arm, rl=GROUPS.model_copy(update={"advantage": advantage, "kl_beta": 0.0}))
    assert trainer.critic is None
    trainer.train(world.prompts)
    rows = metrics(tmp_path)
    assert len(rows) == 2
    assert not {"value_loss", "explained_variance", "critic_learning_rate", "grad_norm_critic"} & rows[0].keys()
    assert rows[0]["learning_rate"] == GROUPS.policy_learning_rate
    start = world.policy.state_dict()
    moved = any(not torch.equal(value, start[key]) for key, value in trainer.policy.state_dict().items())
    # A policy that knows nothing passes nothing: only line rewards tell its responses apart.
    assert moved == (arm.line_reward != "none")


@pytest.mark.parametrize("advantage", ["grpo", "rloo"])
def test_lambda_zero_is_the_baseline_bit_for_bit(world: World, tmp_path: Path, advantage: str) -> None:
    rl = GROUPS.model_copy(update={"advantage": advantage, "kl_beta": 0.5})
    trained = []
    for name, arm in {"bare": ArmSettings(), "zero": dense(lambda_fail=0.0, lambda_pass=0.0)}.items():
        trainer = world.trainer(tmp_path / name, arm, rl=rl)
        trainer.train(world.prompts)
        trained.append(weights(trainer))
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


def test_an_interrupted_run_goes_on_to_the_same_weights(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rl = GROUPS.model_copy(update={"advantage": "rloo", "steps": 3})
    whole = world.trainer(tmp_path / "whole", dense(lambda_fail=1.0), rl=rl)
    whole.train(world.prompts)
    first = PpoTrainer.step

    def killed(self: PpoTrainer, step: int, *rest: object) -> object:
        if step == 2:
            raise KilledError
        return first(self, step, *rest)  # type: ignore[arg-type]

    one = world.trainer(tmp_path / "killed", dense(lambda_fail=1.0), rl=rl)
    with monkeypatch.context() as patched:
        patched.setattr(PpoTrainer, "step", killed)
        with pytest.raises(KilledError):
            one.train(world.prompts)
    again = world.trainer(tmp_path / "killed", dense(lambda_fail=1.0), rl=rl)
    again.train(world.prompts)
    ours, theirs = weights(whole), weights(again)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_steps_are_the_lines_that_can_be_paid_and_the_end(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path, dense())
    rollout = trainer._rollouts(0, world.prompts, lambda phase: None)[0]
    last = len(rollout.token_ids) - 1
    assert step_ends(rollout, ArmSettings()) == [last]
    assert step_ends(rollout, dense(lambda_fail=0.0, lambda_pass=0.0)) == [last]
    seen = {end for end, neutral in zip(rollout.line_ends, rollout.neutral, strict=True) if not neutral}
    assert set(step_ends(rollout, dense())) == seen | {last}
    assert set(step_ends(rollout, dense(neutral_lines=False))) == {*rollout.line_ends, last}


def response(lines: int, *, passed: bool = True) -> Rollout:
    """A response of `lines` code lines of one token each, and an end-of-sequence token."""
    tests = CallTests(function="f", calls=(Call(args=(1,), expected=1),))
    status = Status.PASSED if passed else Status.WRONG_ANSWER
    return Rollout(
        problem=Problem(id="p", prompt="p", tests=tests),
        prompt_ids=(0,),
        token_ids=(1,) * (lines + 1),
        logprobs=(0.0,) * (lines + 1),
        finished=True,
        text="x\n" * lines,
        line_ends=tuple(range(lines)),
        neutral=(False,) * lines,
        verdict=Verdict(status=status, tests_passed=int(passed), tests_total=1),
    )


@pytest.mark.parametrize(
    "arm",
    [
        dense(lambda_pass=0.0),
        ArmSettings(line_reward="redistribute", prm="oracle"),
        ArmSettings(line_reward="first-error", prm="oracle", lambda_pass=0.0),
    ],
    ids=["sum", "redistribute", "first-error"],
)
def test_passes_whose_lines_nothing_pays_are_worth_the_same_however_long(arm: ArmSettings) -> None:
    rollouts = [response(20), response(5), response(5, passed=False), response(3, passed=False)]
    assert [len(step_ends(rollout, arm)) for rollout in rollouts] == [1, 1, 6, 4]
    reward, steps, mask = (torch.zeros(4, 22) for _ in range(3))
    for b, rollout in enumerate(rollouts):
        score_L = np.linspace(1.0, -1.0, len(rollout.line_ends))
        of_tokens = rewarded_tokens(rollout, rewarded_lines(rollout, score_L, arm), arm)
        reward[b, 1 : 1 + len(of_tokens)] = torch.tensor(of_tokens)
        mask[b, 1 : 1 + len(of_tokens)] = 1.0
        steps[b, [1 + end for end in step_ends(rollout, arm)]] = 1.0
        assert set(of_tokens.nonzero()[0]) <= set(step_ends(rollout, arm))
    found = group_normalised(reward, steps, mask, group=4, floor=0.0)
    assert found[0, 1] == found[1, 1] > 0


def test_lines_of_failed_responses_are_no_steps_where_nothing_pays_them() -> None:
    arm = dense(lambda_fail=0.0)
    assert [len(step_ends(response(5, passed=passed), arm)) for passed in (True, False)] == [6, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rl": {"advantage": "grpo"}}, "rl.advantage = 'grpo' compares responses: set responses_per_prompt"),
        (
            {"arms": {"baseline": {}, "a": {"rl": {"advantage": "rloo"}}}},
            "arms.a.rl.advantage = 'rloo' compares responses",
        ),
        (
            {"rl": {"advantage": "rloo", "responses_per_prompt": 2, "critic_warmup": 1}},
            "has no critic; leave critic_warmup out",
        ),
        (
            {
                "rl": {"advantage": "grpo", "responses_per_prompt": 2},
                "prm": {"p": {"target": "sign"}},
                "arms": {"baseline": {}, "a": {"value_init": "p"}},
            },
            "arms.a.value_init starts a critic",
        ),
        (
            {
                "rl": {"advantage": "grpo", "responses_per_prompt": 2},
                "arms": {"baseline": {}, "a": {"value_map": "head"}},
            },
            "arms.a.value_map starts a critic",
        ),
    ],
)
def test_recipes_that_mix_critics_and_groups_are_refused(change: dict, words: str) -> None:
    table = {"name": "t", "out": "o", "problems": {"kind": "opchain"}, "arms": {"baseline": {}}}
    with pytest.raises(UserError) as caught:
        parse_recipe(table | change, origin="r")
    assert words in str(caught.value)
