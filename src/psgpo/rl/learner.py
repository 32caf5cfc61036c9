"""The networks of a PPO run: their forward passes and their updates, a micro-batch at a time.

A micro-batch holds rows of similar length, cut to its longest, so little of it is padding. Its loss is divided by the
tokens (or, with `loss_mean`, the responses) of the whole minibatch: micro-batches add up to the gradient of one big
batch. Of several processes each works through a share of the rows of every minibatch; gradients, metrics and what
forward passes give are summed over them.
"""

# B responses, S tokens of prompt and response

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from psgpo.config import RlSettings
from psgpo.models import TokenValueModel, adapters_off, round_frozen, token_logprobs, token_loss
from psgpo.parallel.replica import Replica, clip_gradients, load_optimizer, optimizer_state, placed
from psgpo.parallel.team import ALONE, Team
from psgpo.rl.head_fit import Moments
from psgpo.rl.losses import policy_loss, policy_moves, value_loss
from psgpo.seeds import derive_seed
from psgpo.training import computing, rate_factor, set_rates, shared_batches

FORWARD_TOKENS = 8192
"""Padded tokens of a forward pass without gradient, at most, where the settings name no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One step's responses as tensors, all (B, S) and aligned to token positions; 0 outside `mask`."""

    input_ids: Tensor
    attention_mask: Tensor
    mask: Tensor
    """1 at response tokens."""
    old_logprobs: Tensor
    rewards: Tensor
    """Line rewards and unit-test reward; no KL yet."""
    finished: Tensor
    """Of every response, whether it came to its end; (B,), true or false."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What the updates of one step aim at, (B, S)."""

    advantages: Tensor
    returns: Tensor | None = None
    """None where nothing learns values."""
    old_values: Tensor | None = None


