"""Micro-batches, precision and recomputation change what is in memory, not what is learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from learner_world import LENGTHS, batch, policy

from psgpo.config import ModelSettings, RlSettings
from psgpo.models import TokenValueModel, prepare_training
from psgpo.rl.learner import Batch, Learner, Targets


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


def test_the_policys_warm_up_and_schedule_begin_when_it_does() -> None:
    """Two of six steps are the critic's alone: four are left, of which half rise."""
    one = learner(steps=6, warmup=0.5, schedule="linear", critic_warmup=2, policy_learning_rate=1.0)
    rates = [one.update(step, *batch()) for step in range(6)]
    assert [row["learning_rate"] for row in rates] == [0, 0, 0.5, 1, 1, 0.5]
    third = 1e-3 / 3
    assert [row["critic_learning_rate"] for row in rates] == pytest.approx(
        [third, 2 * third, 1e-3, 1e-3, 2 * third, third]
    )
    assert one.policy_optimizer.param_groups[0]["lr"] == 0.5


def test_a_mean_over_responses_is_one_of_means_over_their_tokens() -> None:
    """Minibatches of one response each: there both means are the same."""
    data, targets = batch()
    alone = []
    for row in range(len(LENGTHS)):
        one = Batch(**{key: getattr(data, key)[row : row + 1] for key in Batch.__slots__})
        of_one = Targets(**{key: getattr(targets, key)[row : row + 1] for key in Targets.__slots__})
        alone.append(learner(minibatches=1, loss_mean="tokens").update(0, one, of_one)["policy_loss"])
    whole = learner(minibatches=1, loss_mean="responses", max_grad_norm=1e9)
    found = whole.update(0, data, targets)
    assert found["policy_loss"] == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    by_tokens = learner(minibatches=1).update(0, data, targets)
    assert by_tokens["policy_loss"] != pytest.approx(found["policy_loss"], rel=1e-2)
    for name in ("clip_fraction", "approx_kl", "entropy"):  # means over tokens, whatever the loss is
        assert by_tokens[name] == pytest.approx(found[name], rel=1e-6)
    parts = learner(minibatches=1, loss_mean="responses", max_grad_norm=1e9, microbatch_tokens=30)
    assert parts.update(0, data, targets) == pytest.approx(found, rel=1e-5)
    assert float((gradients(whole) - gradients(parts)).norm() / gradients(whole).norm()) < 1e-6


def test_responses_that_were_cut_off_are_no_part_of_the_policys_loss() -> None:
    data, targets = batch()
    masked = learner(minibatches=1, truncated="mask")
    found = masked.update(0, data, targets)
    whole = data.finished
    alone = learner(minibatches=1)
    kept = Batch(**{key: getattr(data, key)[whole] for key in Batch.__slots__})
    wanted = alone.update(0, kept, Targets(**{key: getattr(targets, key)[whole] for key in Targets.__slots__}))
    same = ("policy_loss", "grad_norm_policy", "clip_fraction", "approx_kl", "ratio_max", "entropy")
    assert {name: found[name] for name in same} == pytest.approx({name: wanted[name] for name in same}, rel=1e-5)
    every = learner(minibatches=1).update(0, data, targets)
    assert found["value_loss"] == every["value_loss"]  # the critic's is as ever
    assert found["policy_loss"] != pytest.approx(every["policy_loss"], rel=1e-2)


def test_a_minibatch_without_a_whole_response_is_no_update_of_the_policy() -> None:
    data, targets = batch()
    cut = torch.zeros(len(LENGTHS), dtype=torch.bool)
    one = learner(minibatches=4, truncated="mask")
    before = [p.detach().clone() for p in one.policy.parameters()]
    found = one.update(0, replace(data, finished=cut), targets)
    assert not {"policy_loss", "approx_kl", "ratio_max", "grad_norm_policy"} & found.keys()
    assert "value_loss" in found
    assert all(torch.equal(old, new) for old, new in zip(before, one.policy.parameters(), strict=True))
    cut[0] = True  # of the four minibatches one has it: their mean is that of one update
    single = learner(minibatches=4, truncated="mask").update(0, replace(data, finished=cut), targets)
    wanted = learner(minibatches=1, truncated="mask").update(0, replace(data, finished=cut), targets)
    assert single["policy_loss"] == pytest.approx(wanted["policy_loss"], rel=1e-5)


def test_the_upper_end_of_the_clip_reaches_the_loss() -> None:
    low, high = (learner(minibatches=1, clip_high=value).update(0, *batch()) for value in (None, 2.0))
    assert high["clip_fraction"] < low["clip_fraction"]
    assert high["policy_loss"] != low["policy_loss"]


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
