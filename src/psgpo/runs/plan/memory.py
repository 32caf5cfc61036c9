"""Peak memory of every stage's process, from shapes.

A PPO process holds, in bytes, with W weights, L of them learned (their gradients are as large, Adam's two moments
twice), for policy p, critic c, frozen reference r and the PRM behind line rewards m:

    base            W_p + W_c + W_r + W_m + 2 (L_p + L_c) + batch
    policy update   base + L_c + U_p      critic update   base + L_p + U_c
    forwards        base + L_p + L_c + F  sampling        base + L_p + L_c + S

U is what one micro-batch adds: the gradients L, activations kept for the backward pass, temporaries, a chunk of logits
with its softmax; the gradients of the other network live on from its last update. F is a forward pass without gradient
over at most `FORWARD_TOKENS`. U and F are counted on a network without contents (`psgpo.runs.plan.network`). S is
formulas: keys and values, 2 · layers · heads_kv · d_head · slots · capacity, and the copies of a step's logits; of
encoder–decoders it is counted like U and F (`psgpo.runs.plan.decoding`). There is no reference with adapters, nor with
`kl_beta` = 0; it and the PRM keep their matrices in bfloat16 where `model.dtype` says so
(`psgpo.models.prepare.round_frozen`). SFT and PRM training hold W + optimizer + U; evaluation and labels W + S.

Not in it: the CUDA context and the allocator's fragments (see `psgpo.runs.plan.devices`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PretrainedConfig

from psgpo.config import ArmSettings, ModelSettings, PrmSettings, Recipe, RlSettings, SamplingSettings
from psgpo.labeling.strategies import READS_SURPRISE
from psgpo.models import limit_layers
from psgpo.optimizers import Muon, make_optimizers
from psgpo.rl.learner import FORWARD_TOKENS
from psgpo.runs.labelled import labelled_count
from psgpo.runs.plan.decoding import encoder_decoder_bytes
from psgpo.runs.plan.network import Network, Role, Row
from psgpo.runs.plan.share import ALONE, FLOAT, Share
from psgpo.training import token_batches

BATCH_BYTES = 16 + 9 * 4
"""Of a position of a step's batch: ids and mask (int64); marks, logprobs old and of the reference, their difference,
rewards twice, advantages, returns, values (float32)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageMemory:
    """One process."""

    stage: str
    parts: dict[str, int]
    """Bytes that add up to the peak, by what they are."""

    @property
    def peak(self) -> int:
        """Bytes."""
        return sum(self.parts.values())


def micro_batches(rows: Sequence[Row], budget: int | None) -> list[list[Row]]:
    """Rows of every micro-batch, as the training loops cut them."""
    return [[rows[i] for i in part] for part in token_batches([sum(row) for row in rows], budget)]


def ppo_step(
    policy: Network,
    critic: Network | None,
    rl: RlSettings,
    minibatches: Sequence[Sequence[Row]],
    *,
    temperature: float,
    prm: int = 0,
    sampling: int = 0,
    stage: str = "rl",
    share: Share = ALONE,
) -> StageMemory:
    """Peak of a PPO step after the first, whose optimizers are empty.

    Args:
        critic: None where the arm's advantages need none.
        minibatches: rows of each.
        prm: bytes of the PRM's weights.
        sampling: bytes that sampling needs, see `sampling_bytes`; of this process's rows.
        share: of one of several processes.
    """
    rows = [row for part in minibatches for row in part]
    without = policy.settings.lora is not None or not rl.kl_beta
    reference = 0 if without else policy.frozen(policy.settings.dtype)
    base = {
        "policy": share.held(policy.weights),
        "reference": share.held(reference),
        "critic": 0 if critic is None else share.held(critic.weights),
        "PRM": prm,
        "Adam": share.held(2 * (policy.learned + (0 if critic is None else critic.learned))),
        "batch": len(rows) * max(map(sum, rows)) * BATCH_BYTES,
    }
    forward = micro_batches(share.rows(rows), rl.microbatch_tokens or FORWARD_TOKENS)[0]
    of_policy = share.held(policy.learned)
    of_critic = 0 if critic is None else share.held(critic.learned)
    both = of_policy + of_critic
    cut = [micro_batches(share.rows(part), rl.microbatch_tokens) for part in minibatches]
    phases: list[dict[str, int]] = []
    for p in _distinct(cut):
        policy_update = share.update(policy, p, temperature=temperature)
        phases.append({"gradients of the critic": of_critic, "update of the policy": policy_update})
        if critic is not None:
            phases.append({"gradients of the policy": of_policy, "update of the critic": share.update(critic, p)})
    for network in (policy, critic) if critic is not None else (policy,):
        passing = share.forward(network, forward, temperature=temperature)
        phases.append({"gradients": both, "forward pass": passing})
        phases.append({"gradients": both, "sum over processes": share.summing(network)})
    whole = {"whole policy": policy.weights} if share.sharded else {}
    phases.append({"gradients": both, "sampling": sampling} | whole)
    worst = max(phases, key=lambda phase: sum(phase.values()))
    return StageMemory(stage=stage, parts={name: size for name, size in (base | worst).items() if size})


