"""The decoding loop for every model that cannot be decoded in slots: its own cache, and no padding of what it decodes.

Rows start together with the tokens that the shortest of their prefixes has; a longer prefix goes on being read, a token
per step, beside rows that sample already. So rows of any length share their steps, whatever the model makes of
positions, windows or states.
"""

# N rows of a chunk, L tokens that all their prefixes have, V vocabulary

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from psgpo.models.shift import SHIFT_WIDTH, ShiftConfig
from psgpo.sampling.choose import choose_tokens
from psgpo.sampling.ledger import Ledger, Request
from psgpo.sampling.sampler import SamplerStats

_DROP_SHARE = 8
"""Finished rows are dropped when they are at least 1 / this of the chunk."""

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A request as a model reads it."""

    request: Request
    source: Ids
    """What an encoder reads; nothing in a decoder-only model."""
    fed: Ids
    """What the decoder reads before the first sampled token; at least one."""


class Steps(Protocol):
    """Feeds a model a chunk of rows, and keeps what it remembers of them."""

    def read(self, request: Request) -> Row:
        """A request as this model reads it."""

    def start(self, sources: Sequence[Ids], fed: Sequence[Ids]) -> tuple[Tensor, int]:
        """Begin a chunk of rows with equally many ids each: next-token logits (N, V); how many tokens were computed."""

    def step(self, ids_N: Tensor) -> Tensor:
        """One more token to every row: logits (N, V)."""

    def keep(self, rows_K: Tensor) -> None:
        """Go on with these rows alone."""


def decode_in_chunks(steps: Steps, ledger: Ledger, *, batch_size: int, device: torch.device) -> SamplerStats:
    """Complete every request of the ledger."""
    stats = SamplerStats()
    rows = sorted((steps.read(request) for request in ledger.requests), key=lambda r: (len(r.fed), r.source, r.fed))
    for chunk in _chunks(rows, batch_size):
        stats += _decode_chunk(steps, ledger, chunk, device)
    return stats


def _chunks(rows: Sequence[Row], batch_size: int) -> Iterator[list[Row]]:
    """Neighbours, as long as reading on takes no more steps than a chunk of its own would take."""
    chunk: list[Row] = []
    for row in rows:
        if chunk and (len(chunk) == batch_size or len(row.fed) - len(chunk[0].fed) > row.request.limit):
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


def _decode_chunk(steps: Steps, ledger: Ledger, rows: Sequence[Row], device: torch.device) -> SamplerStats:
    for row in rows:
        ledger.open(row.request)
    L, longest = len(rows[0].fed), len(rows[-1].fed)
    logits, computed = steps.start([row.source for row in rows], [row.fed[:L] for row in rows])
    request_of = np.array([row.request.index for row in rows])
    idle = np.zeros(len(rows), dtype=bool)
    # What is still to be read of the prefixes, and how much.
    left = np.array([len(row.fed) - L for row in rows])
    ahead = np.array([[*row.fed[L:], *[0] * (longest - len(row.fed))] for row in rows], dtype=np.int64)
    at = slot_steps = 0
    while True:
        uniform_N = torch.from_numpy(ledger.uniforms(request_of)).to(device)
        chosen, logprobs = choose_tokens(logits, uniform_N, ledger.temperature, ledger.top_p)
        live = np.flatnonzero(~idle & (left <= at))
        idle[live] = ledger.record(request_of[live], chosen.cpu().numpy()[live], logprobs.cpu().numpy()[live])
        slot_steps += len(idle)
        if at < ahead.shape[1]:
            read = torch.from_numpy(ahead[:, at]).to(device)
            chosen = torch.where(torch.from_numpy(left > at).to(device), read, chosen)
        at += 1
        if idle.all():
            return SamplerStats(steps=at, slot_steps=slot_steps, prefill_tokens=computed)
        if idle.sum() >= max(1, len(idle) // _DROP_SHARE):
            keep = torch.from_numpy(np.flatnonzero(~idle)).to(device)
            steps.keep(keep)
            chosen, request_of, left, ahead, idle = (
                chosen[keep],
                request_of[~idle],
                left[~idle],
                ahead[~idle],
                idle[~idle],
            )
        logits = steps.step(chosen)


class DecoderSteps:
    """A decoder-only model; equal prefixes are computed once. One that returns no cache is fed everything again."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._ids = torch.empty(0)
        self._cache: Any = None

    def read(self, request: Request) -> Row:
        return Row(request=request, source=(), fed=request.prefix)

    def start(self, sources: Sequence[Ids], fed: Sequence[Ids]) -> tuple[Tensor, int]:
        distinct = sorted(set(fed))
        row_of = {ids: row for row, ids in enumerate(distinct)}
        self._ids, self._cache = torch.tensor(distinct, device=self._model.device), None
        logits = self._forward()
        rows = torch.tensor([row_of[ids] for ids in fed], device=self._model.device)
        self.keep(rows)
        return logits[rows], sum(map(len, distinct))

    def step(self, ids_N: Tensor) -> Tensor:
        self._ids = torch.cat([self._ids, ids_N[:, None]], dim=1)
        return self._forward()

    def keep(self, rows_K: Tensor) -> None:
        self._ids = self._ids[rows_K]
        if isinstance(self._cache, Cache):
            self._cache.reorder_cache(rows_K)

    def _forward(self) -> Tensor:
        """One pass over what the cache does not hold."""
        fed = self._ids if self._cache is None else self._ids[:, -1:]
        mask = torch.ones_like(self._ids)
        extra = {} if self._cache is None else self._shifted()
        output = self._model(input_ids=fed, attention_mask=mask, past_key_values=self._cache, use_cache=True, **extra)
        self._cache = output.get("past_key_values")
        logits: Tensor = output.logits[:, -1]
        return logits

    def _shifted(self) -> dict[str, Tensor]:
        """What `psgpo-shift` wants beside its cache: the two tokens before the one that is fed."""
        config = self._model.config
        if not isinstance(config, ShiftConfig):
            return {}
        void = self._ids.new_full((len(self._ids), SHIFT_WIDTH), config.pad_token_id)
        return {"shift_ids": torch.cat([void, self._ids[:, :-1]], dim=1)[:, -SHIFT_WIDTH:]}
