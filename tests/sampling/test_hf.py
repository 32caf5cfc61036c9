"""HFSampler: logprobs, seeds, neighbours, limits, ends, every architecture."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from models_world import ARCHITECTURES, UNUSUAL, tiny_policy
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from psgpo.errors import UserError
from psgpo.models import right_pad, token_logprobs
from psgpo.records import Completion
from psgpo.sampling import HFSampler, continuous
from psgpo.sampling.continuous import slots_reproduce
from psgpo.sampling.slots import SlotCache

RNG = np.random.default_rng(0)
PREFIXES = [RNG.integers(2, 250, size=length).tolist() for length in (1, 2, 3, 5, 5, 8, 13, 30)]
ROWS = [prefix for prefix in PREFIXES for _ in range(3)]


@pytest.fixture(scope="module", params=[*ARCHITECTURES, *UNUSUAL])
def policy(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_policy(request.param, tokenizer)


@pytest.fixture(scope="module")
def shift(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_policy("psgpo-shift", tokenizer)


def ids_of(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


def test_known_architectures_decode_in_slots_and_unusual_ones_do_not(policy: PreTrainedModel) -> None:
    with torch.inference_mode():
        assert slots_reproduce(policy, 0) == (policy.config.model_type not in UNUSUAL)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_autocast_decodes_in_slots_too(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """There keys may come in float32 beside values in bfloat16."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert slots_reproduce(tiny_policy(name, tokenizer), 0)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_a_fresh_forward_pass(
    policy: PreTrainedModel, temperature: float, tokenizer: PreTrainedTokenizerFast
) -> None:
    sampler = HFSampler(policy, tokenizer, batch_size=5)
    limits = [4 + i % 17 for i in range(len(ROWS))]
    completions = sampler.sample(ROWS, seeds=range(len(ROWS)), temperature=temperature, max_new_tokens=limits)
    assert len({len(completion.token_ids) for completion in completions}) > 5
    for prefix, completion in zip(ROWS, completions, strict=True):
        ids, mask = right_pad([[*prefix, *completion.token_ids]], 0)
        marked = (torch.arange(ids.shape[1]) >= len(prefix)).long()[None]
        fresh, _ = token_logprobs(policy, ids, mask, marked, temperature=temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs), fresh[0, len(prefix) :], rtol=1e-4, atol=1e-4)
        assert sum(completion.logprobs) == pytest.approx(fresh.sum().item(), rel=1e-4, abs=1e-3)