def _distinct(cut: Sequence[list[list[Row]]]) -> list[list[list[Row]]]:
    return list({str(parts): parts for parts in cut}.values())


def sampling_bytes(
    config: PretrainedConfig,
    sampling: SamplingSettings,
    rows: int,
    prompt: int,
    policy: Network | None = None,
    *,
    element: int = FLOAT,
) -> int:
    """Keys and values of the slots and the logits of a step.

    Args:
        prompt: tokens of the longest.
        policy: of an encoder–decoder, as it is trained; None: in float32, which is the most it may hold.
        element: bytes of a key's or value's number in a decoder. While PPO draws they are in float32 under bfloat16
            too: what a prefill leaves is.
    """
    if config.is_encoder_decoder:
        return encoder_decoder_bytes(policy or Network(config, "policy", ModelSettings()), sampling, rows, prompt)
    text = config.get_text_config(decoder=True)
    heads = int(text.num_attention_heads)
    kept = int(getattr(text, "num_key_value_heads", None) or (1 if getattr(text, "multi_query", False) else heads))
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    slots = min(rows, sampling.batch_size)
    capacity, longest = prompt + min(64, sampling.max_new_tokens), prompt + sampling.max_new_tokens
    while capacity < longest:  # it grows by half, as psgpo.sampling.slots does
        capacity = max(capacity + 1, capacity * 3 // 2)
    cache = 2 * int(text.num_hidden_layers) * kept * width * slots * capacity * element
    # Logits, probabilities, their sums and one temporary; a nucleus sorts them (int64 places) and scatters them back.
    copies = 4 * FLOAT + (5 * FLOAT + 8 if sampling.top_p < 1 else 0)
    return cache + slots * int(text.vocab_size) * copies


class StagePlanner:
    """Memory of a recipe's stages on one model.

    Args:
        row: (prompt, response) tokens of the longest row; memory is planned for batches of those.
        critic: of `critic.path`; None: as the policy.
        inits: of every `prm.<name>.init` that is here.
        gpu: whether the run is to be on one: logits come in larger chunks there.
        processes: that train together.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: PretrainedConfig,
        row: Row,
        critic: PretrainedConfig | None = None,
        *,
        inits: Mapping[str, PretrainedConfig] | None = None,
        gpu: bool = True,
        processes: int = 1,
    ) -> None:
        self.recipe, self.config, self.row, self._critic, self._gpu = recipe, config, row, critic or config, gpu
        self._inits = inits or {}
        self._readers: dict[str, Network] = {}
        self.share = Share(processes=processes, sharded=processes > 1 and recipe.parallel.strategy == "fsdp")

    @cached_property
    def policy(self) -> Network:
        return Network(self.config, "policy", self.recipe.model, gpu=self._gpu)

    @cached_property
    def critic(self) -> Network:
        return Network(self._critic, "critic", self.recipe.model, gpu=self._gpu)

    @cached_property
    def prm(self) -> Network:
        return (
            self.critic
            if self._critic is self.config
            else Network(self.config, "critic", self.recipe.model, gpu=self._gpu)
        )

    def reader(self, name: str) -> Network | None:
        """The PRM of that name; None for n-gram models, and where its `init` is not here."""
        settings = self.recipe.prm[name]
        from_policy = settings.kind == "causal" and settings.init is None
        if from_policy and settings.layers is None:
            return self.prm
        if not from_policy and name not in self._inits:
            return None
        key = f"{settings.kind} {settings.init} {settings.layers}"
        if key not in self._readers:
            # An encoder computes in float32 and learns all its weights.
            how = ModelSettings() if settings.kind == "encoder" else self.recipe.model
            role: Role = "encoder" if settings.kind == "encoder" else "critic"
            config = self.config if from_policy else self._inits[name]
            if settings.layers is not None:
                config = copy.deepcopy(config)
                limit_layers(config, settings.layers)
            self._readers[key] = Network(config, role, how, gpu=self._gpu)
        return self._readers[key]

    def stages(self) -> Iterator[StageMemory]:
        """One process of each, arms that hold the same as one; the largest come first."""
        recipe = self.recipe
        for name, settings in reversed(_different(recipe).items()):
            yield self.arm(name, settings)
        if recipe.sft.examples:
            yield self.sft()
        yield from self.reward_models()
        if recipe.prm and recipe.labels.source == "search":
            yield self.labels()
        yield self.evaluation()

    def sft(self) -> StageMemory:
        """All weights learn, but for adapters with `sft.lora`."""
        settings = self.recipe.sft
        full = Network(self.config, "policy", self.recipe.model, adapt=settings.lora, gpu=self._gpu)
        optimizers = make_optimizers(full.module, muon=settings.optimizer == "muon", lr=1, muon_lr=1, weight_decay=0)
        moments = sum(
            p.numel() * p.element_size() * (1 if isinstance(one, Muon) else 2)
            for one in optimizers
            for group in one.param_groups
            for p in group["params"]
            if p.requires_grad
        )
        parts = micro_batches(self.share.rows([self.row] * settings.batch_size), settings.microbatch_tokens)
        held = {"policy": self.share.held(full.weights), "optimizer": self.share.held(moments)}
        return StageMemory(stage="sft", parts=held | {"update": self.share.update(full, parts, entropy=False)})

    def arm(self, name: str, arm: ArmSettings) -> StageMemory:
        """One PPO run."""
        rl, sampling = self.recipe.rl_of(name), self.recipe.sampling
        responses = rl.prompts_per_step * rl.responses_per_prompt
        rows = [[self.row] * (responses // rl.minibatches)] * rl.minibatches
        mine = math.ceil(responses / self.share.processes)
        drawn = (
            0 if sampling.engine == "vllm" else sampling_bytes(self.config, sampling, mine, self.row[0], self.policy)
        )
        prm = self.reader(arm.prm) if arm.prm not in (None, "oracle") else None
        return ppo_step(
            self.policy,
            self.critic if rl.advantage == "gae" else None,
            rl,
            rows,
            temperature=sampling.temperature,
            prm=0 if prm is None else prm.frozen(self.recipe.model.dtype),
            sampling=drawn,
            stage=f"rl-{name}",
            share=self.share,
        )

    def labels(self) -> StageMemory:
        """Every checkpoint that completes prefixes is loaded."""
        labels, rows = self.recipe.labels, self.recipe.sampling.batch_size
        alone = labels.completer == "last" and labels.strategy not in READS_SURPRISE
        checkpoints = (1 if alone else labelled_count(self.recipe)) * self._drawing
        drawn = self._drawn(rows, sum(self.row) - 1)
        return StageMemory(stage="labels", parts={"checkpoints": checkpoints, "sampling": drawn})

    def reward_models(self) -> Iterator[StageMemory]:
        """Training of every PRM, those that hold the same as one; n-gram models need nothing."""
        kinds: dict[tuple[str, int], tuple[str, PrmSettings, Network]] = {}
        for name, settings in sorted(self.recipe.prm.items(), key=lambda item: -item[1].batch_size):
            network = self.reader(name)
            if network is not None:
                kinds.setdefault((settings.kind, id(network)), (name, settings, network))
        for name, settings, network in kinds.values():
            # Those that do not start from the policy are trained by one process alone.
            share = self.share if settings.from_policy else ALONE
            parts = micro_batches(share.rows([self.row] * settings.batch_size), settings.microbatch_tokens)
            yield StageMemory(
                stage=f"prm-{name}",
                parts={
                    "PRM": share.held(network.weights),
                    "Adam": share.held(2 * network.learned),
                    "update": share.update(network, parts),
                },
            )

    def evaluation(self) -> StageMemory:
        """One policy."""
        drawn = self._drawn(self.recipe.sampling.batch_size, self.row[0])
        return StageMemory(stage="evaluate", parts={"policy": self._drawing, "sampling": drawn})

    @property
    def _drawing(self) -> int:
        """Bytes of a policy that only draws: no adapters, in the recipe's precision."""
        plain = self.policy.weights - (self.policy.learned if self.recipe.model.lora is not None else 0)
        return plain * self._element // FLOAT

    @property
    def _element(self) -> int:
        return 2 if self.recipe.model.dtype == "bfloat16" else FLOAT

    def _drawn(self, rows: int, prompt: int) -> int:
        return sampling_bytes(self.config, self.recipe.sampling, rows, prompt, element=self._element)


def _different(recipe: Recipe) -> dict[str, ArmSettings]:
    """The first arm of each kind: by the model behind its PRM, its critic and reference, and the size of its steps."""
    first: dict[tuple[object, ...], str] = {}
    for name, arm in recipe.arms.items():
        rl = recipe.rl_of(name)
        rows = rl.prompts_per_step * rl.responses_per_prompt
        prm = recipe.prm.get(arm.prm or "")
        beside = prm and (prm.kind, prm.init, prm.layers), rl.advantage == "gae", rl.kl_beta > 0
        first.setdefault((*beside, rows, rl.minibatches, rl.microbatch_tokens), name)
    return {name: recipe.arms[name] for name in first.values()}
