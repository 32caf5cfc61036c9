"""Micro-batches, precision and recomputation change what is in memory, not what is learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, PreTrainedModel, T5Config

from psgpo.config import ModelSettings, RlSettings
from psgpo.models import ShiftConfig, ShiftForCausalLM, TokenValueModel, prepare_training, right_pad
from psgpo.rl.learner import Batch, Learner, Targets

LENGTHS = [(3, 9), (5, 2), (2, 14), (4, 6), (3, 3), (6, 7), (2, 11), (5, 5)]
"""(prompt, response) tokens."""
SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "pad_token_id": 0}
END = 2
"""Ends every prompt, as an encoder–decoder's does."""


def policy(name: str) -> PreTrainedModel:
    torch.manual_seed(1)
    if name == "shift":
        return ShiftForCausalLM(ShiftConfig(**SIZES, num_attention_heads=2)).eval()
    if name == "t5":
        t5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
        ids = {"vocab_size": 40, "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": END}
        return AutoModelForSeq2SeqLM.from_config(T5Config(**t5, **ids, initializer_factor=0.5)).eval()
    config = LlamaConfig(**SIZES, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.2)
    return AutoModelForCausalLM.from_config(config).eval()


def learner(name: str = "llama", *, dtype: str = "float32", recompute: bool = False, **rl: Any) -> Learner:
    made = [policy(name), policy(name)]
    critic = TokenValueModel.from_policy(policy(name), head_init="normal", seed=2)
    if recompute:
        again = ModelSettings(gradient_checkpointing=True)
        prepare_training(made[0], again)
        prepare_training(critic, again)
    return Learner(made[0], made[1], critic, RlSettings(**rl), temperature=0.8, seed=5, dtype=dtype)


def batch() -> tuple[Batch, Targets]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(END + 1, 40, (sum(length),), generator=generator).tolist() for length in LENGTHS]
    for row, (prompt, _) in zip(rows, LENGTHS, strict=True):
        row[prompt - 1] = END
    ids, attention = right_pad(rows, 0)
    mask = (attention * (torch.arange(ids.shape[1]) >= torch.tensor([p for p, _ in LENGTHS])[:, None])).float()
    old, rewards, advantages, returns, values = (torch.randn(ids.shape, generator=generator) * mask for _ in range(5))
    return (
        Batch(input_ids=ids, attention_mask=attention, mask=mask, old_logprobs=old - 3 * mask, rewards=rewards),
        Targets(advantages=advantages, returns=returns, old_values=values),
    )


def weights(one: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for m in (one.policy, one.critic) for p in m.parameters()])


def gradients(one: Learner) -> torch.Tensor:
    """Those of the last update."""
    both = [p.grad.flatten() for m in (one.policy, one.critic) for p in m.parameters() if p.grad is not None]
    return torch.cat(both)


def saved_numbers(one: Learner) -> int:
    """Numbers that autograd keeps over one update."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[id(tensor)] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one.update(0, *batch())
    return sum(kept.values())


@pytest.mark.parametrize("name", ["llama", "shift", "t5"])
def test_micro_batches_add_up_to_one_big_batch(name: str) -> None:
    whole, parts = learner(name, minibatches=1), learner(name, minibatches=1, microbatch_tokens=30)
    assert len(list(parts._parts(batch()[0], budget=30))) > 3
    one, many = whole.update(0, *batch()), parts.update(0, *batch())
    assert one == pytest.approx(many, rel=1e-6)
    full, summed = gradients(whole), gradients(parts)
    assert float((full - summed).norm() / full.norm()) < 1e-6
    for step in range(1, 4):
        whole.update(step, *batch())
        parts.update(step, *batch())
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-4, atol=1e-5)


def test_rows_of_a_micro_batch_are_cut_to_its_longest_and_fit_the_budget() -> None:
    total = [p + r for p, r in LENGTHS]
    seen = []
    for rows, width in learner()._parts(batch()[0], budget=30):
        assert width == max(total[i] for i in rows.tolist())
        assert width * len(rows) <= 30
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(LENGTHS)))


def test_forwards_without_gradient_do_not_depend_on_the_parts() -> None:
    whole, parts = learner(), learner(microbatch_tokens=20)
    data = batch()[0]
    torch.testing.assert_close(whole.values(data), parts.values(data), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.ref_logprobs(data), parts.ref_logprobs(data), rtol=1e-5, atol=1e-6)
    assert not whole.values(data)[data.mask == 0].any()


@pytest.mark.parametrize("name", ["llama", "shift"])
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    kept, recomputed = learner(name, minibatches=1), learner(name, minibatches=1, recompute=True)
    assert saved_numbers(recomputed) < 0.6 * saved_numbers(kept)
    assert torch.equal(gradients(kept), gradients(recomputed))
    assert torch.equal(weights(kept), weights(recomputed))


def test_recomputed_encoder_decoder_gradients_differ_by_the_order_of_a_sum_alone() -> None:
    """T5's layers share one position bias, whose gradient is then added up in another order."""
    kept, recomputed = learner("t5", minibatches=1), learner("t5", minibatches=1, recompute=True)
    assert saved_numbers(recomputed) < 0.6 * saved_numbers(kept)
    difference = (gradients(kept) - gradients(recomputed)).norm() / gradients(kept).norm()
    assert float(difference) < 1e-6


@pytest.mark.parametrize("name", ["llama", "shift", "t5"])
def test_bfloat16_computes_in_bfloat16_over_float32_weights(name: str) -> None:
    exact, rough = learner(name, minibatches=1), learner(name, minibatches=1, dtype="bfloat16")
    want, got = exact.update(0, *batch()), rough.update(0, *batch())
    assert all(p.dtype == torch.float32 for p in rough.policy.parameters())
    assert all(v.dtype == torch.float32 for s in rough.policy_optimizer.state.values() for v in s.values())
    difference = (gradients(exact) - gradients(rough)).norm() / gradients(exact).norm()
    assert 1e-4 < float(difference) < 0.1
    assert got["policy_loss"] == pytest.approx(want["policy_loss"], rel=0.05)
