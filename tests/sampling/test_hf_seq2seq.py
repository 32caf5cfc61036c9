"""HFSampler on encoder–decoders: greedy equals `generate`, logprobs equal a forward pass, prefixes go on."""

from __future__ import annotations

import pytest
import torch
from seq2seq_world import PLAIN, SEQ2SEQ, code_tokenizer, tiny_seq2seq
from transformers import PreTrainedModel

from psgpo.errors import UserError
from psgpo.models import right_pad, token_logprobs
from psgpo.prompts import encode_prompt
from psgpo.sampling import HFSampler

PROMPTS = [
    encode_prompt(code_tokenizer(), text)
    for text in ("sum", "add 3 to each", "keep the even numbers; then return the sum", "x" * 30, "")
]
WRITTEN = [[], [9], [41, 5, 60], [], [8, 8, 9, 10, 11, 12, 30]]
"""Of responses that go on: unlike lengths, so that rows are still read while others sample."""
PREFIXES = [*PROMPTS, *[(*prompt, *written) for prompt, written in zip(PROMPTS, WRITTEN, strict=True) if written]]
ROWS = [prefix for prefix in PREFIXES for _ in range(3)]


@pytest.fixture(scope="module", params=SEQ2SEQ)
def policy(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_seq2seq(request.param)


def generated(model: PreTrainedModel, prefix: tuple[int, ...], count: int) -> list[int]:
    cut = prefix.index(2) + 1
    start = torch.tensor([[0, *prefix[cut:]]])
    ids = model.generate(
        torch.tensor([prefix[:cut]]), decoder_input_ids=start, max_new_tokens=count, do_sample=False, num_beams=1
    )
    return ids[0, start.shape[1] :].tolist()


def test_greedy_equals_generate(policy: PreTrainedModel) -> None:
    policy.generation_config.forced_eos_token_id = None  # BART's: not the model's own distribution
    got = HFSampler(policy, code_tokenizer(), batch_size=4).sample(
        PREFIXES, seeds=[0] * len(PREFIXES), temperature=0.0, max_new_tokens=20
    )
    for prefix, completion in zip(PREFIXES, got, strict=True):
        assert list(completion.token_ids) == generated(policy, prefix, 20)
    assert len({completion.token_ids for completion in got}) >= 5


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.filterwarnings("ignore:T5GemmaForConditionalGeneration")
def test_logprobs_equal_a_fresh_forward_pass(policy: PreTrainedModel, temperature: float) -> None:
    sampler = HFSampler(policy, code_tokenizer(), batch_size=7)
    limits = [4 + i % 17 for i in range(len(ROWS))]
    completions = sampler.sample(ROWS, seeds=range(len(ROWS)), temperature=temperature, max_new_tokens=limits)
    assert len({len(completion.token_ids) for completion in completions}) > 5
    ids, mask = right_pad([[*p, *c.token_ids] for p, c in zip(ROWS, completions, strict=True)], 0)
    marked = mask * (torch.arange(ids.shape[1]) >= torch.tensor([len(p) for p in ROWS])[:, None])
    with torch.no_grad():
        fresh = token_logprobs(policy, ids, mask, marked, temperature=temperature)[0]
    sampled = torch.tensor([value for completion in completions for value in completion.logprobs])
    torch.testing.assert_close(sampled, fresh[marked.bool()], rtol=1e-4, atol=1e-4)


def test_seeds_repeat_and_neighbours_do_not_matter(policy: PreTrainedModel) -> None:
    options = {"max_new_tokens": 16, "temperature": 0.8, "top_p": 0.95}
    seeds = list(range(100, 100 + len(ROWS)))
    tokenizer = code_tokenizer()
    first = HFSampler(policy, tokenizer, batch_size=7).sample(ROWS, seeds=seeds, **options)
    assert first == HFSampler(policy, tokenizer, batch_size=7).sample(ROWS, seeds=seeds, **options)
    together = HFSampler(policy, tokenizer, batch_size=50).sample(ROWS[::-1], seeds=seeds[::-1], **options)[::-1]
    assert [c.token_ids for c in together] == [c.token_ids for c in first]
    for i in range(0, len(ROWS), 4):
        (alone,) = HFSampler(policy, tokenizer).sample([ROWS[i]], seeds=[seeds[i]], **options)
        assert alone.token_ids == first[i].token_ids
    assert len({c.token_ids for c in first}) > len(ROWS) // 2


@pytest.mark.parametrize("name", PLAIN)
def test_a_completion_continues_as_if_it_had_not_stopped(name: str) -> None:
    sampler = HFSampler(tiny_seq2seq(name), code_tokenizer())
    (whole,) = sampler.sample([PROMPTS[1]], seeds=[1], temperature=0.0, max_new_tokens=12)
    heads = [[*PROMPTS[1], *whole.token_ids[:cut]] for cut in range(len(whole.token_ids))]
    rests = sampler.sample(heads, seeds=[1] * len(heads), temperature=0.0, max_new_tokens=12)
    for cut, rest in enumerate(rests):
        expected = whole.token_ids[cut:]
        assert rest.token_ids[: len(expected)] == expected


def test_equal_prompts_are_read_once_and_steps_are_shared() -> None:
    sampler = HFSampler(tiny_seq2seq("t5"), code_tokenizer(), batch_size=len(ROWS))
    completions = sampler.sample(ROWS, seeds=range(len(ROWS)), max_new_tokens=15)
    longest = max(len(written) for written in WRITTEN)
    assert sampler.stats.prefill_tokens == sum(map(len, PROMPTS)) + len(PROMPTS)  # and one start token for each
    assert sampler.stats.steps <= 15 + longest
    assert sampler.stats.useful_tokens == sum(len(completion.token_ids) for completion in completions)


def test_prompts_read_a_few_at_a_time_give_the_same_states(
    policy: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"seeds": range(len(ROWS)), "max_new_tokens": 8}
    together = HFSampler(policy, code_tokenizer()).sample(ROWS, **options)
    monkeypatch.setattr("psgpo.sampling.seq2seq.ENCODER_TOKENS", 12)
    apart = HFSampler(policy, code_tokenizer()).sample(ROWS, **options)
    assert [c.token_ids for c in apart] == [c.token_ids for c in together]
    for one, other in zip(apart, together, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_rows_much_longer_than_others_do_not_make_them_wait() -> None:
    sampler = HFSampler(tiny_seq2seq("t5"), code_tokenizer())
    sampler.sample([PROMPTS[0], (*PROMPTS[0], *[9] * 60)], seeds=[0, 1], max_new_tokens=5)
    assert sampler.stats.steps <= 10


def test_a_prefix_without_a_whole_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="no end-of-sequence token"):
        HFSampler(tiny_seq2seq("t5"), code_tokenizer()).sample([PROMPTS[1][:-1]], seeds=[0])


def test_under_autocast_it_samples() -> None:
    model = tiny_seq2seq("t5")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        completions = HFSampler(model, code_tokenizer()).sample(ROWS, seeds=range(len(ROWS)), max_new_tokens=6)
    assert all(completion.token_ids for completion in completions)
