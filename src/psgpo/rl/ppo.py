"""PPO with line rewards: the algorithm, top to bottom.

Every step: sample responses from the policy, run their unit tests, score their lines (DenseReward), turn verdict,
line scores and KL to the SFT policy into one reward per token, estimate advantages with the critic (GAE), and take a
few clipped policy and value steps. `rl.advantage` = grpo or rloo compares the responses to one prompt instead; there is
no critic then, and the KL stays in the reward.

Of several processes each samples, judges and scores a part of a step's responses; then all hold all of them, compute
what is cheap alike, and share the forward and backward passes (`Learner`). A response's random numbers depend on its
seed alone, so the step is the same whatever the number of processes.

PSGPO (arXiv 2410.17621, section 4.2). What the paper leaves open is a setting (`RlSettings`). Differs from it:
- ValueInit: the PRM means "this prefix is good" (−1 … 1), a value means "expected return" (near 0 while few programs
  pass). The paper does not say how one becomes the other; `value_map` does, before the first update:
  `fit` takes a, b of V = a·R + b by least squares on the returns of responses drawn for that alone (hundreds of them:
  where one in a hundred passes, the first step's would not do), and folds them into the head; `head` fits the whole
  head to these returns, on what the PRM's trunk sees.

# B responses, S tokens of prompt and response, L code lines
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psgpo.config import ArmSettings, RlSettings, SamplingSettings
from psgpo.execution import Sandbox
from psgpo.jsonl import write_json
from psgpo.lines import TokenText
from psgpo.models import TokenValueModel, right_pad, save_merged
from psgpo.parallel.team import ALONE, Team
from psgpo.records import Problem
from psgpo.rl.advantages import explained_variance, gae, group_normalised, leave_one_out, returns_to_go, whiten
from psgpo.rl.head_fit import Moments
from psgpo.rl.learner import Batch, Learner, Targets
from psgpo.rl.metrics import Metrics, rollout_metrics
from psgpo.rl.rollout import LineScorer, Rollout, collect_rollouts, gathered, rewarded_lines, rewarded_tokens, step_ends
from psgpo.sampling import HFSampler, Sampler
from psgpo.sampling.vllm import VllmSampler
from psgpo.seeds import derive_seed
from psgpo.training import ResumableLog, computing

VALUE_MAPS = {"identity": (1.0, 0.0), "probability": (0.5, 0.5)}
"""a, b of V = a·R + b where `value_map` says them; `fit` measures them."""

HEAD_FILE = "value_head.json"
"""The head that `value_map = "head"` fitted: weight (D,) and bias."""


class PpoTrainer:
    """One arm of the comparison. `train` runs it to the end, from where it was interrupted if it was."""

    def __init__(
        self,
        *,
        policy: PreTrainedModel,
        reference: PreTrainedModel | None,
        critic: TokenValueModel | None,
        tokenizer: PreTrainedTokenizerBase,
        sandbox: Sandbox,
        arm: ArmSettings,
        rl: RlSettings,
        sampling: SamplingSettings,
        out: Path,
        seed: int,
        scorer: LineScorer | None = None,
        engine: VllmSampler | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        team: Team = ALONE,
    ) -> None:
        """
        Args:
            policy: trained in place; starts as the SFT policy.
            reference: the SFT policy, frozen; None for a policy with adapters, which is its own reference without them,
                and where `rl.kl_beta` is 0, which needs none.
            critic: starts from the SFT trunk with a fresh head, or from a PRM (ValueInit); None exactly where
                `rl.advantage` needs none.
            scorer: line scores for `arm.line_reward`; None exactly when that is `none`.
            engine: draws responses from the policy's weights, handed over before every step; None: the policy itself.
            out: metrics.jsonl, checkpoints/step-N and model are written here.
            dtype: `model.dtype` of the recipe: what forward passes compute in, sampling included.
            team: the processes that train together. Only the main one writes.
        """
        assert (scorer is None) == (arm.line_reward == "none")
        assert (critic is None) == (rl.advantage != "gae")
        self.policy, self.critic, self.team = policy, critic, team
        self.reference = None if reference is None else reference.eval().requires_grad_(False)
        self.tokenizer, self.sandbox, self.scorer = tokenizer, sandbox, scorer
        self.arm, self.rl, self.sampling = arm, rl, sampling
        self.out, self.seed, self.device, self.dtype = out, seed, device, dtype
        self.token_text = TokenText(tokenizer)
        self.engine = engine
        self.learner = Learner(
            self.policy,
            self.reference,
            self.critic,
            rl,
            temperature=sampling.temperature,
            seed=seed,
            dtype=dtype,
            team=team,
            device=device,
        )
        plain = self.learner.policy_replica.plain
        self.sampler: Sampler = engine or HFSampler(plain, tokenizer, batch_size=sampling.batch_size)

    def train(
        self,
        prompts: Sequence[tuple[Problem, tuple[int, ...]]],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Run `rl.steps` steps over (problem, prompt ids) pairs and save the policy to `out/model`."""
        log = ResumableLog(self.out, writes=self.team.is_main)
        self.team.wait()  # all have read the state that the main process goes on to replace
        if log.state is not None:
            self.learner.load(log.state)
            log.forget()
        fitted = self._map_values(prompts) if log.step == 0 and self._starts_mapped() else {}
        for step in range(log.step, self.rl.steps):
            log.log({"step": step + 1, **self.step(step, prompts), **fitted})
            fitted = {}
            if step + 1 in self.rl.checkpoint_steps:
                self._save_policy(self.out / "checkpoints" / f"step-{step + 1}")
            if log.due(step + 1, self.rl.steps, parts=10, team=self.team):
                log.save(step + 1, **self.learner.state())
            if progress:
                progress(step + 1, self.rl.steps)
        self._save_policy(self.out / "model")
        log.close()

    def step(self, step: int, prompts: Sequence[tuple[Problem, tuple[int, ...]]]) -> Metrics:
        """One PPO step. Everything random in it is derived from the seed and `step`."""
        clock = PhaseClock()
        if self.engine is not None:
            self.engine.take_weights(self.policy)
            clock("hand_over")
        rollouts = self._rollouts(step, prompts, clock)
        score_L = self._line_scores(rollouts)
        line_reward_L = self._paid(rollouts, score_L)
        clock("score")
        batch = self._batch(rollouts, line_reward_L)
        metrics = rollout_metrics(rollouts, line_reward_L, self.arm)
        if self.scorer is not None:
            metrics["unread_share"] = float(np.mean([np.isnan(score).any() for score in score_L]))
        if self.engine is not None or self.dtype != "float32":
            # Ratios compare the policy with itself as updates compute it, not with the kernels that drew: an engine's,
            # or those of single tokens, which in bfloat16 round differently than a pass over whole rows.
            drawn = batch.old_logprobs
            batch = replace(batch, old_logprobs=self.learner.policy_logprobs(batch))
            gap = (batch.old_logprobs - drawn).abs() * batch.mask
            metrics["engine_logprob_gap"] = float(gap.sum() / batch.mask.sum())
        rewards, log_ratio = batch.rewards, None
        if self.rl.kl_beta:
            # Up to the policy's first update it is the reference, and its responses carry their logprobs.
            unmoved = step <= self.rl.critic_warmup
            ref_logprobs = batch.old_logprobs if unmoved else self.learner.ref_logprobs(batch)
            log_ratio = (batch.old_logprobs - ref_logprobs) * batch.mask
            rewards = rewards - self.rl.kl_beta * log_ratio
        targets = self._targets(rollouts, batch, rewards)
        update = self.learner.update(step, batch, targets)
        clock("update")
        if log_ratio is not None:
            metrics["kl"] = float(log_ratio.sum()) / len(rollouts)
        metrics["kl_penalty"] = self.rl.kl_beta * metrics.get("kl", 0.0)
        metrics["reward_total"] = float(rewards.sum()) / len(rollouts)
        if targets.old_values is not None and targets.returns is not None:
            metrics["explained_variance"] = explained_variance(targets.old_values, targets.returns, batch.mask)
        seconds = clock.seconds()
        metrics["tokens_per_second"] = float(batch.mask.sum()) / seconds["seconds_step"]
        return metrics | update | seconds

    def _rollouts(
        self, step: int, prompts: Sequence[tuple[Problem, tuple[int, ...]]], clock: Callable[[str], None]
    ) -> list[Rollout]:
        chosen = []
        for position in range(step * self.rl.prompts_per_step, (step + 1) * self.rl.prompts_per_step):
            epoch, index = divmod(position, len(prompts))
            order = np.random.default_rng(derive_seed(self.seed, "prompts", epoch)).permutation(len(prompts))
            chosen += [prompts[order[index]]] * self.rl.responses_per_prompt
        seeds = [derive_seed(self.seed, "rollout", step, row) for row in range(len(chosen))]
        return self._collect(chosen, seeds, clock)

    def _collect(
        self,
        prompts: Sequence[tuple[Problem, tuple[int, ...]]],
        seeds: Sequence[int],
        clock: Callable[[str], None],
    ) -> list[Rollout]:
        mine = self.team.block(len(prompts))
        with self.learner.policy_replica.whole(), computing(self.dtype, self.device):
            rollouts = collect_rollouts(
                self.sampler, self.token_text, self.sandbox, prompts[mine], seeds[mine], self.sampling, clock
            )
        return gathered(rollouts, [problem for problem, _ in prompts], self.team)

    def _line_rewards(self, rollouts: Sequence[Rollout]) -> list[np.ndarray]:
        """λ · g of every line of every rollout. Shape of each: (L,)."""
        return self._paid(rollouts, self._line_scores(rollouts))

    def _line_scores(self, rollouts: Sequence[Rollout]) -> list[np.ndarray]:
        """As `LineScorer` has them, of every rollout; empty where the arm has none."""
        if self.scorer is None:
            return [np.zeros(0)] * len(rollouts)
        mine = rollouts[self.team.block(len(rollouts))]
        return self.team.gather(self.scorer.score(mine) if mine else [])

    def _paid(self, rollouts: Sequence[Rollout], score_L: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [rewarded_lines(rollout, score, self.arm) for rollout, score in zip(rollouts, score_L, strict=True)]

    def _batch(self, rollouts: Sequence[Rollout], line_reward_L: Sequence[np.ndarray]) -> Batch:
        rows = [[*rollout.prompt_ids, *rollout.token_ids] for rollout in rollouts]
        input_ids, attention_mask = right_pad(rows, self.tokenizer.pad_token_id, device=self.device)
        mask, old_logprobs, rewards = (torch.zeros(input_ids.shape) for _ in range(3))
        for b, (rollout, line_reward) in enumerate(zip(rollouts, line_reward_L, strict=True)):
            response = slice(len(rollout.prompt_ids), len(rows[b]))
            mask[b, response] = 1.0
            old_logprobs[b, response] = torch.tensor(rollout.logprobs)
            reward_T = rewarded_tokens(rollout, line_reward, self.arm)
            rewards[b, response] = torch.tensor(reward_T, dtype=torch.float32)
        return Batch(
            input_ids=input_ids,
            attention_mask=attention_mask,
            mask=mask.to(self.device),
            old_logprobs=old_logprobs.to(self.device),
            rewards=rewards.to(self.device),
            finished=torch.tensor([rollout.finished for rollout in rollouts], device=self.device),
        )

    def first_critic(self, prompts: Sequence[tuple[Problem, tuple[int, ...]]]) -> TokenValueModel:
        """The critic as the first step finds it, for a trainer elsewhere that starts from it; here it is in place."""
        if self._starts_mapped():
            self._map_values(prompts)
        return self._valued

    @property
    def _valued(self) -> TokenValueModel:
        assert self.critic is not None, "without a critic there are no values to start from"
        return self.critic

    def _starts_mapped(self) -> bool:
        return self.arm.value_init is not None or self.arm.value_map == "head"

    def _map_values(self, prompts: Sequence[tuple[Problem, tuple[int, ...]]]) -> Metrics:
        """ValueInit: turn PRM scores into values before anything is learned (see the head of this file)."""
        if self.arm.value_map == "head":
            return self._fit_head(prompts)
        scale, shift = VALUE_MAPS.get(self.arm.value_map) or self._fit(prompts)
        self._valued.apply_affine(scale, shift)
        return {"value_scale": scale, "value_shift": shift}

    def _fit(self, prompts: Sequence[tuple[Problem, tuple[int, ...]]]) -> tuple[float, float]:
        """a, b that minimise Σ_t (a R_t + b − G_t)² over response tokens, G_t the return from token t on."""
        score_parts, return_parts = [], []
        for batch, returns in self._first_returns(prompts):
            score_parts.append(self.learner.values(batch)[batch.mask.bool()].double())
            return_parts.append(returns[batch.mask.bool()].double())
        score_N, return_N = torch.cat(score_parts), torch.cat(return_parts)
        spread = score_N - score_N.mean()
        scale = float((spread * return_N).sum() / (spread**2).sum().clamp(min=1e-12))
        if scale <= 0:
            warnings.warn(
                f"ValueInit: over {self.rl.value_fit_responses} responses the PRM's score does not rise with the "
                f"return (slope {scale:.3g}); the critic starts from the score turned round. A score says how good the "
                "prefix is, not what is still to be earned: value_map = 'head' fits a head on the PRM's trunk instead",
                stacklevel=2,
            )
        return scale, float(return_N.mean() - scale * score_N.mean())

    def _fit_head(self, prompts: Sequence[tuple[Problem, tuple[int, ...]]]) -> Metrics:
        """w, b that minimise Σ_t (w·h_t + b − G_t)² + ridge on w, h_t the trunk's state before token t."""
        moments = Moments.none(self._valued.head.in_features)
        for batch, returns in self._first_returns(prompts):
            moments += self.learner.head_moments(batch, returns)
        weight_D, bias = moments.solve()
        self.learner.replace_head(weight_D, bias)
        if self.team.is_main:
            write_json(self.out / HEAD_FILE, {"weight": weight_D.tolist(), "bias": bias})
        return {"value_fit_explained": moments.explained(weight_D, bias)}

    def _first_returns(
        self, prompts: Sequence[tuple[Problem, tuple[int, ...]]]
    ) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Batches of the first policy's responses with the return from every token on, (B, S).

        The policy still is its reference, so there is no KL in it.
        """
        count = self.rl.value_fit_responses
        rng = np.random.default_rng(derive_seed(self.seed, "value-fit"))
        chosen = [prompts[index] for index in rng.integers(len(prompts), size=count)]
        seeds = [derive_seed(self.seed, "value-fit", row) for row in range(count)]
        size = self.sampling.batch_size * self.team.size
        for start in range(0, count, size):
            part = slice(start, start + size)
            rollouts = self._collect(chosen[part], seeds[part], PhaseClock())
            batch = self._batch(rollouts, self._line_rewards(rollouts))
            yield batch, returns_to_go(batch.rewards, batch.mask, gamma=self.rl.gamma)

    def _targets(self, rollouts: Sequence[Rollout], batch: Batch, rewards: torch.Tensor) -> Targets:
        if self.critic is None:
            return Targets(advantages=self._among_groups(rollouts, batch, rewards))
        values = self.learner.values(batch)
        advantages, returns = gae(rewards, values, batch.mask, gamma=self.rl.gamma, lam=self.rl.gae_lambda)
        if self.rl.whiten_advantages:
            advantages = whiten(advantages, batch.mask, floor=self.rl.whiten_floor)
        return Targets(advantages=advantages, returns=returns, old_values=values)

    def _among_groups(self, rollouts: Sequence[Rollout], batch: Batch, rewards: torch.Tensor) -> torch.Tensor:
        """Advantages of responses over the others to their prompt, (B, S); not whitened, groups have done that.

        The KL of a token is no step of a program: beside `grpo` it has a baseline of its own, and no scale.
        """
        group, mask = self.rl.responses_per_prompt, batch.mask
        if self.rl.advantage == "rloo":
            return leave_one_out(rewards, mask, group=group, gamma=self.rl.gamma)
        steps = torch.zeros_like(mask)
        for b, rollout in enumerate(rollouts):
            steps[b, [len(rollout.prompt_ids) + end for end in step_ends(rollout, self.arm)]] = 1.0
        paid = group_normalised(batch.rewards, steps, mask, group=group, floor=self.rl.whiten_floor)
        return paid + leave_one_out(rewards - batch.rewards, mask, group=group, gamma=1.0)

    def _save_policy(self, folder: Path) -> None:
        with self.learner.policy_replica.whole() as policy:
            if self.team.is_main:
                save_merged(policy, folder)
                self.tokenizer.save_pretrained(folder)


class PhaseClock:
    """Wall seconds of the phases of a step: call it with a phase's name when the phase ends."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self._phases: dict[str, float] = defaultdict(float)

    def __call__(self, phase: str) -> None:
        now = time.perf_counter()
        self._phases[f"seconds_{phase}"] += now - self._last
        self._last = now

    def seconds(self) -> Metrics:
        """Seconds per phase and `seconds_step` from construction to the last phase's end."""
        return dict(self._phases) | {"seconds_step": self._last - self._started}