class Learner:
    """Policy, reference and, where there is one, critic, with an Adam each for policy and critic."""

    def __init__(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel | None,
        critic: TokenValueModel | None,
        rl: RlSettings,
        *,
        temperature: float,
        seed: int,
        dtype: str = "float32",
        team: Team = ALONE,
        device: str | torch.device | None = None,
    ) -> None:
        """
        Args:
            reference: is frozen; None: the policy with its adapters off, or none where `kl_beta` is 0.
            critic: None where advantages need no values.
            temperature: of the distribution that responses are drawn from.
            dtype: `model.dtype` of the recipe.
            team: the processes that train together; each calls every method, with the same batch.
            device: where the networks go; None: where the policy is.
        """
        self.policy, self.reference, self.critic = policy, reference, critic
        self.rl, self.temperature, self.seed, self.dtype, self.team = rl, temperature, seed, dtype, team
        self.device = torch.device(device or policy.device)
        if reference is not None:
            round_frozen(reference.requires_grad_(False), dtype)
        self.policy_replica = Replica(policy, team, self.device)
        self.critic_replica = None if critic is None else Replica(critic, team, self.device)
        self.ref_replica = self.policy_replica if reference is None else Replica(reference, team, self.device)
        self.policy_optimizer = _adam(policy, rl.policy_learning_rate)
        self.critic_optimizer = None if critic is None else _adam(critic, rl.critic_learning_rate)

    def ref_logprobs(self, batch: Batch) -> Tensor:
        """(B, S)."""
        # Adapters are switched off once, for all parts.
        with adapters_off(self.policy) if self.reference is None else nullcontext():
            return self._logprobs(self.ref_replica, batch)

    def policy_logprobs(self, batch: Batch) -> Tensor:
        """Of the policy as it is, (B, S)."""
        return self._logprobs(self.policy_replica, batch)

    @torch.no_grad()
    def _logprobs(self, replica: Replica[PreTrainedModel], batch: Batch) -> Tensor:
        found = torch.zeros_like(batch.old_logprobs)
        for rows, width, counts in self._parts(batch, budget=self.rl.microbatch_tokens or FORWARD_TOKENS):
            inputs = batch.input_ids[rows, :width], batch.attention_mask[rows, :width], batch.mask[rows, :width]
            with computing(self.dtype, self.device):
                forward = partial(token_logprobs, replica.network, *inputs, temperature=self.temperature)
                logprobs, _ = replica.run(forward)
            if counts:
                found[rows, :width] = logprobs
        return self.team.sum(found)

    @torch.no_grad()
    def values(self, batch: Batch) -> Tensor:
        """V of the state before every response token, (B, S)."""
        found = torch.zeros_like(batch.old_logprobs)
        for rows, width, counts in self._parts(batch, budget=self.rl.microbatch_tokens or FORWARD_TOKENS):
            values = self._values(batch, rows, width)
            if counts:
                found[rows, :width] = values
        return self.team.sum(found)

    @torch.no_grad()
    def head_moments(self, batch: Batch, returns: Tensor) -> Moments:
        """What a value head fitted to `returns` (B, S) needs to know of the critic's states before response tokens."""
        states: list[Tensor] = []
        listening = self.critic.head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        found = Moments.none(self.critic.head.in_features)
        try:
            for rows, width, counts in self._parts(batch, budget=self.rl.microbatch_tokens or FORWARD_TOKENS):
                self._values(batch, rows, width)
                state_BSD = states.pop()
                marked = batch.mask[rows, 1:width].bool()  # the state before token t is one position to the left
                if counts:
                    found += Moments.of(state_BSD[:, :-1][marked], returns[rows, 1:width][marked])
        finally:
            listening.remove()
        sums = {name: self.team.sum(getattr(found, name).to(self.device)).cpu() for name in ("gram", "cross", "square")}
        return Moments(**sums)

    def replace_head(self, weight_D: Tensor, bias: float) -> None:
        """Give the critic this head, see `TokenValueModel.replace_head`; `weight_D` is whole in every process."""
        assert self.critic is not None
        own = self.critic.head.weight
        self.critic.replace_head(placed(weight_D.unsqueeze(0).to(own.dtype), own), bias)

    def update(self, step: int, batch: Batch, targets: Targets) -> dict[str, float]:
        """`epochs` passes of `minibatches` updates of policy and critic.

        Returns:
            Means over a network's updates of losses, norms, `approx_kl` and the like, the largest `ratio_max`, and the
            rates; nothing of a network that had no update.
        """
        of_policy: dict[str, float] = defaultdict(float)
        of_critic: dict[str, float] = defaultdict(float)
        policy_updates = critic_updates = 0
        rates = self._set_rates(step)
        networks = [network for network in (self.policy, self.critic) if network is not None]
        for network in networks:
            network.train()
        for epoch in range(self.rl.epochs):
            rng = np.random.default_rng(derive_seed(self.seed, "minibatch", step, epoch))
            for rows in np.array_split(rng.permutation(len(batch.mask)), self.rl.minibatches):
                chosen = torch.as_tensor(np.sort(rows), device=self.device)
                kept = chosen[batch.finished[chosen]] if self.rl.truncated == "mask" else chosen
                if step >= self.rl.critic_warmup and len(kept):
                    self._policy_update(batch, targets, kept, of_policy)
                    policy_updates += 1
                if self.critic is not None:
                    self._critic_update(batch, targets, chosen, of_critic)
                    critic_updates += 1
        for network in networks:
            network.eval()
        largest = self.team.gather([of_policy.pop("ratio_max", 0.0)])
        means = {name: total / policy_updates for name, total in self.team.totals(of_policy).items()}
        means |= {"ratio_max": max(largest)} if policy_updates else {}
        means |= {name: total / critic_updates for name, total in self.team.totals(of_critic).items()}
        return means | rates

    def state(self) -> dict[str, dict]:
        """What an interrupted run goes on from."""
        state = {
            "policy": self.policy_replica.state(),
            "policy_optimizer": optimizer_state(self.policy_optimizer, self.team),
        }
        if self.critic_replica is not None and self.critic_optimizer is not None:
            state["critic"] = self.critic_replica.state()
            state["critic_optimizer"] = optimizer_state(self.critic_optimizer, self.team)
        return state

    def load(self, state: dict[str, dict]) -> None:
        """Take up a `state`."""
        self.policy_replica.load(state["policy"])
        load_optimizer(self.policy_optimizer, state["policy_optimizer"])
        if self.critic_replica is not None and self.critic_optimizer is not None:
            self.critic_replica.load(state["critic"])
            load_optimizer(self.critic_optimizer, state["critic_optimizer"])

    def _set_rates(self, step: int) -> dict[str, float]:
        """The rates of `step`. The policy's schedule begins with its first update, after `critic_warmup`."""
        factor = partial(rate_factor, self.rl.schedule, warmup=self.rl.warmup)
        frozen = self.rl.critic_warmup
        of_policy = 0.0 if step < frozen else factor(step - frozen, steps=self.rl.steps - frozen)
        rates = {"learning_rate": self.rl.policy_learning_rate * of_policy}
        set_rates([self.policy_optimizer], [self.rl.policy_learning_rate], of_policy)
        if self.critic_optimizer is not None:
            of_critic = factor(step, steps=self.rl.steps)
            rates["critic_learning_rate"] = self.rl.critic_learning_rate * of_critic
            set_rates([self.critic_optimizer], [self.rl.critic_learning_rate], of_critic)
        return rates

    def _parts(
        self, batch: Batch, chosen: Tensor | None = None, *, budget: int | None
    ) -> Iterator[tuple[Tensor, int, bool]]:
        """This process's micro-batches of `chosen` (all by default): rows, length of the longest, whether it counts."""
        lengths_B = batch.attention_mask.sum(dim=1)
        chosen = torch.arange(len(lengths_B), device=lengths_B.device) if chosen is None else chosen
        lengths = lengths_B[chosen].tolist()
        for part, counts in shared_batches(lengths, budget, self.team):
            yield chosen[part], max(lengths[i] for i in part), counts

    def _values(self, batch: Batch, rows: Tensor, width: int) -> Tensor:
        assert self.critic is not None
        with computing(self.dtype, self.device):
            value_BS = values_before(self.critic, batch.input_ids[rows, :width], batch.attention_mask[rows, :width])
        return value_BS * batch.mask[rows, :width]

    def _policy_update(self, batch: Batch, targets: Targets, chosen: Tensor, sums: dict[str, float]) -> None:
        count = float(batch.mask[chosen].sum())
        advantages, denominator = targets.advantages, count
        if self.rl.loss_mean == "responses":
            # 1/G Σ_i 1/|y_i| Σ_t: the loss is proportional to A, so a token's weight is one of its advantage.
            advantages, denominator = advantages / batch.mask.sum(dim=1, keepdim=True), float(len(chosen))
        self.policy_optimizer.zero_grad()
        for rows, width, counts in self._parts(batch, chosen, budget=self.rl.microbatch_tokens):
            mask = batch.mask[rows, :width] * counts
            inputs = batch.input_ids[rows, :width], batch.attention_mask[rows, :width], mask
            marked = inputs[2].bool()
            old_N, advantage_N = batch.old_logprobs[rows, :width][marked], advantages[rows, :width][marked]
            clipped, moved, largest = 0.0, 0.0, 0.0

            def row_loss(
                logprob_N: Tensor, part: slice, old_N: Tensor = old_N, advantage_N: Tensor = advantage_N
            ) -> Tensor:
                nonlocal clipped, moved, largest
                every_N = torch.ones_like(logprob_N)
                share, hit = policy_loss(
                    logprob_N,
                    old_N[part],
                    advantage_N[part],
                    every_N,
                    clip=self.rl.clip,
                    clip_high=self.rl.clip_high,
                    denominator=denominator,
                )
                kl, ratio = policy_moves(logprob_N, old_N[part])
                clipped, moved, largest = clipped + float(hit), moved + float(kl), max(largest, float(ratio))
                return share

            with computing(self.dtype, self.device):
                forward = partial(
                    token_loss, self.policy, *inputs, row_loss, temperature=self.temperature, with_entropy=True
                )
                loss, entropy_N = self.policy_replica.run(forward)
            torch.autograd.backward(loss)
            sums["policy_loss"] += float(loss.detach())
            sums["clip_fraction"] += clipped / count
            sums["approx_kl"] += moved / count
            sums["ratio_max"] = max(sums["ratio_max"], largest)
            assert entropy_N is not None
            sums["entropy"] += float(entropy_N.sum()) / count
        self._step(self.policy_replica, self.policy_optimizer, "grad_norm_policy", sums)

    def _critic_update(self, batch: Batch, targets: Targets, chosen: Tensor, sums: dict[str, float]) -> None:
        assert self.critic_replica is not None
        assert self.critic_optimizer is not None
        assert targets.old_values is not None
        assert targets.returns is not None
        count = float(batch.mask[chosen].sum())
        self.critic_optimizer.zero_grad()
        for rows, width, counts in self._parts(batch, chosen, budget=self.rl.microbatch_tokens):
            loss, clipped = value_loss(
                self._values(batch, rows, width),
                targets.old_values[rows, :width],
                targets.returns[rows, :width],
                batch.mask[rows, :width] * counts,
                clip=self.rl.value_clip,
                denominator=count,
            )
            torch.autograd.backward(loss)
            sums["value_loss"] += float(loss.detach())
            sums["value_clip_fraction"] += float(clipped) / count
        self._step(self.critic_replica, self.critic_optimizer, "grad_norm_critic", sums)

    def _step(self, replica: Replica, optimizer: torch.optim.Optimizer, name: str, sums: dict[str, float]) -> None:
        """Clip the gradient of all processes, take one step; note the norm before clipping."""
        replica.sum_gradients()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = clip_gradients(parameters, self.rl.max_grad_norm)
        if self.team.is_main:  # the same in every process, and totals are made of all
            sums[name] += norm
        optimizer.step()


def values_before(critic: TokenValueModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """V of the state before every token, (B, S): the critic's output one position to the left; 0 before the first."""
    value_BS: Tensor = critic(input_ids, attention_mask)
    return torch.nn.functional.pad(value_BS[:, :-1], (1, 0))


def _adam(model: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=learning_rate, fused=True)
