"""Whole PPO trainings of two processes: as those of one, resumed by any number of them, saved as a folder like any."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metrics_world import without_times
from parallel_world import together
from psgpo.config import ArmSettings, LoraSettings, ModelSettings, RlSettings, SamplingSettings
from psgpo.execution import Sandbox
from psgpo.models import TokenValueModel, create_policy, load_policy, prepare_training, train_tokenizer
from psgpo.parallel.team import current_team
from psgpo.problems.opchain import OpChain
from psgpo.prompts import build_prompt_ids
from psgpo.rl.ppo import PpoTrainer
from psgpo.rl.rollout import Rollout

RL = RlSettings(steps=2, prompts_per_step=7, minibatches=1, checkpoints=1, value_fit_responses=20)
DENSE = ArmSettings(line_reward="sum", prm="oracle", value_init="sign")


class EarlyLines:
    """A PRM that likes early lines."""

    def score(self, rollouts: list[Rollout]) -> list[np.ndarray]:
        assert rollouts
        return [np.linspace(1.0, -0.5, len(rollout.line_ends)) for rollout in rollouts]


class KilledError(Exception):
    pass


def train(
    out: Path,
    sharded: bool,
    lora: bool,
    until: int | None = None,
    responses: int = 7,
    arm: ArmSettings = DENSE,
    advantage: str = "gae",
) -> None:
    """Train in this process, and those it is one of, until after step `until`."""
    problems = OpChain().problems("train", 6, (1, 2))
    tokenizer = train_tokenizer([f"# {p.prompt}\n{p.reference_solution}" for p in problems], 300)

    def fresh() -> Any:
        return create_policy(tokenizer, hidden_size=16, intermediate_size=16, num_attention_heads=2, seed=4)

    compute = ModelSettings(lora=LoraSettings(rank=4) if lora else None)
    policy, critic = fresh(), TokenValueModel.from_policy(fresh(), head_init="normal", seed=1)
    prepare_training(policy, compute, seed=1)
    prepare_training(critic, compute, seed=2)
    group = 1 if advantage == "gae" else 2
    changes = {"prompts_per_step": responses, "responses_per_prompt": group, "advantage": advantage}

    def stop(done: int, _total: int) -> None:
        if done == until:
            raise KilledError

    with Sandbox() as sandbox:
        trainer = PpoTrainer(
            policy=policy,
            reference=None if lora else fresh(),
            critic=critic if advantage == "gae" else None,
            tokenizer=tokenizer,
            sandbox=sandbox,
            arm=arm,
            rl=RL.model_copy(update=changes),
            sampling=SamplingSettings(max_new_tokens=24, batch_size=4),
            out=out,
            seed=3,
            scorer=EarlyLines(),
            team=replace(current_team(), sharded=sharded),
        )
        with suppress(KilledError):
            trainer.train([(p, build_prompt_ids(tokenizer, "# {prompt}\n", p)) for p in problems], progress=stop)


def same(row: dict[str, Any]) -> dict[str, Any]:
    """Equal but for the order of sums. The KL sums differences of numbers near 5, of which float32 leaves 1e-6 each."""
    rounding = {"kl": 5e-6}
    return {key: pytest.approx(v, rel=2e-4, abs=rounding.get(key, 1e-6), nan_ok=True) for key, v in row.items()}


@pytest.mark.parametrize("lora", [False, True])
def test_two_processes_train_what_one_trains(lora: bool, tmp_path: Path) -> None:
    train(tmp_path / "one", False, lora)
    # Begun by two that share the weights, ended by one that has them all.
    together(train, 2, tmp_path / "a", tmp_path / "parts", True, lora, 1)
    train(tmp_path / "parts", False, lora)
    names = ["parts"]
    if not lora:
        together(train, 2, tmp_path / "b", tmp_path / "two", False, lora)
        together(train, 2, tmp_path / "c", tmp_path / "shards", True, lora)
        names += ["two", "shards"]
    want = load_policy(tmp_path / "one" / "model")[0].state_dict()
    for name in names:
        rows = without_times(tmp_path / name)
        assert [row["step"] for row in rows] == [1, 2]
        for row, expected in zip(rows, without_times(tmp_path / "one"), strict=True):
            assert row == same(expected)
        got = load_policy(tmp_path / name / "model")[0].state_dict()
        worst = max(float((got[key] - value).abs().max()) for key, value in want.items())
        print(f"PPO, {name}{', adapters' if lora else ''}: weights differ by {worst:.1e} at most")
        assert worst < 2e-6
        assert (tmp_path / name / "checkpoints" / "step-2" / "config.json").is_file()


def test_a_process_may_have_no_response_of_a_step(tmp_path: Path) -> None:
    train(tmp_path / "one", False, False, None, 1)
    together(train, 2, tmp_path / "a", tmp_path / "shards", True, False, None, 1)
    together(train, 2, tmp_path / "b", tmp_path / "two", False, False, None, 1)
    want = [same(row) for row in without_times(tmp_path / "one")]
    assert without_times(tmp_path / "shards") == want
    assert without_times(tmp_path / "two") == want


@pytest.mark.parametrize(
    ("arm", "advantage"),
    [(DENSE.model_copy(update={"value_map": "head"}), "gae"), (DENSE.model_copy(update={"value_init": None}), "grpo")],
    ids=["fitted head", "no critic"],
)
def test_other_starts_and_other_credit_are_shared_too(arm: ArmSettings, advantage: str, tmp_path: Path) -> None:
    rest = (False, None, 3, arm, advantage)
    train(tmp_path / "one", False, *rest)
    want = load_policy(tmp_path / "one" / "model")[0].state_dict()
    rows = [same(row) for row in without_times(tmp_path / "one")]
    for sharded in (True, False):
        out = tmp_path / f"sharded {sharded}"
        together(train, 2, tmp_path / f"of {sharded}", out, sharded, *rest)
        assert without_times(out) == rows
        got = load_policy(out / "model")[0].state_dict()
        assert all(float((got[key] - value).abs().max()) < 2e-6 for key, value in want.items())
