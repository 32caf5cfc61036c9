"""What PPO's tests share, whatever the policy is: a PRM, an arm, what came out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from psgpo.config import ArmSettings, LoraSettings, ModelSettings, RlSettings, SamplingSettings
from psgpo.execution import Sandbox
from psgpo.models import TokenValueModel, create_policy, prepare_training, train_tokenizer
from psgpo.problems.opchain import OpChain
from psgpo.prompts import build_prompt_ids
from psgpo.records import Problem
from psgpo.rl.ppo import PpoTrainer
from psgpo.rl.rollout import Rollout


class KilledError(Exception):
    """Stands for a kill."""


class EarlyLines:
    """A PRM that likes early lines; deterministic and easy to tell from no PRM."""

    def score(self, rollouts: Sequence[Rollout]) -> list[np.ndarray]:
        return [np.linspace(1.0, -0.5, len(rollout.line_ends)) for rollout in rollouts]


def dense(**changes: Any) -> ArmSettings:
    return ArmSettings(line_reward="sum", prm="oracle", **changes)


def weights(trainer: PpoTrainer) -> dict[str, torch.Tensor]:
    state = trainer.learner.state()
    networks = [name for name in ("policy", "critic") if name in state]
    return {f"{name}.{key}": value for name in networks for key, value in state[name].items()}


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]


RL = RlSettings(steps=2, prompts_per_step=8, checkpoints=1, policy_learning_rate=1e-2, value_fit_responses=24)


@dataclass
class World:
    """Six problems, a policy that knows nothing, a sandbox."""

    tokenizer: Any
    policy: Any
    prompts: list[tuple[Problem, tuple[int, ...]]]
    sandbox: Sandbox

    def fresh(self) -> Any:
        """The policy that every run starts from."""
        copy = create_policy(self.tokenizer, hidden_size=16, intermediate_size=16, num_attention_heads=2)
        copy.load_state_dict(self.policy.state_dict())
        return copy

    def trainer(
        self,
        out: Path,
        arm: ArmSettings,
        critic: TokenValueModel | None = None,
        *,
        rl: RlSettings = RL,
        dtype: str = "float32",
        lora: LoraSettings | None = None,
        engine: Any = None,
    ) -> PpoTrainer:
        fresh = self.fresh
        policy = fresh()
        prepare_training(policy, ModelSettings(lora=lora), seed=1)
        if rl.advantage == "gae":
            critic = critic or TokenValueModel.from_policy(fresh())
            prepare_training(critic, ModelSettings(lora=lora), seed=2)
        return PpoTrainer(
            policy=policy,
            reference=None if lora else fresh(),
            critic=critic,
            tokenizer=self.tokenizer,
            sandbox=self.sandbox,
            arm=arm,
            rl=rl,
            dtype=dtype,
            sampling=SamplingSettings(max_new_tokens=24),
            out=out,
            seed=3,
            scorer=None if arm.line_reward == "none" else EarlyLines(),
            engine=engine,
        )


@contextmanager
def small_world() -> Iterator[World]:
    problems = OpChain().problems("train", 6, (1, 2))
    tokenizer = train_tokenizer([f"# {p.prompt}\n{p.reference_solution}" for p in problems], 300)
    policy = create_policy(tokenizer, hidden_size=16, intermediate_size=16, num_attention_heads=2)
    prompts = [(problem, build_prompt_ids(tokenizer, "# {prompt}\n", problem)) for problem in problems]
    with Sandbox() as sandbox:
        yield World(tokenizer, policy, prompts, sandbox)
