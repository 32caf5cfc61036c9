"""OpenAISampler against a server of the tests' own: three ways to go on exactly, and everything servers do wrong."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from model_server import Answer, FakeServer, Reply, fake_server
from psgpo.errors import RefusedRowsError, UserError
from psgpo.remote import Endpoint, RefusedError
from psgpo.sampling.exact import MisalignedError, TextBorder
from psgpo.sampling.openai import OpenAISampler

EOS = 1
# The tokenizer joins a newline with the spaces behind it.
PROMPTS = ["# keep the even numbers\ndef solve(x):\n    ", "def solve(x):\n    out = []\n    ", "x = out\n    "]
ENDINGS = ["return sum(x)\n", "out = []\n    return sum(x)\n", "for v in x:\n        out.append(v + 3)\n"]
WAYS = ["ids", "ids-in", "text"]


class Toy:
    """A completions server whose reply to seed s is ENDINGS[s], cut at max_tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, way: str, spoil: Callable[..., Answer] | None = None
    ) -> None:
        self.tokenizer, self.way, self.spoil = tokenizer, way, spoil
        self.first = 1 if way == "ids" else 2 if way == "ids-in" else 3
        """Number of the first request that is no probe."""

    def __call__(self, request: dict[str, Any], number: int) -> Answer:
        if isinstance(request["prompt"], list) and self.way == "text":
            return 400, '{"error": {"message": "prompt must be a string"}}'
        reply = self.answer(request)
        return self.spoil(reply, request) if self.spoil and number >= self.first else reply

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        prompt = request["prompt"]
        read = prompt if isinstance(prompt, list) else self.tokenizer(prompt)["input_ids"]
        whole = [*self.tokenizer(ENDINGS[request["seed"] % 3])["input_ids"], EOS]
        ids = whole[: request["max_tokens"]]
        shown = [token for token in ids if token != EOS]
        choice = {
            "index": 0,
            "text": self.tokenizer.decode(shown),
            "finish_reason": "stop" if ids[-1] == EOS else "length",
            "logprobs": {
                "tokens": [self.tokenizer.decode([token]) for token in shown],
                "token_logprobs": [-0.5 * (i + 1) for i in range(len(ids))],
            },
        }
        if self.way == "ids" and request.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": read}
        return {"choices": [choice], "usage": {"prompt_tokens": len(read), "completion_tokens": len(ids)}}


def sampler(state: FakeServer, tokenizer: PreTrainedTokenizerFast, **options: Any) -> OpenAISampler:
    concurrency = options.pop("concurrency", 8)
    endpoint = Endpoint(**({"url": state.url, "timeout": 5.0, "pause": 0.01} | options))
    return OpenAISampler(endpoint, "toy", tokenizer, stop_ids=frozenset([EOS]), concurrency=concurrency)


def prefixes(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] for text in PROMPTS]


def drawn(reply: Reply, tokenizer: PreTrainedTokenizerFast, **options: Any) -> tuple[list[Any], FakeServer]:
    with fake_server(reply) as state:
        rows = prefixes(tokenizer)
        return sampler(state, tokenizer).sample(rows, seeds=[0, 1, 2], **({"max_new_tokens": 60} | options)), state


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_ids_the_server_sampled(way: str, tokenizer: PreTrainedTokenizerFast) -> None:
    completions, state = drawn(Toy(tokenizer, way), tokenizer, temperature=1.0)
    for ending, completion in zip(ENDINGS, completions, strict=True):
        ids = tokenizer(ending)["input_ids"]
        assert completion.token_ids == (*ids, EOS)
        assert completion.finished
        assert completion.logprobs[: len(ids)] == tuple(-0.5 * (i + 1) for i in range(len(ids)))
    asked = state.requests[-3:]
    assert [type(request["prompt"]) for request in asked] == [str if way == "text" else list] * 3
    if way != "text":
        assert sorted(request["prompt"] for request in asked) == sorted(prefixes(tokenizer))
    assert all(request["path"] == "/v1/completions" and request["model"] == "toy" for request in asked)


