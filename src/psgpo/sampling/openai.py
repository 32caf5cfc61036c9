"""Sampling from any OpenAI-compatible completions server, exactly behind the prefix that was asked for.

How exact, is found out once, with two cheap requests (`continuation`):

- `ids`: the server takes token ids and returns token ids (vLLM's `return_token_ids`). Nothing is ever re-tokenised;
  every reply must repeat the prefix;
- `ids-in`: it takes ids and returns text. The prefix is exact, the reply is encoded and proved (`sampling.exact`);
- `text`: it takes text only. The prefix must survive the round trip through text.

A row that cannot be proved is refused by number (`RefusedRowsError`), never guessed.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from psgpo.errors import RefusedRowsError, UserError
from psgpo.records import Completion
from psgpo.remote import Endpoint, RefusedError, UnusableReplyError
from psgpo.sampling.exact import MisalignedError, TextBorder
from psgpo.sampling.rows import checked_limits
from psgpo.sampling.sampler import SamplerStats

logger = logging.getLogger(__name__)

_PROBE = "def f(x):\n    return x\n"
_SAME_EVERYWHERE = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""vLLM takes what a request leaves open from the model's generation_config.json."""


class _Stopped(Exception):  # noqa: N818
    """Another row has failed for good: this one need not go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    number: int
    prefix: tuple[int, ...]
    seed: int
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reply:
    """The parts of a completions reply that are used."""

    text: str
    finish: str
    ids: list[int] | None
    prefix: list[int] | None
    """What the server read, where it says so."""
    words: list[str]
    logprobs: list[float | None]
    read: int | None
    """Prompt tokens by the server's count."""
    written: int | None
    cached: int


