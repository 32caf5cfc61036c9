"""Peak memory of a PPO step: what `psgpo plan` says against what is alive in one, in bytes of tensors.

    python benchmarks/plan_memory.py

The step is real: sampling, reference, values, policy and critic updates of `psgpo.rl.learner` on tiny random models, on
the CPU. Every storage is counted from the operation that made it until it is freed. The plan sees configurations and
lengths. Prints a Markdown table; the last column is the plan over the measurement.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    T5Config,
)

from psgpo.config import LoraSettings, ModelSettings, RlSettings, SamplingSettings
from psgpo.models import ShiftConfig, TokenValueModel, prepare_training, right_pad
from psgpo.models.dropout import switch_off_dropout
from psgpo.models.logprobs import plain_head
from psgpo.rl.learner import Batch, Learner, Targets
from psgpo.runs.plan.live import LiveBytes
from psgpo.runs.plan.memory import ppo_step, sampling_bytes
from psgpo.runs.plan.network import Network
from psgpo.sampling import HFSampler
from psgpo.training import computing

ROWS = [(8, 30), (7, 42), (10, 12), (6, 50), (8, 28), (9, 33), (7, 21), (8, 45)]
"""(prompt, response) tokens."""
TEMPERATURE = 0.9
_SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 96}
_SHARED = {"vocab_size": 320, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
_NEVER = 320
"""Stops no row: no model has this id."""
_NO_DROPOUT = {"attn_pdrop": 0, "embd_pdrop": 0, "resid_pdrop": 0}
_GATED = _SIZES | _SHARED | {"intermediate_size": 96, "num_key_value_heads": 2}
_T5 = {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 3, "num_heads": 4, "decoder_start_token_id": 0}
CONFIGS: dict[str, PretrainedConfig] = {
    "psgpo-shift": ShiftConfig(**_GATED),
    "llama": LlamaConfig(**_GATED),
    "qwen2": Qwen2Config(**_GATED),
    "gpt2": GPT2Config(
        n_embd=48, n_layer=3, n_head=4, n_positions=96, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0, **_SHARED
    ),
    "t5": T5Config(**_T5, **_SHARED),
    "t5-1.1": T5Config(**_T5, **_SHARED, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
}
SMALL_T5 = T5Config(**(_T5 | {"d_model": 32, "num_layers": 2}), **_SHARED)
"""A critic of its own."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table."""

    model: str
    lora: bool = False
    checkpointing: bool = False
    dtype: str = "float32"
    microbatch_tokens: int | None = None
    critic: PretrainedConfig | None = None
    """`critic.path`'s; None: as the policy."""

    @property
    def settings(self) -> ModelSettings:
        """As a recipe has them."""
        return ModelSettings(
            lora=LoraSettings(rank=4) if self.lora else None,
            gradient_checkpointing=self.checkpointing,
            dtype=self.dtype,  # type: ignore[arg-type]
        )

    @property
    def rl(self) -> RlSettings:
        """One minibatch, so that its rows are known."""
        return RlSettings(minibatches=1, microbatch_tokens=self.microbatch_tokens)


def measured(case: Case) -> int:
    """Bytes alive at the worst moment of two PPO steps; the first one makes the optimizers' states."""
    policy, reference, critic = networks(case)
    learner = Learner(policy, reference, critic, case.rl, temperature=TEMPERATURE, seed=0, dtype=case.dtype)
    # The prompt of an encoder–decoder ends with its end-of-sequence token, and has no other.
    ids, attention = right_pad([[3] * (p - 1) + [1] + [3] * r for p, r in ROWS], 0)
    mask = (attention * (torch.arange(ids.shape[1]) >= torch.tensor([p for p, _ in ROWS])[:, None])).float()
    models = [policy, critic, *([] if reference is None else [reference])]
    for network in models:
        if not isinstance(network, TokenValueModel):
            plain_head(network)  # looked up once per model, not once per step
    with LiveBytes(t for n in models for t in (*n.parameters(), *n.buffers())) as live:
        for step in range(2):
            sample(policy, case)
            # A step holds what its batch was made of too: nine numbers and two ids for every position.
            spare = [torch.zeros(ids.shape) for _ in range(3)]
            zeros = [torch.zeros(ids.shape) for _ in range(5)]
            batch = Batch(
                input_ids=ids.clone(),
                attention_mask=attention.clone(),
                mask=mask.clone(),
                old_logprobs=zeros[0],
                rewards=zeros[1],
                finished=torch.ones(len(ids), dtype=torch.bool),
            )
            learner.ref_logprobs(batch)
            learner.values(batch)
            learner.update(step, batch, Targets(advantages=zeros[2], returns=zeros[3], old_values=zeros[4]))
            del spare, batch, zeros
    return live.peak


