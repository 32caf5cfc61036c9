"""PPO with an encoder–decoder policy: the trainer is the one that decoders have."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from ppo_world import EarlyLines, KilledError, dense, metrics, weights
from seq2seq_world import code_tokenizer, tiny_seq2seq

from psgpo.config import ArmSettings, LoraSettings, ModelSettings, RlSettings, SamplingSettings
from psgpo.execution import Sandbox
from psgpo.models import TokenValueModel, load_policy, prepare_training
from psgpo.models.dropout import switch_off_dropout
from psgpo.problems.opchain import OpChain
from psgpo.prompts import build_prompt_ids
from psgpo.records import Problem
from psgpo.rl.ppo import PhaseClock, PpoTrainer
from psgpo.rl.rollout import Rollout

RL = RlSettings(steps=2, prompts_per_step=8, checkpoints=1, policy_learning_rate=3e-3, value_fit_responses=24)
WANTED = range(4, 100)
"""The tokens that the trivial problem rewards: a third of all."""


class WantedTokens:
    """The share of some tokens in a line: a problem that a random policy learns in a few steps."""

    def score(self, rollouts: Sequence[Rollout]) -> list[np.ndarray]:
        scores = []
        for rollout in rollouts:
            starts = (-1, *rollout.line_ends)[: len(rollout.line_ends)]
            lines = [rollout.token_ids[a + 1 : b + 1] for a, b in zip(starts, rollout.line_ends, strict=True)]
            scores.append(np.array([sum(token in WANTED for token in line) / max(1, len(line)) for line in lines]))
        return scores


@dataclass
class World:
    prompts: list[tuple[Problem, tuple[int, ...]]]
    sandbox: Sandbox

    def trainer(self, out: Path, arm: ArmSettings, *, name: str = "t5", **changes: Any) -> PpoTrainer:
        def fresh() -> Any:
            model = tiny_seq2seq(name)
            switch_off_dropout(model)  # as load_policy does
            return model

        lora: LoraSettings | None = changes.pop("lora", None)
        policy, critic = fresh(), TokenValueModel.from_policy(fresh())
        prepare_training(policy, ModelSettings(lora=lora), seed=1)
        prepare_training(critic, ModelSettings(lora=lora), seed=2)
        given: dict[str, Any] = {
            "policy": policy,
            "reference": None if lora else fresh(),
            "critic": critic,
            "tokenizer": code_tokenizer(),
            "sandbox": self.sandbox,
            "arm": arm,
            "rl": RL,
            "sampling": SamplingSettings(max_new_tokens=20),
            "out": out,
            "seed": 3,
            "scorer": None if arm.line_reward == "none" else EarlyLines(),
        }
        return PpoTrainer(**(given | changes))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    problems = OpChain().problems("train", 6, (1, 2))
    prompts = [(problem, build_prompt_ids(code_tokenizer(), "# {prompt}\n", problem)) for problem in problems]
    with Sandbox() as sandbox:
        yield World(prompts, sandbox)


@pytest.mark.parametrize("name", ["t5", "t5-1.1"])
def test_what_was_sampled_has_the_learners_logprobs(world: World, tmp_path: Path, name: str) -> None:
    trainer = world.trainer(tmp_path, dense(), name=name)
    rollouts = trainer._rollouts(0, world.prompts, PhaseClock())
    batch = trainer._batch(rollouts, trainer._line_rewards(rollouts))
    again = trainer.learner.ref_logprobs(batch)
    torch.testing.assert_close(again, batch.old_logprobs, rtol=1e-4, atol=1e-4)
    assert len({len(rollout.prompt_ids) for rollout in rollouts}) > 1
    assert not batch.mask[:, 0].any()


def test_lambda_zero_is_the_baseline_bit_for_bit(world: World, tmp_path: Path) -> None:
    baseline = world.trainer(tmp_path / "a", ArmSettings())
    without = world.trainer(tmp_path / "b", dense(lambda_fail=0.0, lambda_pass=0.0))
    rewarded = world.trainer(tmp_path / "c", dense())
    for trainer in (baseline, without, rewarded):
        trainer.train(world.prompts)
    ours, zero, paid = weights(baseline), weights(without), weights(rewarded)
    assert all(torch.equal(ours[key], zero[key]) for key in ours)
    assert not all(torch.equal(ours[key], paid[key]) for key in ours)


def test_micro_batches_learn_what_whole_minibatches_learn(world: World, tmp_path: Path) -> None:
    whole = world.trainer(tmp_path / "a", dense())
    parts = world.trainer(tmp_path / "b", dense(), rl=RL.model_copy(update={"microbatch_tokens": 120}))
    for trainer in (whole, parts):
        trainer.train(world.prompts)
    one, many = weights(whole), weights(parts)
    for key, value in one.items():
        # Adam's first steps have the size of the learning rate, whatever the gradient: 5 % of one.
        torch.testing.assert_close(value, many[key], rtol=1e-3, atol=1.5e-4)
    for mine, theirs in zip(metrics(tmp_path / "a"), metrics(tmp_path / "b"), strict=True):
        assert mine["policy_loss"] == pytest.approx(theirs["policy_loss"], rel=1e-3, abs=1e-5)


def test_a_run_goes_on_to_the_same_weights_and_the_reference_stays(world: World, tmp_path: Path) -> None:
    settings = {"rl": RL.model_copy(update={"steps": 3})}
    whole = world.trainer(tmp_path / "a", dense(), **settings)
    whole.train(world.prompts)
    start = tiny_seq2seq("t5").state_dict()
    assert whole.reference is not None
    assert all(torch.equal(value, start[key]) for key, value in whole.reference.state_dict().items())

    def kill(done: int, _total: int) -> None:
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        world.trainer(tmp_path / "b", dense(), **settings).train(world.prompts, progress=kill)
    again = world.trainer(tmp_path / "b", dense(), **settings)
    again.train(world.prompts)
    one, two = weights(whole), weights(again)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert metrics(tmp_path / "a")[2]["kl"] == metrics(tmp_path / "b")[2]["kl"] != 0.0
    saved, _ = load_policy(tmp_path / "b" / "model")
    assert all(torch.equal(value, again.policy.state_dict()[key]) for key, value in saved.state_dict().items())


def test_adapters_off_are_the_reference_and_are_saved_merged(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path, dense(), lora=LoraSettings(rank=4))
    plain = world.trainer(tmp_path / "plain", dense())
    trainer.train(world.prompts)
    rollouts = trainer._rollouts(5, world.prompts, PhaseClock())
    batch = trainer._batch(rollouts, trainer._line_rewards(rollouts))
    reference = trainer.learner.ref_logprobs(batch)
    torch.testing.assert_close(reference, plain.learner.ref_logprobs(batch), rtol=1e-4, atol=1e-4)
    assert float((reference - batch.old_logprobs).abs().max()) > 1e-3
    merged, tokenizer = load_policy(tmp_path / "model")
    inputs = {"input_ids": torch.tensor([[5, 6, 2]]), "decoder_input_ids": torch.tensor([[0, 7]])}
    torch.testing.assert_close(merged(**inputs).logits, trainer.policy(**inputs).logits, rtol=1e-4, atol=1e-4)
    assert tokenizer.eos_token_id == 2


def test_bfloat16_samples_and_learns_in_the_same_precision(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path, dense(), dtype="bfloat16")
    rollouts = trainer._rollouts(0, world.prompts, PhaseClock())
    batch = trainer._batch(rollouts, trainer._line_rewards(rollouts))
    off = (trainer.learner.ref_logprobs(batch) - batch.old_logprobs)[batch.mask.bool()].abs()
    assert 0 < float(off.mean()) < 0.05
    trainer.train(world.prompts)
    assert all(p.dtype == torch.float32 for p in trainer.policy.parameters())


def test_the_reward_rises_on_a_trivial_problem(world: World, tmp_path: Path) -> None:
    rl = RlSettings(
        steps=12, prompts_per_step=24, minibatches=2, checkpoints=1, policy_learning_rate=1e-2, kl_beta=0.0, epochs=2
    )
    arm = dense(lambda_fail=1.0, lambda_pass=1.0)
    sampling = SamplingSettings(max_new_tokens=6)
    trainer = world.trainer(tmp_path, arm, rl=rl, sampling=sampling, scorer=WantedTokens())
    trainer.train(world.prompts)
    reward = [row["reward_lines"] for row in metrics(tmp_path)]
    assert np.mean(reward[-3:]) > np.mean(reward[:3]) + 0.15
