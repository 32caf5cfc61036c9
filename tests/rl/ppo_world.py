"""What PPO's tests share, whatever the policy is: a PRM, an arm, what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from psgpo.config import ArmSettings
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
    return {
        f"{name}.{key}": value for name in ("policy", "critic") for key, value in trainer.learner.state()[name].items()
    }


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