def planned(case: Case) -> int:
    """The same from configuration and lengths."""
    config = CONFIGS[case.model]
    policy = Network(config, "policy", case.settings, gpu=False)
    critic = Network(case.critic or config, "critic", case.settings, gpu=False)
    sampling = sampling_bytes(config, _sampling(), len(ROWS), max(p for p, _ in ROWS), policy)
    return ppo_step(policy, critic, case.rl, [ROWS], temperature=TEMPERATURE, sampling=sampling).peak


def _sampling() -> SamplingSettings:
    return SamplingSettings(max_new_tokens=max(r for _, r in ROWS), temperature=TEMPERATURE)


def networks(case: Case) -> tuple[PreTrainedModel, PreTrainedModel | None, TokenValueModel]:
    """Policy, reference and critic."""
    torch.manual_seed(0)
    policy = _model(CONFIGS[case.model])
    switch_off_dropout(policy)
    reference = None if case.lora else copy.deepcopy(policy).requires_grad_(False)
    critic = TokenValueModel.from_policy(policy if case.critic is None else _model(case.critic))
    prepare_training(policy, case.settings)
    prepare_training(critic, case.settings)
    return policy, reference, critic


def _model(config: PretrainedConfig) -> PreTrainedModel:
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    made: PreTrainedModel = family.from_config(copy.deepcopy(config)).eval()
    return made


def sample(policy: PreTrainedModel, case: Case) -> None:
    """Draw responses of the lengths in `ROWS`."""
    tokenizer: Any = SimpleNamespace(pad_token_id=0, eos_token_id=_NEVER)
    policy.generation_config.eos_token_id = None
    sampler = HFSampler(policy, tokenizer)
    prefixes, limits = [(*[3] * (p - 1), 1) for p, _ in ROWS], [r for _, r in ROWS]
    with computing(case.dtype, "cpu"):
        sampler.sample(prefixes, seeds=range(len(ROWS)), temperature=TEMPERATURE, max_new_tokens=limits)


def cases() -> list[Case]:
    """The whole grid."""
    grid = itertools.product(CONFIGS, (False, True), (False, True), ("float32", "bfloat16"), (None, 130))
    own = [Case(model="t5", critic=SMALL_T5), Case(model="t5-1.1", critic=SMALL_T5, microbatch_tokens=130)]
    return own + [
        Case(model=model, lora=lora, checkpointing=again, dtype=dtype, microbatch_tokens=budget)
        for model, lora, again, dtype, budget in grid
    ]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| model | adapters | checkpointing | dtype | micro-batch, tokens | measured, KiB | planned, KiB | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    ratios = []
    for case in cases():
        real, plan = measured(case), planned(case)
        ratios.append(plan / real)
        words = ["LoRA" if case.lora else "", "yes" if case.checkpointing else "", case.dtype]
        numbers = f"{case.microbatch_tokens or ''} | {real / 1024:,.0f} | {plan / 1024:,.0f} | {ratios[-1]:.3f}"
        model = case.model if case.critic is None else f"{case.model}, smaller critic"
        print(f"| {model} | {' | '.join(words)} | {numbers} |")
    print(f"\n{len(ratios)} steps: ratio {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
