"""VllmSampler against HFSampler on the same weights, with the real engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engines_world import BLOCK, CONTEXT, ENDS, random_prefixes

from psgpo.errors import UserError
from psgpo.models import create_policy, load_policy, right_pad, token_logprobs
from psgpo.records import Completion
from psgpo.sampling import Sampler, open_sampler
from psgpo.sampling.vllm import VllmSampler

pytestmark = pytest.mark.timeout(900)
PREFIXES = random_prefixes([1, 2, 3, 5, 8, 13, 30, 100])
ROWS = PREFIXES * 3


@pytest.fixture(scope="module")
def engine(llama: Path) -> Iterator[VllmSampler]:
    sampler, _ = open_sampler(f"vllm:{llama}", batch_size=64, enforce_eager=True, block_size=BLOCK)
    assert isinstance(sampler, VllmSampler)
    yield sampler
    sampler.close()


def ids_of(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


def test_greedy_equals_the_model_in_this_process(engine: VllmSampler, hf: Sampler) -> None:
    options = {"seeds": [0] * len(PREFIXES), "temperature": 0.0, "max_new_tokens": 40}
    got, want = engine.sample(PREFIXES, **options), hf.sample(PREFIXES, **options)
    assert ids_of(got) == ids_of(want)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.finished == theirs.finished
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=2e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_the_tempered_distribution(temperature: float, engine: VllmSampler, llama: Path) -> None:
    model, _ = load_policy(llama)
    completions = engine.sample(ROWS, seeds=range(len(ROWS)), temperature=temperature, max_new_tokens=20)
    for prefix, completion in zip(ROWS, completions, strict=True):
        ids, mask = right_pad([[*prefix, *completion.token_ids]], 0)
        marked = (torch.arange(ids.shape[1]) >= len(prefix)).long()[None]
        with torch.no_grad():
            fresh, _ = token_logprobs(model, ids, mask, marked, temperature=temperature)
        assert completion.logprobs == pytest.approx(fresh[0, len(prefix) :].tolist(), abs=5e-4)


def test_truncated_logprobs_are_undefined(engine: VllmSampler) -> None:
    for completion in engine.sample(PREFIXES, seeds=range(8), top_p=0.5, max_new_tokens=5):
        assert len(completion.logprobs) == len(completion.token_ids)
        assert all(map(math.isnan, completion.logprobs))


def test_seeds_repeat_whatever_the_neighbours(engine: VllmSampler) -> None:
    options = {"temperature": 0.9, "max_new_tokens": 20}
    seeds = [2**62 + i for i in range(len(ROWS))]
    first = engine.sample(ROWS, seeds=seeds, **options)
    again = engine.sample(ROWS, seeds=seeds, **options)  # its prefixes are cached by now: other last bits
    assert ids_of(again) == ids_of(first)
    backwards = engine.sample(ROWS[::-1], seeds=seeds[::-1], **options)
    assert ids_of(backwards)[::-1] == ids_of(first)
    assert len(set(ids_of(engine.sample([PREFIXES[4]] * 40, seeds=range(40), temperature=2.0)))) > 30


def test_first_tokens_follow_the_models_distribution(engine: VllmSampler, llama: Path) -> None:
    prefix, draws = PREFIXES[5], 2000
    completions = engine.sample([prefix] * draws, seeds=range(draws), max_new_tokens=1)
    counts = Counter(completion.token_ids[0] for completion in completions)
    with torch.no_grad():
        probabilities = load_policy(llama)[0](torch.tensor([prefix])).logits[0, -1].softmax(-1)
    for token, probability in zip(*[t.tolist() for t in reversed(probabilities.topk(5))], strict=True):
        deviation = (probability * (1 - probability) / draws) ** 0.5
        assert abs(counts[token] / draws - probability) < 4.5 * deviation


def test_a_shared_prefix_is_computed_once(engine: VllmSampler) -> None:
    prefix = random_prefixes([7, 200])[1]
    before = engine.stats
    engine.sample([prefix], seeds=[0], max_new_tokens=4)
    assert (engine.stats - before).prefill_tokens == 200
    before = engine.stats
    completions = engine.sample([prefix] * 10, seeds=range(10), max_new_tokens=4)
    part = engine.stats - before
    assert part.prefill_tokens == 10 * (200 % BLOCK)  # whole blocks are kept
    assert part.completions == 10
    assert part.useful_tokens == sum(len(completion.token_ids) for completion in completions)


def test_more_prompt_tokens_than_one_step_takes(engine: VllmSampler, hf: Sampler) -> None:
    """20,000 of them, seeded: cut into chunks they would end vLLM's CPU engine."""
    prefixes = random_prefixes([500] * 40)
    completions = engine.sample(prefixes, seeds=range(40), max_new_tokens=4)
    assert ids_of(engine.sample(prefixes[:4], seeds=range(4), max_new_tokens=4)) == ids_of(completions[:4])
    greedy = {"seeds": range(4), "temperature": 0.0, "max_new_tokens": 4}
    assert ids_of(engine.sample(prefixes[:4], **greedy)) == ids_of(hf.sample(prefixes[:4], **greedy))


def test_limits_and_ends_are_per_row(engine: VllmSampler) -> None:
    limits = [1 + i % 30 for i in range(len(ROWS))]
    completions = engine.sample(ROWS, seeds=range(len(ROWS)), temperature=2.0, max_new_tokens=limits)
    many = engine.sample([PREFIXES[3]] * 200, seeds=range(200), temperature=2.0, max_new_tokens=60)
    for limit, completion in [*zip(limits, completions, strict=True), *[(60, completion) for completion in many]]:
        *inner, last = completion.token_ids
        assert completion.finished == (last in ENDS)
        assert not set(inner) & set(ENDS)
        assert len(completion.token_ids) == limit or completion.finished
    assert {completion.token_ids[-1] for completion in many if completion.finished} == set(ENDS)


def test_impossible_requests_say_what_to_do(engine: VllmSampler) -> None:
    assert engine.sample([], seeds=[]) == []
    with pytest.raises(UserError, match=f"exceed its context of {CONTEXT}"):
        engine.sample([[5] * 500], seeds=[0], max_new_tokens=20)
    with pytest.raises(UserError, match="prefix 0 is empty"):
        engine.sample([[]], seeds=[0])


def test_models_and_devices_it_cannot_serve(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="built for cpu, not for cuda"):
        open_sampler(f"vllm:{llama}", device="cuda")
    with pytest.raises(UserError, match="vLLM cannot load it"):
        open_sampler(f"vllm:{llama}", no_such_argument=1)
    _, tokenizer = load_policy(llama)
    create_policy(tokenizer, hidden_size=32, num_hidden_layers=1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="vLLM cannot load it"):
        open_sampler(f"vllm:{tmp_path}")
