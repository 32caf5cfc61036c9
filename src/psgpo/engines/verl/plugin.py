"""What verl loads in each of its processes (`VERL_USE_EXTERNAL_MODULES=psgpo.engines.verl.plugin`). No file of verl is
changed: everything here is registered under the name `psgpo` in a registry that verl offers.

verl 0.9.1 carries one number per response from its reward manager to the last token. Here the manager adds the rewards
of all tokens to what it reports (`DENSE`), and the output of the agent loop unpacks them into `rm_scores`, which verl
reads token by token from there on: KL penalty, GAE, metrics.

# B responses, T response tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import torch
import transfer_queue as tq
from numpy.typing import NDArray
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl import DataProto
from verl.experimental.agent_loop import agent_loop
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput
from verl.experimental.reward_loop import reward_manager
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils.profiler import simple_timer
from verl.workers.utils.padding import response_to_nested

from psgpo.engines.pooling import PoolingScorer
from psgpo.engines.verl.judge import Judge, Score, in_thread
from psgpo.engines.verl.settings import VerlSettings
from psgpo.execution import Sandbox
from psgpo.models import load_tokenizer
from psgpo.prm.score import PrmScorer
from psgpo.rl.advantages import gae, whiten
from psgpo.rl.rollout import PrmLineScorer, Rollout, open_line_scorer

NAME = "psgpo"
DENSE = "psgpo_token_rewards"
"""Key of the rewards of all tokens in a manager's `reward_extra_info`."""


def settings_of(config: Any) -> tuple[VerlSettings, Path]:
    """The settings of an export, and its PRM's folder."""
    file = Path(config.psgpo.settings)
    return VerlSettings.load(file), file.parent / "prm"


@reward_manager.register(NAME)
class LineRewardManager(RewardManagerBase):
    """Judges every response as it comes: tests in this worker's sandbox, lines by the PRM."""

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        settings, prm = settings_of(config)
        self.sandbox = Sandbox(
            workers=settings.sandbox.workers or settings.sandbox_workers, **settings.sandbox.limits()
        )
        self._judge = Judge(settings.arm, tokenizer, self.sandbox, line_scores(settings, prm, tokenizer, self.sandbox))

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """verl's call: one response. Its numbers besides `DENSE` end in verl's validation metrics."""
        item = data[-1:][0]
        prompt_ids, response_ids = (_real_ids(item, key) for key in ("prompts", "responses"))
        ground_truth = item.non_tensor_batch["reward_model"]["ground_truth"]
        judged = await self._judge.judge(ground_truth, prompt_ids, response_ids)
        return {
            "reward_score": float(judged.token_rewards.sum()),
            "reward_extra_info": {
                "acc": float(judged.rollout.verdict.passed),
                "line_reward": float(judged.line_rewards.sum()),
                "lines": len(judged.rollout.line_ends),
                DENSE: judged.token_rewards.tolist(),
            },
        }


class LineRewardOutput(AgentLoopOutput):
    """An agent loop's output whose reward is spread over its tokens."""

    def as_dict(self) -> dict[str, Any]:
        """verl's dictionary, with the manager's token rewards as `rm_scores`."""
        info = self.extra_fields.get("reward_extra_info") or {}
        # Out of the metrics: verl averages every entry that is left, and this one is a list.
        reward_T = info.pop(DENSE, None)
        fields: dict[str, Any] = super().as_dict()
        if reward_T is not None:
            assert len(reward_T) == len(fields["responses"])
            fields["rm_scores"] = torch.tensor(reward_T, dtype=torch.float32)
        return fields


