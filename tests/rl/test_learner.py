"""Micro-batches, precision and recomputation change what is in memory, not what is learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from learner_world import LENGTHS, batch, policy

from psgpo.config import ModelSettings, RlSettings
from psgpo.models import TokenValueModel, prepare_training
from psgpo.rl.learner import Learner


def learner(name: str = "llama", *, dtype: str = "float32", recompute: bool = False, **rl: Any) -> Learner:
    made = [policy(name), policy(name)]
    critic = TokenValueModel.from_policy(policy(name), head_init="normal", seed=2)
    if recompute:
        again = ModelSettings(gradient_checkpointing=True)
        prepare_training(made[0], again)
        prepare_training(critic, again)
    return Learner(made[0], made[1], critic, RlSettings(**rl), temperature=0.8, seed=5, dtype=dtype)


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
    for rows, width, counts in learner()._parts(batch()[0], budget=30):
        assert width == max(total[i] for i in rows.tolist())
        assert width * len(rows) <= 30
        assert counts
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


@pytest.mark.parametrize("name", ["llama", "shift", "t5"])
def test_in_bfloat16_the_reference_takes_half_the_bytes_and_is_still_the_first_policy(name: str) -> None:
    one, data = learner(name, dtype="bfloat16"), batch()[0]
    assert torch.bfloat16 in {p.dtype for p in one.reference.parameters()}
    assert torch.equal(one.ref_logprobs(data), one.policy_logprobs(data))
    assert {p.dtype for p in learner(name).reference.parameters()} == {torch.float32}
