"""The shift decoder: causality, padding, cache and generation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models_world import TEXT, save, tiny_policy
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from psgpo.models import create_policy


@pytest.fixture(scope="module")
def policy(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_policy("psgpo-shift", tokenizer)


IDS = torch.tensor([[5, 9, 200, 17, 31, 44, 8]])


def test_default_size_is_about_a_quarter_of_a_million(tokenizer: PreTrainedTokenizerFast) -> None:
    from psgpo.models import ShiftConfig, ShiftForCausalLM

    assert 200_000 < ShiftForCausalLM(ShiftConfig()).num_parameters() < 260_000


def test_no_position_sees_the_future_and_each_sees_the_past(policy: PreTrainedModel) -> None:
    with torch.no_grad():
        base = policy(IDS).logits
        for position in range(IDS.shape[1]):
            other = IDS.clone()
            other[0, position] = 77
            moved = (policy(other).logits - base).abs().amax(-1)[0]
            assert torch.all(moved[:position] == 0)
            assert torch.all(moved[position:] > 1e-4)


def test_padding_left_or_right_changes_nothing(policy: PreTrainedModel) -> None:
    with torch.no_grad():
        want = policy(IDS).logits
        pad, ones = torch.zeros(1, 3, dtype=torch.long), torch.ones_like(IDS)
        right = policy(torch.cat([IDS, pad], 1), attention_mask=torch.cat([ones, pad], 1)).logits[:, :7]
        left = policy(torch.cat([pad, IDS], 1), attention_mask=torch.cat([pad, ones], 1)).logits[:, 3:]
        both = policy(
            torch.cat([torch.cat([IDS, pad], 1), torch.cat([pad, IDS], 1)]),
            attention_mask=torch.cat([torch.cat([ones, pad], 1), torch.cat([pad, ones], 1)]),
        ).logits
    for got in (right, left, both[:1, :7], both[1:, 3:]):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 2, 3, 6])
def test_a_cache_continues_where_it_stopped(policy: PreTrainedModel, cut: int) -> None:
    with torch.no_grad():
        want = policy(IDS).logits
        cache = DynamicCache(config=policy.config)
        first = policy(IDS[:, :cut], past_key_values=cache, use_cache=True).logits
        before = torch.cat([torch.zeros(1, 2, dtype=torch.long), IDS[:, :cut]], 1)[:, -2:]
        second = policy(IDS[:, cut:], past_key_values=cache, use_cache=True, shift_ids=before).logits
    torch.testing.assert_close(torch.cat([first, second], 1), want, rtol=1e-4, atol=1e-5)


def test_a_cache_without_the_two_tokens_before_is_refused(policy: PreTrainedModel) -> None:
    with torch.no_grad():
        cache = policy(IDS, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="shift_ids"):
            policy(IDS[:, :1], past_key_values=cache)


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_equals_recomputing_everything(policy: PreTrainedModel, beams: int) -> None:
    options = {"max_new_tokens": 12, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    ids = torch.tensor([[0, 0, 0, 5, 9], [5, 9, 200, 17, 31]])
    mask = (ids != 0).long()
    cached = policy.generate(ids, attention_mask=mask, **options)
    assert cached.tolist() == policy.generate(ids, attention_mask=mask, use_cache=False, **options).tolist()
    alone = policy.generate(ids[:1, 3:], attention_mask=mask[:1, 3:], **options)[0, 2:].tolist()
    assert cached[0, 5 : 5 + len(alone)].tolist() == alone


def test_saving_and_loading_keeps_every_logit(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(save(policy, tokenizer, tmp_path))
    torch.testing.assert_close(loaded(IDS).logits, policy(IDS).logits, rtol=0, atol=1e-5)


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = (create_policy(tokenizer, seed=seed, hidden_size=32) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), want)
    torch.testing.assert_close(one(IDS).logits, two(IDS).logits, rtol=0, atol=1e-6)
    assert not torch.allclose(one(IDS).logits, other(IDS).logits)


def test_it_learns_one_text_in_a_few_steps(tokenizer: PreTrainedTokenizerFast) -> None:
    model = create_policy(tokenizer).train()
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        model(ids)  # tables built here must still serve training
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 4
    assert losses[-1] < 0.5