class OpenAISampler:
    """Implements `psgpo.sampling.Sampler` for a model behind `/v1/completions`.

    `logprobs` are the server's; NaN where it gives none, where they may be of other ids than those sampled, and with a
    temperature other than 0 and 1 or a top_p below 1, because servers differ in whether they count those in.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        tokenizer: Any,
        *,
        stop_ids: frozenset[int],
        concurrency: int = 64,
    ) -> None:
        """No request is made before `connect` or the first `sample`.

        Args:
            endpoint: up to and without `/completions`, e.g. `http://localhost:8000/v1`.
            model: name of the model there.
            tokenizer: the model's own.
            stop_ids: ids that end a completion; the server's own end token must be one of them.
            concurrency: most requests at the same time.
        """
        if concurrency < 1:
            raise UserError(f"concurrency {concurrency}: must be at least 1")
        self.endpoint, self.model, self.concurrency = endpoint, model, concurrency
        self.stop_ids = stop_ids
        self.stats = SamplerStats()
        self.context: int | None = None
        """Most tokens of prefix and completion, where the server tells."""
        self.continuation = ""
        """`ids`, `ids-in` or `text`; empty before `connect`."""
        self._tokenizer, self._border = tokenizer, TextBorder(tokenizer)

    def connect(self) -> None:
        """Ask the server what it can do.

        Raises:
            UserError: it is down, does not know the model, refuses, or answers with no completion.
        """
        served = self._served()
        prefix = tuple(self._tokenizer(_PROBE)["input_ids"])
        try:
            self.continuation = self._try_continuations(_Row(number=0, prefix=prefix, seed=0, limit=1))
        except RefusedError as error:
            known = f"; it serves {', '.join(sorted(served))}" if served and self.model not in served else ""
            raise UserError(f"{error}{known}") from None
        except (UnusableReplyError, MisalignedError) as error:
            raise UserError(
                f"{self.endpoint.url}: {error}; give an OpenAI-compatible completions server and its model's tokenizer"
            ) from None
        self.context = served.get(self.model)
        if self.continuation != "ids":
            logger.warning(
                "%s returns no token ids: replies are encoded again, and refused where that cannot be proved right",
                self.endpoint.url,
            )

    def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int | Sequence[int] = 256,
    ) -> list[Completion]:
        """See `Sampler.sample`; seeds are sent modulo 2^31.

        Raises:
            UserError: an impossible request, or a server that is down, too slow or refuses.
            RefusedRowsError: replies of some rows are incomplete, malformed or not provably behind their prefix.
        """
        if not self.continuation:
            self.connect()
        limits = checked_limits(
            prefixes, seeds, max_new_tokens, temperature=temperature, top_p=top_p, context=self.context
        )
        started = time.perf_counter()
        rows = [
            _Row(number=i, prefix=tuple(prefix), seed=seed, limit=limit)
            for i, (prefix, seed, limit) in enumerate(zip(prefixes, seeds, limits, strict=True))
        ]
        trusted = temperature in (0.0, 1.0) and top_p == 1.0

        def draw(row: _Row, sleep: Callable[[float], object]) -> tuple[Completion, int] | ValueError:
            try:
                reply = self._ask(row, self.continuation, temperature, top_p, sleep)
                return self._completion(row, reply, trusted), (reply.read or len(row.prefix)) - reply.cached
            except (UnusableReplyError, MisalignedError) as error:
                return error

        drawn = _side_by_side(rows, draw, self.concurrency)
        good = [result for result in drawn if not isinstance(result, ValueError)]
        self.stats += SamplerStats(
            completions=len(good),
            useful_tokens=sum(len(completion.token_ids) for completion, _ in good),
            prefill_tokens=sum(prefilled for _, prefilled in good),
            seconds=time.perf_counter() - started,
        )
        refused = {number: result for number, result in enumerate(drawn) if isinstance(result, ValueError)}
        if refused:
            first = min(refused)
            raise RefusedRowsError(
                f"{self.endpoint.url}: {len(refused)} of {len(rows)} replies cannot be used; row {first}: "
                f"{refused[first]}",
                {number: str(error) for number, error in refused.items()},
                [None if isinstance(result, ValueError) else result[0] for result in drawn],
                unproved=self.continuation != "ids"
                and all(isinstance(error, MisalignedError) for error in refused.values()),
            )
        return [completion for completion, _ in good]

    def _served(self) -> dict[str, int | None]:
        """Names of the models there, with their contexts; empty where the server does not tell."""
        try:  # a list that fails says nothing about completions: `transformers serve` without a hub cache answers 500
            models = dataclasses.replace(self.endpoint, tries=1).get("models").get("data")
        except (UserError, UnusableReplyError):
            return {}
        found = [entry for entry in models if isinstance(entry, dict)] if isinstance(models, list) else []
        return {str(entry.get("id")): _whole(entry.get("max_model_len")) for entry in found}

    def _try_continuations(self, probe: _Row) -> str:
        try:
            reply = self._ask(probe, "ids", 0.0, 1.0, time.sleep)
            if reply.ids is not None and reply.prefix == list(probe.prefix):
                return "ids"
        except RefusedError as error:
            if error.status not in (400, 422):  # those may mean the ids; others mean the key, the address, the model
                raise
        except UnusableReplyError:
            pass
        for way in ("ids-in", "text"):
            try:
                if self._ask(probe, way, 0.0, 1.0, time.sleep).read == len(probe.prefix):
                    return way
            except RefusedError:
                if way == "text":
                    raise
        raise MisalignedError("the server does not count the tokens of the probe as the tokenizer does: another model?")

    def _ask(self, row: _Row, way: str, temperature: float, top_p: float, sleep: Callable[[float], object]) -> _Reply:
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": self._border.text_to_send(row.prefix) if way == "text" else list(row.prefix),
            "max_tokens": row.limit,
            "temperature": temperature,
            "top_p": top_p,
            "seed": row.seed % (1 << 31),
            "logprobs": 1,
        }
        if way == "ids":
            body |= _SAME_EVERYWHERE | {"return_token_ids": True, "stop_token_ids": sorted(self.stop_ids)}
        return _read(self.endpoint.post("completions", body, sleep=sleep))

    def _completion(self, row: _Row, reply: _Reply, trusted: bool) -> Completion:
        """The completion in a reply.

        Raises:
            UnusableReplyError, MisalignedError: it is incomplete or cannot be proved.
        """
        if reply.finish not in ("stop", "length"):
            raise UnusableReplyError(f"the server gave up (finish_reason {reply.finish or 'missing'})")
        ids = self._ids(row, reply)
        finished = reply.finish == "stop"
        logprobs = [math.nan if value is None else value for value in reply.logprobs]
        if not trusted or (self.continuation != "ids" and not self._border.spelled(ids, reply.words)):
            logprobs = []
        if finished and self.continuation != "ids":
            ids = [*ids, self._tokenizer.eos_token_id]  # text does not show it
        elif finished and (not ids or ids[-1] not in self.stop_ids):
            raise MisalignedError(f"the reply ends with id {ids[-1:]}, no end token of this tokenizer: another model?")
        written = len(ids) if self.continuation == "ids" or reply.written is None else reply.written
        if not finished and written < row.limit:
            raise UnusableReplyError(
                f"{written} of {row.limit} tokens; the model's context or a limit of the server is too short"
            )
        if len(ids) > row.limit:
            raise MisalignedError(f"the reply is {len(ids)} tokens long, {row.limit} were allowed")
        logprobs = [*logprobs, *[math.nan] * len(ids)][: len(ids)]
        return Completion(token_ids=tuple(ids), logprobs=tuple(logprobs), finished=finished)

    def _ids(self, row: _Row, reply: _Reply) -> list[int]:
        if self.continuation == "ids":
            if reply.ids is None or reply.prefix != list(row.prefix):
                raise MisalignedError("the reply does not repeat the ids of the prefix")
            return reply.ids
        if reply.read != len(row.prefix):
            raise MisalignedError(f"the server read {reply.read} tokens, the prefix has {len(row.prefix)}")
        if self.continuation == "ids-in":
            return self._border.after_ids(row.prefix, reply.text)
        return self._border.after_text(row.prefix, self._border.text_to_send(row.prefix), reply.text)


def _read(answer: Mapping[str, Any]) -> _Reply:
    """Raises UnusableReplyError when it is no completion."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnusableReplyError("the reply holds no completion (empty choices)")
    choice = choices[0]
    if not isinstance(choice.get("text"), str):
        raise UnusableReplyError("the reply holds no text")
    usage, logprobs = _object(answer.get("usage")), _object(choice.get("logprobs"))
    words, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    return _Reply(
        text=choice["text"],
        finish=str(choice.get("finish_reason") or ""),
        ids=_ids_or_none(choice.get("token_ids")),
        prefix=_ids_or_none(choice.get("prompt_token_ids")),
        words=[str(word) for word in words],
        logprobs=[float(value) if isinstance(value, int | float) else None for value in values],
        read=_whole(usage.get("prompt_tokens")),
        written=_whole(usage.get("completion_tokens")),
        cached=_whole(_object(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0,
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _ids_or_none(value: Any) -> list[int] | None:
    return value if isinstance(value, list) and all(type(token) is int for token in value) else None


def _side_by_side(
    rows: Sequence[_Row], work: Callable[[_Row, Callable[[float], object]], Any], threads: int
) -> list[Any]:
    """`work` of every row, in order; the first exception ends it for all.

    The threads are daemons: an interrupted program does not wait for a server that hangs.
    """
    waiting: SimpleQueue[_Row] = SimpleQueue()
    done: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    stop = threading.Event()

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise _Stopped

    def loop() -> None:
        while not stop.is_set():
            try:
                row = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((row.number, work(row, sleep)))
            except BaseException as error:
                done.put((-1, error))
                return

    for row in rows:
        waiting.put(row)
    for _ in range(min(threads, len(rows))):
        threading.Thread(target=loop, daemon=True).start()
    results: list[Any] = [None] * len(rows)
    try:
        for _ in rows:
            number, result = done.get()
            if number < 0:
                raise result
            results[number] = result
    finally:
        stop.set()
    return results