@agent_loop.register(NAME)
class PromptIdsLoop(AgentLoopBase):
    """One response to the prompt ids of the data, which are those that psgpo trains and scores on.

    verl's own loop puts prompts through the tokenizer's chat template; a recipe's template is already applied here.
    """

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> LineRewardOutput:
        """verl's call: sample one response."""
        prompt_ids = [int(token) for token in kwargs["extra_info"]["prompt_ids"]]
        metrics: dict[str, Any] = {}
        with simple_timer("generate_sequences", metrics):
            output = await self.server_manager.generate(
                request_id=uuid4().hex, prompt_ids=prompt_ids, sampling_params=sampling_params, priority=int(priority)
            )
        metrics["num_preempted"] = -1 if output.num_preempted is None else output.num_preempted
        response_ids = list(output.token_ids)[: self.rollout_config.response_length]
        logprobs = list(output.log_probs)[: len(response_ids)] if output.log_probs else None
        return LineRewardOutput(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            response_mask=[1] * len(response_ids),
            response_logprobs=logprobs,
            num_turns=2,
            metrics=metrics,
            extra_fields={**output.extra_fields, "turn_scores": [], "tool_rewards": []},
        )


@register_trainer(NAME)
class LineRewardTrainer(PPOTrainerSync):
    """verl's synchronous PPO with psgpo's advantages: verl whitens always, and without a least deviation."""

    @property
    def trainer_mode(self) -> str:
        """verl decides by this name how it feeds the rollout; here as its trainer `sync` does."""
        return "sync"

    @trainer_mode.setter
    def trainer_mode(self, _: str) -> None:
        pass

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        rl = settings_of(self.config)[0].rl
        # Without KL in the reward, verl writes no `token_level_rewards`.
        paid = "token_level_rewards" if self.config.algorithm.use_kl_in_reward else "rm_scores"
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask", "values", paid]
        )
        nested_mask = data["response_mask"]
        padded = data.to_padded_tensor()
        mask_BT = padded["response_mask"]
        advantage_BT, return_BT = gae(
            padded[paid].float(), padded["values"].float(), mask_BT, gamma=rl.gamma, lam=rl.gae_lambda
        )
        if rl.whiten_advantages:
            advantage_BT = whiten(advantage_BT, mask_BT, floor=rl.whiten_floor)
        fields = {
            "advantages": response_to_nested(advantage_BT, nested_mask),
            "returns": response_to_nested(return_BT, nested_mask),
        }
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
        )


class PrmActor:
    """The PRM of all reward workers, in one process of its own."""

    def __init__(self, prm: str, policy: str, device: str) -> None:
        self._scorer = PrmLineScorer(PrmScorer(prm, load_tokenizer(policy), device=device))

    def score(self, rollouts: Sequence[Rollout]) -> list[NDArray[np.float64]]:
        """Line scores, (L,) each."""
        return self._scorer.score(rollouts)


def line_scores(settings: VerlSettings, prm: Path, tokenizer: Any, sandbox: Sandbox) -> Score | None:
    """Who scores lines for this process, see `VerlSettings`; None for an arm without line rewards."""
    arm = settings.arm
    if settings.prm_server is not None:
        return in_thread(PoolingScorer(settings.prm_server))
    if arm.line_reward == "none" or arm.prm == "oracle" or settings.prm_gpus is None:
        scorer = open_line_scorer(arm, prm, tokenizer, sandbox, device="cpu")
        return None if scorer is None else in_thread(scorer)
    actor = (
        ray.remote(PrmActor)
        .options(name="psgpo-prm", get_if_exists=True, num_gpus=settings.prm_gpus, num_cpus=1)
        .remote(str(prm), str(tokenizer.name_or_path), "cuda" if settings.prm_gpus else "cpu")
    )

    async def score(rollouts: Sequence[Rollout]) -> list[NDArray[np.float64]]:
        found: list[NDArray[np.float64]] = await actor.score.remote(list(rollouts))
        return found

    return score


def _real_ids(item: Any, key: str) -> list[int]:
    """The ids of one padded row; prompts are padded on the left or not at all, responses on the right."""
    ids = item.batch[key]
    width = ids.shape[-1]
    mask = item.batch["attention_mask"]
    part = mask[:width] if key == "prompts" else mask[-width:]
    return ids[part.bool()].tolist()
