"""OpenAISampler against a real `vllm serve`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from engines_world import CONTEXT, TASKS, Served, problems, random_prefixes, serve

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import RefusedRowsError, UserError
from psgpo.execution import Sandbox
from psgpo.labeling import Labelling, label_responses, sample_responses
from psgpo.models import load_tokenizer
from psgpo.records import Completion
from psgpo.sampling import Sampler, open_sampler
from psgpo.sampling.openai import OpenAISampler

pytestmark = pytest.mark.timeout(900)
PREFIXES = random_prefixes([1, 2, 3, 5, 8, 13, 30, 100])


@pytest.fixture(scope="module")
def remote(served: Served, llama: Path) -> OpenAISampler:
    sampler, _ = open_sampler(f"openai:{served.url}#tiny", tokenizer=llama, batch_size=32)
    assert isinstance(sampler, OpenAISampler)
    return sampler


def ids_of(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


def test_ids_in_ids_out_equals_the_model_in_this_process(remote: OpenAISampler, hf: Sampler) -> None:
    assert remote.continuation == "ids"
    assert remote.context == CONTEXT
    options = {"seeds": [0] * len(PREFIXES), "temperature": 0.0, "max_new_tokens": 40}
    got, want = remote.sample(PREFIXES, **options), hf.sample(PREFIXES, **options)
    assert ids_of(got) == ids_of(want)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.finished == theirs.finished
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=2e-4)


def test_seeds_repeat_and_are_per_row(remote: OpenAISampler) -> None:
    rows = [PREFIXES[4]] * 60
    first = remote.sample(rows, seeds=range(60), max_new_tokens=30, temperature=2.0)
    assert ids_of(remote.sample(rows, seeds=range(60), max_new_tokens=30, temperature=2.0)) == ids_of(first)
    assert len(set(ids_of(first))) > 50
    assert all(completion.finished == (completion.token_ids[-1] in (1, 20)) for completion in first)


def check_programs_by_heart(sampler: Sampler, tokenizer: Any, hf: Sampler) -> list[tuple[Completion, Completion]]:
    """Prefixes that the tokenizer wrote itself, so that they survive as text: greedy endings equal those drawn here."""
    texts = [f"# {words}\n{program}" for words, program, _ in TASKS.values()]
    wholes = [tokenizer(text)["input_ids"] for text in texts]
    prefixes = [whole[:cut] for whole in wholes for cut in (len(whole) // 2, len(whole) - 4)]
    options = {"seeds": [0] * len(prefixes), "temperature": 0.0, "max_new_tokens": 60}
    got, want = sampler.sample(prefixes, **options), hf.sample(prefixes, **options)
    assert ids_of(got) == ids_of(want)
    assert all(completion.finished for completion in got)
    return list(zip(got, want, strict=True))


@pytest.mark.parametrize("way", ["ids-in", "text"])
def test_a_server_taken_for_one_that_returns_no_ids(way: str, served: Served, llama: Path, hf: Sampler) -> None:
    sampler, tokenizer = open_sampler(f"openai:{served.url}#tiny", tokenizer=llama)
    sampler.continuation = way
    for ours, theirs in check_programs_by_heart(sampler, tokenizer, hf):
        assert ours.logprobs[:-1] == pytest.approx(theirs.logprobs[:-1], abs=2e-4)


def test_a_server_that_takes_text_only(llama: Path, hf: Sampler, tmp_path: Path) -> None:
    with serve("transformers", llama, tmp_path / "log.txt") as server:
        sampler, tokenizer = open_sampler(f"openai:{server.url}#{llama}", tokenizer=llama, batch_size=1)
        assert sampler.continuation == "text"
        for ours, _ in check_programs_by_heart(sampler, tokenizer, hf):
            assert all(map(math.isnan, ours.logprobs))  # it gives none
        with pytest.raises(RefusedRowsError, match="the prefix, as text, encodes to other ids"):
            sampler.sample(PREFIXES[-1:], seeds=[0], temperature=0.0, max_new_tokens=4)


def test_what_the_server_refuses_is_shown(served: Served, remote: OpenAISampler, llama: Path) -> None:
    with pytest.raises(UserError, match=r"HTTP 404 .*`wrong` does not exist.*it serves tiny"):
        open_sampler(f"openai:{served.url}#wrong", tokenizer=llama)
    with pytest.raises(UserError, match=f"exceed its context of {CONTEXT}"):
        remote.sample([[5] * 500], seeds=[0], max_new_tokens=20)
    remote.context = None  # as with a server that does not tell
    try:
        with pytest.raises(UserError, match=r"HTTP 400 .*context length"):
            remote.sample([[5] * 600], seeds=[0], max_new_tokens=20)
        # vLLM generates less than was asked for when the rest does not fit, and calls it finished by length.
        with pytest.raises(RefusedRowsError, match="7 of 20 tokens"):
            remote.sample(random_prefixes([CONTEXT - 7] * 8), seeds=range(8), max_new_tokens=20)
    finally:
        remote.context = CONTEXT


class Greedy:
    """The likeliest token each time, so that two engines can be compared."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def sample(self, prefixes: Any, *, seeds: Any, max_new_tokens: Any, **_: Any) -> list[Completion]:
        return self.sampler.sample(prefixes, seeds=seeds, temperature=0.0, max_new_tokens=max_new_tokens)


def test_labels_through_the_server_equal_labels_in_this_process(
    remote: OpenAISampler, hf: Sampler, llama: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(llama)
    with Sandbox(workers=1, timeout=5.0, memory_mb=512) as sandbox:
        responses = sample_responses(
            hf,
            tokenizer,
            problems(),
            sandbox,
            checkpoint="one",
            responses_per_problem=8,
            seed=1,
            prompt_template="{prompt}",
            settings=SamplingSettings(max_new_tokens=90, temperature=1.5),
        )

        def label(name: str, sampler: Sampler) -> Labelling:
            return label_responses(
                responses,
                problems(),
                samplers={"one": Greedy(sampler)},
                tokenizer=tokenizer,
                sandbox=sandbox,
                settings=LabelSettings(k=2, draw=1, in_flight=8),
                sampling=SamplingSettings(max_new_tokens=90),
                seed=3,
                journal=tmp_path / f"{name}.jsonl",
            )

        here, there = label("here", hf), label("there", remote)
    assert there.labels == here.labels
    failed = [labels.labels for labels in here.labels if not labels.response.verdict.passed]
    assert {value for labels in failed for value in labels} >= {1.0, -1.0}
    assert sum(labels.completions for labels in here.labels) > len(failed)
