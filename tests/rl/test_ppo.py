"""PPO for real, small: λ = 0 is the baseline bit for bit, rewards move the policy, ValueInit maps as documented."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ppo_world import RL, KilledError, World, dense, metrics, small_world, weights

from psgpo import training
from psgpo.config import ArmSettings, LoraSettings
from psgpo.models import TokenValueModel, load_policy
from psgpo.records import Completion
from psgpo.rl.head_fit import RIDGE, Moments
from psgpo.rl.ppo import HEAD_FILE, PhaseClock
from psgpo.sampling import HFSampler
from psgpo.training import ResumableLog


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with small_world() as made:
        yield made


def test_lambda_zero_is_the_baseline_bit_for_bit(world: World, tmp_path: Path) -> None:
    baseline = world.trainer(tmp_path / "a", ArmSettings())
    baseline.train(world.prompts)
    without = world.trainer(tmp_path / "b", dense(lambda_fail=0.0, lambda_pass=0.0))
    without.train(world.prompts)
    with_reward = world.trainer(tmp_path / "c", dense())
    with_reward.train(world.prompts)
    ours, zero, paid = weights(baseline), weights(without), weights(with_reward)
    assert all(torch.equal(ours[key], zero[key]) for key in ours)
    assert not all(torch.equal(ours[key], paid[key]) for key in ours)


def test_learning_moves_the_policy_and_never_the_reference(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path, dense())
    trainer.train(world.prompts)
    start = world.policy.state_dict()
    assert all(torch.equal(value, start[key]) for key, value in trainer.reference.state_dict().items())
    assert any(not torch.equal(value, start[key]) for key, value in trainer.policy.state_dict().items())
    assert (tmp_path / "checkpoints" / "step-2" / "config.json").is_file()


def test_a_policy_that_has_not_moved_needs_no_reference(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer(tmp_path, dense(), rl=RL.model_copy(update={"critic_warmup": 1, "steps": 4}))
    calls: list[float] = []
    forward = trainer.learner.ref_logprobs

    def spy(batch: Any) -> Any:
        found = forward(batch)
        calls.append(float((batch.old_logprobs - found).abs().max()))
        return found

    monkeypatch.setattr(trainer.learner, "ref_logprobs", spy)
    trainer.train(world.prompts)
    kl = [row["kl"] for row in metrics(tmp_path)]
    assert kl[:2] == [0.0, 0.0]  # the critic's step, and the policy's first
    assert len(calls) == 2
    assert all(value > 0.01 for value in calls)


def test_without_a_kl_penalty_there_is_no_reference(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer(tmp_path, dense(), rl=RL.model_copy(update={"kl_beta": 0.0, "steps": 3}))
    monkeypatch.setattr(trainer.learner, "ref_logprobs", lambda batch: pytest.fail("the reference was asked"))
    trainer.train(world.prompts)
    rows = metrics(tmp_path)
    assert all("kl" not in row and row["kl_penalty"] == 0 for row in rows)
    assert all(row["reward_total"] == pytest.approx(row["reward_lines"] + row["reward_unit_test"]) for row in rows)


def test_a_step_says_how_far_its_updates_moved_the_policy(world: World, tmp_path: Path) -> None:
    rl = RL.model_copy(update={"steps": 1, "minibatches": 1, "epochs": 1})
    world.trainer(tmp_path / "once", dense(), rl=rl).train(world.prompts)
    world.trainer(tmp_path / "twice", dense(), rl=rl.model_copy(update={"epochs": 2})).train(world.prompts)
    (once,), (twice,) = metrics(tmp_path / "once"), metrics(tmp_path / "twice")
    # What the sampler says and what the update computes are the same policy until the first update.
    assert once["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert once["ratio_max"] == pytest.approx(1, abs=1e-3)
    assert twice["approx_kl"] > 1e-4
    assert twice["ratio_max"] > 1.01


def test_micro_batches_learn_what_whole_minibatches_learn(world: World, tmp_path: Path) -> None:
    whole = world.trainer(tmp_path / "a", dense())
    parts = world.trainer(tmp_path / "b", dense(), rl=RL.model_copy(update={"microbatch_tokens": 60}))
    whole.train(world.prompts)
    parts.train(world.prompts)
    one, many = weights(whole), weights(parts)
    for key, value in one.items():
        # Adam's first steps have the size of the learning rate, whatever the gradient: 1 % of one.
        torch.testing.assert_close(value, many[key], rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(metrics(tmp_path / "a"), metrics(tmp_path / "b"), strict=True):
        assert mine["policy_loss"] == pytest.approx(theirs["policy_loss"], rel=1e-4, abs=1e-6)


def test_bfloat16_samples_and_learns_in_the_same_precision(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer(tmp_path, dense(), dtype="bfloat16")
    rollouts = trainer._rollouts(0, world.prompts, PhaseClock())
    batch = trainer._batch(rollouts, trainer._line_rewards(rollouts))
    off = (trainer.learner.ref_logprobs(batch) - batch.old_logprobs)[batch.mask.bool()].abs()
    assert 0 < float(off.mean()) < 0.02
    updated: list[bool] = []
    update = trainer.learner.update

    def spy(step: int, batch: Any, targets: Any) -> Any:
        updated.append(torch.equal(batch.old_logprobs, trainer.learner.policy_logprobs(batch)))
        return update(step, batch, targets)

    monkeypatch.setattr(trainer.learner, "update", spy)
    trainer.train(world.prompts)
    assert updated == [True] * RL.steps  # ratios start at 1, however the tokens were drawn
    assert all(0 < row["engine_logprob_gap"] < 0.02 for row in metrics(tmp_path))
    assert all(p.dtype == torch.float32 for p in trainer.policy.parameters())
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_schedule_scales_both_rates_and_resumes_exactly(world: World, tmp_path: Path) -> None:
    settings = RL.model_copy(update={"steps": 4, "schedule": "linear", "warmup": 0.5})
    whole = world.trainer(tmp_path / "a", dense(), rl=settings)
    whole.train(world.prompts)

    def kill(done: int, _total: int) -> None:
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        world.trainer(tmp_path / "b", dense(), rl=settings).train(world.prompts, progress=kill)
    again = world.trainer(tmp_path / "b", dense(), rl=settings)
    again.train(world.prompts)
    for run in "ab":
        rows = metrics(tmp_path / run)
        assert [row["learning_rate"] for row in rows] == [0.005, 0.01, 0.01, 0.005]
        assert [row["critic_learning_rate"] for row in rows] == [0.0005, 0.001, 0.001, 0.0005]
    one, two = weights(whole), weights(again)
    assert all(torch.equal(one[key], two[key]) for key in one)
    constant = world.trainer(tmp_path / "c", dense(), rl=RL.model_copy(update={"steps": 4}))
    constant.train(world.prompts)
    assert {row["learning_rate"] for row in metrics(tmp_path / "c")} == {RL.policy_learning_rate}
    moved = weights(constant)
    assert not all(torch.equal(one[key], moved[key]) for key in one)


def test_steps_that_take_long_are_not_done_again_after_a_kill(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 30 steps every third is saved; where the last state is always too old, each."""
    settings = RL.model_copy(update={"steps": 30})

    def kill(done: int, _total: int) -> None:
        if done == 2:
            raise KilledError

    for seconds, saved in ((1e9, 0), (0.0, 2)):
        monkeypatch.setattr(training, "SAVE_SECONDS", seconds)
        monkeypatch.setattr(training, "SAVE_SHARE", 0)
        out = tmp_path / str(saved)
        with pytest.raises(KilledError):
            world.trainer(out, dense(), rl=settings).train(world.prompts, progress=kill)
        assert ResumableLog(out).step == saved