def test_what_a_model_folder_would_change_is_sent(tokenizer: PreTrainedTokenizerFast) -> None:
    _, state = drawn(Toy(tokenizer, "ids"), tokenizer, temperature=0.7, top_p=0.9)
    last = state.requests[-1]
    assert {name: last[name] for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")} == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    assert last["stop_token_ids"] == [EOS]


@pytest.mark.parametrize("way", WAYS)
def test_limits_are_per_row_and_a_cut_reply_is_unfinished(way: str, tokenizer: PreTrainedTokenizerFast) -> None:
    completions, _ = drawn(Toy(tokenizer, way), tokenizer, max_new_tokens=[2, 60, 1])
    assert [len(completion.token_ids) for completion in completions][::2] == [2, 1]
    assert [completion.finished for completion in completions] == [False, True, False]


@pytest.mark.parametrize("options", [{"temperature": 0.7}, {"top_p": 0.9}])
def test_logprobs_of_another_distribution_are_undefined(
    options: dict[str, float], tokenizer: PreTrainedTokenizerFast
) -> None:
    completions, _ = drawn(Toy(tokenizer, "ids"), tokenizer, **options)
    for completion in completions:
        assert len(completion.logprobs) == len(completion.token_ids)
        assert all(map(math.isnan, completion.logprobs))


def test_logprobs_of_other_ids_are_undefined(tokenizer: PreTrainedTokenizerFast) -> None:
    """The server sampled the text in other pieces than the tokenizer makes of it."""

    def other_pieces(reply: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        reply["choices"][0]["logprobs"]["tokens"][0] = "    "
        return reply

    completions, _ = drawn(Toy(tokenizer, "ids-in", other_pieces), tokenizer)
    assert all(math.isnan(value) for completion in completions for value in completion.logprobs)


def test_rows_stay_in_order_and_requests_within_the_limit(tokenizer: PreTrainedTokenizerFast) -> None:
    toy = Toy(tokenizer, "ids")

    def slow_for_some(reply: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.01 * (request["seed"] % 3))
        return reply

    toy.spoil = slow_for_some
    with fake_server(toy) as state:
        opened = sampler(state, tokenizer, concurrency=4)
        rows = prefixes(tokenizer) * 10
        seeds = range(2**40, 2**40 + 30)
        completions = opened.sample(rows, seeds=seeds, max_new_tokens=60)
        assert 1 < state.most_busy <= 4
        assert {request["seed"] for request in state.requests[1:]} == {
            seed % 2**31 for seed in range(2**40, 2**40 + 30)
        }
    by_seed = [(*tokenizer(ENDINGS[seed % 2**31 % 3])["input_ids"], EOS) for seed in seeds]
    assert [completion.token_ids for completion in completions] == by_seed
    assert opened.stats.completions == 30
    assert opened.stats.useful_tokens == sum(map(len, by_seed))
    assert opened.stats.prefill_tokens == sum(map(len, rows))
    assert math.isnan(opened.stats.utilisation)


def test_ids_that_are_no_text_need_a_server_that_takes_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    """A policy samples `r`, `e`, `t` where the tokenizer would write `return` in one piece."""
    rows = prefixes(tokenizer)
    odd = [
        token for char in "    out = []" for token in tokenizer.convert_tokens_to_ids([char if char != " " else "Ġ"])
    ]
    assert tokenizer.decode(odd) == "    out = []"
    assert tokenizer("    out = []")["input_ids"] != odd
    with fake_server(Toy(tokenizer, "text")) as state:
        with pytest.raises(RefusedRowsError, match=r"1 of 3 replies .* row 1: the prefix, as text") as caught:
            sampler(state, tokenizer).sample([rows[0], odd, rows[2]], seeds=[0, 1, 2], max_new_tokens=60)
        assert len(state.requests) == 3 + 2
    assert list(caught.value.refused) == [1]
    kept = caught.value.completions
    assert kept[1] is None
    assert kept[2].token_ids == (*tokenizer(ENDINGS[2])["input_ids"], EOS)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.refused == caught.value.refused
    for way in ("ids", "ids-in"):
        with fake_server(Toy(tokenizer, way)) as state:
            completion = sampler(state, tokenizer).sample([odd], seeds=[1], max_new_tokens=60)[0]
        assert completion.token_ids == (*tokenizer(ENDINGS[1])["input_ids"], EOS)


def test_a_merge_across_the_border_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    """`out = ` is one way to cut the text before the reply is known, and another one with it."""
    whole = tokenizer("    out = []\n")["input_ids"]
    halves = [("    out = []\n"[:n], "    out = []\n"[n:]) for n in range(1, 12)]
    head, tail = next((a, b) for a, b in halves if tokenizer(a)["input_ids"] != whole[: len(tokenizer(a)["input_ids"])])

    def continues(reply: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        reply["choices"][0] |= {"text": tail, "finish_reason": "stop"}
        return reply

    with (
        fake_server(Toy(tokenizer, "text", continues)) as state,
        pytest.raises(RefusedRowsError, match="do not begin with the prefix"),
    ):
        sampler(state, tokenizer).sample([tokenizer(head)["input_ids"]], seeds=[0], max_new_tokens=60)


def choice(**changes: Any) -> Callable[..., Answer]:
    def spoil(reply: dict[str, Any], request: dict[str, Any]) -> Answer:
        reply["choices"][0] |= changes
        return reply

    return spoil


@pytest.mark.parametrize(
    ("way", "spoil", "words"),
    [
        ("ids", choice(finish_reason=None), "gave up .finish_reason missing"),
        ("ids", choice(finish_reason="abort"), "gave up .finish_reason abort"),
        ("ids", choice(finish_reason="length", token_ids=[5, 6]), "2 of 60 tokens"),
        ("ids", choice(token_ids=None), "does not repeat"),
        ("ids", choice(prompt_token_ids=[5]), "does not repeat"),
        ("ids", choice(token_ids=[5, 6]), r"ends with id \[6\]"),
        ("ids", choice(text=None), "holds no text"),
        ("ids", lambda reply, request: reply | {"choices": []}, "empty choices"),
        ("ids", lambda reply, request: (200, '{"choices": [{"te'), "is no JSON: '{"),
        ("ids", lambda reply, request: (200, "[]"), "no JSON object"),
        ("ids-in", choice(text="caf\ufffd"), "no whole character"),
        ("text", choice(finish_reason="length"), "of 60 tokens"),
        ("text", lambda reply, request: reply | {"usage": {"prompt_tokens": 3}}, "the server read 3 tokens"),
        ("text", lambda reply, request: reply | {"usage": None}, "the server read None tokens"),
        ("text", choice(text="1234567890" * 9), "90 tokens long, 60 were allowed|9. tokens long"),
    ],
)
def test_replies_that_cannot_be_used_are_named(
    way: str, spoil: Callable[..., Answer], words: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with fake_server(Toy(tokenizer, way, spoil)) as state, pytest.raises(RefusedRowsError, match=words) as caught:
        sampler(state, tokenizer).sample(prefixes(tokenizer), seeds=[0, 1, 2], max_new_tokens=60)
    assert caught.value.completions == [None] * 3
    assert state.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_busy_server_is_asked_again(tokenizer: PreTrainedTokenizerFast) -> None:
    toy = Toy(tokenizer, "ids")

    def sometimes(request: dict[str, Any], number: int) -> Answer:
        trouble = {1: (429, "slow down"), 2: (500, "oops"), 4: (503, "loading")}
        return trouble.get(number) or toy(request, number)

    with fake_server(sometimes) as state:
        opened = sampler(state, tokenizer, concurrency=1)
        completions = opened.sample(prefixes(tokenizer), seeds=[0, 1, 2], max_new_tokens=60)
        assert len(state.requests) == 1 + 3 + 3
    assert all(completion.finished for completion in completions)


def test_a_server_that_cannot_list_its_models_serves_all_the_same(tokenizer: PreTrainedTokenizerFast) -> None:
    with fake_server(Toy(tokenizer, "ids"), [{"id": {"no": "name"}}, "nothing"]) as state:
        state.models_status = 500
        opened = sampler(state, tokenizer)
        assert opened.sample(prefixes(tokenizer), seeds=[0, 1, 2], max_new_tokens=60)[0].finished
        state.models_status = 200
        opened.connect()
    assert opened.context is None


def test_a_server_that_is_down_or_breaks_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1: the server does not answer, 2 tries \(.*refused"):
        sampler(FakeServer(url="http://127.0.0.1:9/v1"), tokenizer, tries=2).connect()
    with (
        fake_server(lambda request, number: (500, "out of memory")) as state,
        pytest.raises(UserError, match=r"3 tries \(HTTP 500 .*: out of memory\)"),
    ):
        sampler(state, tokenizer, tries=3).connect()
    with (
        fake_server(lambda request, number: None) as state,
        pytest.raises(UserError, match=r"1 tries \(nothing within 0.1 s\)"),
    ):
        sampler(state, tokenizer, tries=1, timeout=0.1).connect()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, '{"error": {"message": "The model `toy` does not exist."}}'), r"`toy` does not exist.*it serves other"),
        ((401, '{"detail": "bad key"}'), "HTTP 401 .*bad key"),
        ((200, "<html>"), "no JSON"),
        ((200, '{"choices": [{"text": "x"}], "usage": {"prompt_tokens": 99}}'), "another model"),
    ],
)
def test_a_server_of_no_use_is_refused_at_once(answer: Answer, words: str, tokenizer: PreTrainedTokenizerFast) -> None:
    with fake_server(lambda request, number: answer, [{"id": "other"}]) as state:
        with pytest.raises(UserError, match=words):
            sampler(state, tokenizer).connect()
        assert len(state.requests) <= 3


def test_a_refusal_in_the_middle_ends_the_others(tokenizer: PreTrainedTokenizerFast) -> None:
    def revoked(reply: dict[str, Any], request: dict[str, Any]) -> Answer:
        return (403, "quota used up") if request["seed"] == 2 else reply

    with fake_server(Toy(tokenizer, "ids", revoked)) as state:
        opened = sampler(state, tokenizer, concurrency=2)
        with pytest.raises(RefusedError, match="quota used up") as caught:
            opened.sample(prefixes(tokenizer) * 20, seeds=range(60), max_new_tokens=60)
        assert len(state.requests) < 20
    assert pickle.loads(pickle.dumps(caught.value)).status == 403


def test_the_servers_context_is_checked_first(tokenizer: PreTrainedTokenizerFast) -> None:
    with fake_server(Toy(tokenizer, "ids"), [{"id": "toy", "max_model_len": 40}]) as state:
        opened = sampler(state, tokenizer, api_key="secret")
        with pytest.raises(UserError, match=r"exceed its context of 40"):
            opened.sample(prefixes(tokenizer), seeds=[0, 1, 2], max_new_tokens=40)
        assert len(state.requests) == 1
        assert state.headers[0]["Authorization"] == "Bearer secret"
    assert opened.sample([], seeds=[]) == []


def test_a_tokenizer_that_begins_with_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    with_bos = pickle.loads(pickle.dumps(tokenizer))
    with_bos.add_special_tokens({"bos_token": "<s>"})
    bos = with_bos.bos_token_id
    with_bos._tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    border = TextBorder(with_bos)
    body = tokenizer("x = out\n    ")["input_ids"]
    assert border.text_to_send([bos, *body]) == "x = out\n    "
    rest = tokenizer("return sum(x)\n")["input_ids"]
    assert border.after_text([bos, *body], "x = out\n    ", "return sum(x)\n") == rest
    assert border.after_ids([bos, *body], "return sum(x)\n") == rest
    with pytest.raises(MisalignedError, match="encodes to other ids"):
        border.text_to_send(body)  # every server would put <s> before it