def test_greedy_equals_generate(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    sampler = HFSampler(policy, tokenizer, batch_size=3)
    got = sampler.sample(PREFIXES, seeds=[0] * len(PREFIXES), temperature=0.0, max_new_tokens=24)
    for prefix, completion in zip(PREFIXES, got, strict=True):
        ids = torch.tensor([prefix])
        mask = torch.ones_like(ids)
        want = policy.generate(ids, attention_mask=mask, max_new_tokens=24, do_sample=False, pad_token_id=0)
        assert list(completion.token_ids) == want[0, len(prefix) :].tolist()


def test_seeds_repeat_and_neighbours_do_not_matter(shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    options = {"max_new_tokens": 20, "temperature": 0.8}
    seeds = list(range(100, 100 + len(ROWS)))
    first = HFSampler(shift, tokenizer, batch_size=7).sample(ROWS, seeds=seeds, **options)
    again = HFSampler(shift, tokenizer, batch_size=7).sample(ROWS, seeds=seeds, **options)
    assert first == again
    order = RNG.permutation(len(ROWS)).tolist()
    shuffled = HFSampler(shift, tokenizer, batch_size=50).sample(
        [ROWS[i] for i in order], seeds=[seeds[i] for i in order], **options
    )
    assert ids_of(shuffled) == [first[i].token_ids for i in order]
    alone = [HFSampler(shift, tokenizer).sample([ROWS[i]], seeds=[seeds[i]], **options)[0] for i in range(8)]
    assert ids_of(alone) == ids_of(first[:8])


@pytest.mark.parametrize("name", ["llama", "psgpo-shift"])
def test_both_loops_give_the_same_tokens(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_policy(name, tokenizer)
    fast, plain = HFSampler(model, tokenizer, batch_size=6), HFSampler(model, tokenizer, batch_size=6)
    plain._in_slots = False
    got, want = (s.sample(ROWS, seeds=range(len(ROWS)), max_new_tokens=18, top_p=0.9) for s in (fast, plain))
    assert ids_of(got) == ids_of(want)
    assert fast._in_slots


def test_other_seeds_give_other_tokens(shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [PREFIXES[4]] * 40
    completions = HFSampler(shift, tokenizer).sample(rows, seeds=range(40), max_new_tokens=8, temperature=2.0)
    assert len(set(ids_of(completions))) > 30


def test_first_tokens_follow_the_models_distribution(
    shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prefix, draws = PREFIXES[5], 4000
    sampler = HFSampler(shift, tokenizer, batch_size=draws)
    completions = sampler.sample([prefix] * draws, seeds=range(draws), max_new_tokens=1)
    counts = Counter(completion.token_ids[0] for completion in completions)
    with torch.no_grad():
        probabilities = shift(torch.tensor([prefix])).logits[0, -1].softmax(-1)
    for token, probability in zip(*[t.tolist() for t in reversed(probabilities.topk(5))], strict=True):
        deviation = (probability * (1 - probability) / draws) ** 0.5
        assert abs(counts[token] / draws - probability) < 4.5 * deviation
    assert sampler.stats.prefill_tokens == len(prefix) - 1


def test_a_row_ends_at_any_listed_end_token_and_keeps_it(
    shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    free = HFSampler(shift, tokenizer).sample(ROWS, seeds=range(len(ROWS)), max_new_tokens=20)
    ends = [free[0].token_ids[3], free[5].token_ids[6]]
    old = shift.generation_config.eos_token_id
    shift.generation_config.eos_token_id = ends
    try:
        stopped = HFSampler(shift, tokenizer, batch_size=4).sample(ROWS, seeds=range(len(ROWS)), max_new_tokens=20)
    finally:
        shift.generation_config.eos_token_id = old
    assert any(completion.finished for completion in stopped)
    for whole, completion in zip(free, stopped, strict=True):
        where = [i for i, token in enumerate(whole.token_ids) if token in {*ends, tokenizer.eos_token_id}]
        length = where[0] + 1 if where else 20
        assert completion.token_ids == whole.token_ids[:length]
        assert completion.finished == bool(where)
        assert len(completion.logprobs) == length


def test_limits_are_per_row(shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    limits = [1 + i % 9 for i in range(len(ROWS))]
    completions = HFSampler(shift, tokenizer, batch_size=6).sample(ROWS, seeds=[3] * len(ROWS), max_new_tokens=limits)
    for completion, limit in zip(completions, limits, strict=True):
        assert len(completion.token_ids) == limit or (completion.finished and len(completion.token_ids) < limit)


def test_a_completion_continues_as_if_it_had_not_stopped(
    shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    sampler = HFSampler(shift, tokenizer)
    whole = sampler.sample([PREFIXES[6]], seeds=[1], temperature=0.0, max_new_tokens=20)[0]
    head = [*PREFIXES[6], *whole.token_ids[:9]]
    rest = sampler.sample([head], seeds=[1], temperature=0.0, max_new_tokens=11)[0]
    assert whole.token_ids[9:] == rest.token_ids


def test_the_models_mode_is_restored_and_nothing_keeps_a_graph(
    shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    shift.train()
    HFSampler(shift, tokenizer).sample(PREFIXES, seeds=range(8), max_new_tokens=3)
    assert shift.training
    shift.eval()
    HFSampler(shift, tokenizer).sample(PREFIXES, seeds=range(8), max_new_tokens=3)
    assert not shift.training
    shift(torch.tensor([PREFIXES[5]]), labels=torch.tensor([PREFIXES[5]])).loss.backward()
    shift.zero_grad()


def test_stats_count_what_was_returned(shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    sampler = HFSampler(shift, tokenizer, batch_size=len(ROWS))
    completions = sampler.sample(ROWS, seeds=range(len(ROWS)), max_new_tokens=15)
    before = sampler.stats
    assert before.completions == len(ROWS)
    assert before.useful_tokens == sum(len(completion.token_ids) for completion in completions)
    assert before.useful_tokens <= before.slot_steps <= len(ROWS) * before.steps
    assert before.prefill_tokens == sum(len(prefix) - 1 for prefix in PREFIXES)
    assert 0.5 < before.utilisation <= 1
    sampler.sample(ROWS[:1], seeds=[0], max_new_tokens=1)
    assert (sampler.stats - before).completions == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_prefixes_are_read_in_parts_of_bounded_size(
    name: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_policy(name, tokenizer)
    read: list[int] = []
    model.register_forward_pre_hook(lambda _, __, named: read.append(named["input_ids"].numel()), with_kwargs=True)
    sampler = HFSampler(model, tokenizer, batch_size=len(ROWS))
    assert sampler.sample(ROWS[:1], seeds=[0], max_new_tokens=1)  # finds out about slots
    drawn, passes = [], []
    for tokens in (1 << 20, 12):
        monkeypatch.setattr(continuous, "_PREFILL_NUMBERS", tokens * 32)
        read.clear()
        before = sampler.stats
        drawn.append(sampler.sample(ROWS, seeds=range(len(ROWS)), max_new_tokens=1))
        assert (sampler.stats - before).prefill_tokens == sum(len(prefix) - 1 for prefix in PREFIXES)
        passes.append(sorted(read[:-1]))  # the last one is the step
    assert ids_of(drawn[0]) == ids_of(drawn[1])
    # Bodies of 0, 1, 2, 4, 4, 7, 12 and 29 tokens: all of them padded to 29, or at most 12 tokens but for the longest.
    assert passes == [[8 * 29], [2 * 1, 7, 3 * 4, 12, 29]]


def test_nothing_to_sample(shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    assert HFSampler(shift, tokenizer).sample([], seeds=[]) == []


@pytest.mark.parametrize(
    ("prefixes", "options", "message"),
    [
        ([[5] * 90], {"max_new_tokens": 10}, r"90 tokens \+ max_new_tokens 10 exceed .* 96"),
        ([[]], {}, "prefix 0 is empty"),
        ([[5]], {"max_new_tokens": 0}, "at least 1"),
        ([[5]], {"max_new_tokens": [3, 4]}, "1 prefixes, 1 seeds, 2 limits"),
        ([[5]], {"temperature": -1.0}, "temperature"),
        ([[5]], {"top_p": 0.0}, "top_p"),
    ],
)
def test_impossible_requests_say_what_to_do(
    shift: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prefixes: list[list[int]], options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        HFSampler(shift, tokenizer).sample(prefixes, seeds=[0] * len(prefixes), **({"max_new_tokens": 4} | options))


def test_slots_grow_move_and_load() -> None:
    """A cache of 3 slots against rows kept by hand."""
    cache, torch_rng = SlotCache(1, 3, 2), torch.Generator().manual_seed(0)
    source = DynamicCache()
    source.update(torch.randn(1, 2, 3, 4, generator=torch_rng), torch.randn(1, 2, 3, 4, generator=torch_rng), 0)
    cache.load(torch.tensor([2]), torch.tensor([0]), source)
    want = source.layers[0].keys[0]
    for step in range(4):
        cache.begin_step(torch.tensor([step, step, 3 + step]), 4 + step)
        new = torch.randn(3, 2, 1, 4, generator=torch_rng)
        keys, _ = cache.update(new, new, 0)
        want = torch.cat([want, new[2]], dim=1)
        assert torch.equal(keys[2], want)
    cache.move(torch.tensor([2]), torch.tensor([0]), 7)
    cache.begin_step(torch.tensor([7]), 8)
    new = torch.zeros(1, 2, 1, 4)
    assert torch.equal(cache.update(new, new, 0)[0][0], torch.cat([want, new[0]], dim=1))