def test_adapters_resume_to_the_same_policy_and_are_saved_merged(world: World, tmp_path: Path) -> None:
    lora = LoraSettings(rank=4)
    settings = RL.model_copy(update={"steps": 3})
    whole = world.trainer(tmp_path / "a", dense(), rl=settings, lora=lora)
    whole.train(world.prompts)

    def kill(done: int, _total: int) -> None:
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        world.trainer(tmp_path / "b", dense(), rl=settings, lora=lora).train(world.prompts, progress=kill)
    again = world.trainer(tmp_path / "b", dense(), rl=settings, lora=lora)
    again.train(world.prompts)
    one, two = weights(whole), weights(again)
    assert all("lora_" in key or "score" in key for key in one)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert metrics(tmp_path / "b")[2]["kl"] == metrics(tmp_path / "a")[2]["kl"] != 0.0
    merged, _ = load_policy(tmp_path / "b" / "model")
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(merged(ids).logits, again.policy(ids).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(merged(ids).logits, world.policy(ids).logits, atol=1e-3)


def prm(world: World) -> TokenValueModel:
    return TokenValueModel.from_policy(world.policy, head_init="normal", seed=1)


@pytest.mark.parametrize(("value_map", "scale", "shift"), [("identity", 1.0, 0.0), ("probability", 0.5, 0.5)])
def test_fixed_value_maps(world: World, tmp_path: Path, value_map: Any, scale: float, shift: float) -> None:
    trainer = world.trainer(tmp_path, ArmSettings(value_init="sign", value_map=value_map), prm(world))
    ids = torch.tensor([[5, 6, 7, 8]])
    before = trainer.critic(ids).detach()
    assert trainer._map_values(world.prompts) == {"value_scale": scale, "value_shift": shift}
    torch.testing.assert_close(trainer.critic(ids).detach(), scale * before + shift)


def test_the_fitted_map_is_the_least_squares_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer(tmp_path, dense(value_init="sign"), prm(world))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    batches = trainer._batch

    def spy(rollouts: Any, rewards: Any) -> Any:
        batch = batches(rollouts, rewards)
        chosen = batch.mask.bool()
        to_go = batch.rewards.flip(1).cumsum(1).flip(1)
        seen.append((trainer.learner.values(batch)[chosen].detach(), to_go[chosen]))
        return batch

    monkeypatch.setattr(trainer, "_batch", spy)
    found = trainer._map_values(world.prompts)
    score, to_go = (torch.cat(parts).double().numpy() for parts in zip(*seen, strict=True))
    slope, shift = np.polyfit(score, to_go, 1)
    assert found["value_scale"] == pytest.approx(slope, rel=1e-4)
    assert found["value_shift"] == pytest.approx(shift, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("value_init", ["sign", None])
def test_a_fitted_head_is_ridge_regression_on_what_the_trunk_sees(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value_init: str | None
) -> None:
    arm = dense(value_init=value_init, value_map="head")
    trainer = world.trainer(tmp_path, arm, prm(world) if value_init else None)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    batches = trainer._batch

    def spy(rollouts: Any, rewards: Any) -> Any:
        batch = batches(rollouts, rewards)
        chosen = batch.mask.bool()[:, 1:]
        trunk = trainer.critic.classifier.base_model
        with torch.no_grad():
            state_BSD = trunk(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        seen.append((state_BSD[:, :-1][chosen], batch.rewards.flip(1).cumsum(1).flip(1)[:, 1:][chosen]))
        return batch

    monkeypatch.setattr(trainer, "_batch", spy)
    found = trainer._map_values(world.prompts)
    state_ND, return_N = (torch.cat(parts).double().numpy() for parts in zip(*seen, strict=True))
    centred = state_ND - state_ND.mean(0)
    held = RIDGE * (state_ND**2).mean() * len(state_ND) * np.eye(state_ND.shape[1])
    weight = np.linalg.solve(centred.T @ centred + held, centred.T @ (return_N - return_N.mean()))
    bias = return_N.mean() - weight @ state_ND.mean(0)
    np.testing.assert_allclose(trainer.critic.head.weight.detach()[0].numpy(), weight, rtol=2e-3, atol=1e-4)
    assert float(trainer.critic.head.bias) == pytest.approx(bias, rel=1e-3, abs=1e-4)
    error = state_ND @ weight + bias - return_N
    assert found["value_fit_explained"] == pytest.approx(1 - (error**2).sum() / len(error) / return_N.var(), abs=1e-4)
    written = json.loads((tmp_path / HEAD_FILE).read_text())
    np.testing.assert_allclose(written["weight"], weight, rtol=2e-3, atol=1e-4)


def test_moments_add_up_and_know_what_cannot_be_explained() -> None:
    generator = torch.Generator().manual_seed(0)
    state_ND, return_N = torch.randn(40, 3, generator=generator), torch.randn(40, generator=generator)
    whole = Moments.of(state_ND, return_N)
    parts = Moments.none(3) + Moments.of(state_ND[:7], return_N[:7]) + Moments.of(state_ND[7:], return_N[7:])
    weight_D, bias = whole.solve()
    torch.testing.assert_close(parts.solve()[0], weight_D)
    assert parts.explained(weight_D, bias) == pytest.approx(whole.explained(weight_D, bias))
    constant = Moments.of(state_ND, torch.full((40,), 2.0))
    flat_D, two = constant.solve()
    assert flat_D.abs().max() < 1e-9
    assert two == pytest.approx(2.0)
    assert math.isnan(constant.explained(flat_D, two))
    assert Moments.none(3).solve()[1] == 0.0


class StrangerEngine:
    """Draws as the policy does and tells log-probabilities that are off, as other kernels do."""

    OFF = 0.25

    def __init__(self, world: World) -> None:
        self.model, self.taken = world.fresh(), 0
        self._sampler = HFSampler(self.model, world.tokenizer)

    def take_weights(self, policy: Any) -> None:
        self.model.load_state_dict(policy.state_dict())
        self.taken += 1

    def sample(self, *arguments: Any, **options: Any) -> list[Completion]:
        drawn = self._sampler.sample(*arguments, **options)
        return [replace(c, logprobs=tuple(value - self.OFF for value in c.logprobs)) for c in drawn]


def test_an_engine_draws_and_the_policy_says_how_likely_it_was(world: World, tmp_path: Path) -> None:
    rl = RL.model_copy(update={"steps": 3})
    alone = world.trainer(tmp_path / "alone", dense(), rl=rl)
    alone.train(world.prompts)
    engine = StrangerEngine(world)
    trainer = world.trainer(tmp_path / "engine", dense(), rl=rl, engine=engine)
    trainer.train(world.prompts)
    assert engine.taken == rl.steps
    rows, plain = metrics(tmp_path / "engine"), metrics(tmp_path / "alone")
    for row, other in zip(rows, plain, strict=True):
        assert "engine_logprob_gap" not in other
        assert row["engine_logprob_gap"] == pytest.approx(engine.OFF, abs=1e-4)
        # The engine's own numbers would make every ratio exp(0.25): beyond the clip, and a KL where there is none.
        for key in ("kl", "clip_fraction", "policy_loss", "reward_total"):
            assert row[key] == pytest.approx(other[key], abs=1e-4)
    for key, value in weights(alone).items():
        torch.testing.assert_close(weights(trainer)[key], value, rtol=0, atol=2e-3)


def test_values_are_fitted_on_an_engines_responses(world: World, tmp_path: Path) -> None:
    arm = ArmSettings(value_init="prm")
    alone, drawn, start = prm(world), prm(world), prm(world)
    world.trainer(tmp_path / "a", arm, alone).first_critic(world.prompts)
    world.trainer(tmp_path / "b", arm, drawn, engine=StrangerEngine(world)).first_critic(world.prompts)
    assert torch.equal(alone.head.weight, drawn.head.weight)
    assert not torch.equal(alone.head.weight, start.head.weight)
