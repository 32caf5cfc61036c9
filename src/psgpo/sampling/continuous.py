"""The fast decoding loop: rows of any length side by side in slots, a finished row's slot goes to the next request."""

# N rows in use, W positions in use

from __future__ import annotations

import inspect
import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from psgpo.models.batch import right_pad
from psgpo.models.shift import SHIFT_WIDTH, ShiftConfig
from psgpo.sampling.choose import choose_tokens
from psgpo.sampling.ledger import Ledger, Request
from psgpo.sampling.sampler import SamplerStats
from psgpo.sampling.slots import SlotCache
from psgpo.training import token_batches

logger = logging.getLogger(__name__)

_REFILL_SHARE = 16
"""Free slots are refilled when they are at least 1 / this of all: a prefill costs about one step."""
_COMPACT_SHARE = 32
"""With nothing left to refill, gaps are closed when they are at least 1 / this of the rows."""
_PREFILL_NUMBERS = 1 << 24
"""Padded tokens of one prefill times the model's width, at most (one longer prefix still goes alone): 8192 tokens of a
width of 2048, as in a forward pass of training."""
_PROBE_ROWS = ((1, 2, 3, 4, 5), (6, 7))


class SlotDecoder:
    """Feeds the newest token of every row; the keys and values of the tokens before it lie in the slots."""

    def __init__(self, model: PreTrainedModel, pad_token_id: int, slots: int, capacity: int) -> None:
        self.model, self.pad_token_id, self.device = model, pad_token_id, model.device
        self.cache = SlotCache(layer_count(model), slots, capacity)
        # Per slot: tokens in the cache, and the newest tokens (the last of them is fed next).
        self.lengths: NDArray[np.int64] = np.zeros(slots, dtype=np.int64)
        self.recent: NDArray[np.int64] = np.full((slots, SHIFT_WIDTH + 1), pad_token_id, dtype=np.int64)
        self.is_shift = isinstance(model.config, ShiftConfig)
        self.prefill_tokens = max(1, _PREFILL_NUMBERS // model.get_input_embeddings().weight.shape[-1])

    def admit(self, prefixes: list[tuple[int, ...]], places: NDArray[np.int64]) -> int:
        """Put all but the last token of every prefix into the slots `places`; equal prefixes are computed once.

        They are read in parts of at most `prefill_tokens` padded tokens: at the start a prefix comes into every slot.

        Returns:
            How many tokens were computed.
        """
        bodies = sorted({prefix[:-1] for prefix in prefixes}, key=len)
        places_of: dict[tuple[int, ...], list[int]] = {body: [] for body in bodies}
        for prefix, place in zip(prefixes, places.tolist(), strict=True):
            places_of[prefix[:-1]].append(place)
        for part in token_batches([len(body) for body in bodies], self.prefill_tokens):
            self._prefill({bodies[i]: places_of[bodies[i]] for i in sorted(part)})
        for prefix, place in zip(prefixes, places, strict=True):
            tail = prefix[-SHIFT_WIDTH - 1 :]
            self.recent[place] = self.pad_token_id
            self.recent[place, -len(tail) :] = tail
            self.lengths[place] = len(prefix) - 1
        return sum(map(len, bodies))

    def _prefill(self, places_of: dict[tuple[int, ...], list[int]]) -> None:
        """Compute keys and values of these ids in one pass; `places_of` has the slots that each go into."""
        bodies = list(places_of)
        if not any(bodies):
            return
        input_ids, mask = right_pad(bodies, self.pad_token_id, device=self.device)
        mask[:, 0] = 1  # a prefix of one token has no body; its row is computed and never looked at
        source = DynamicCache()
        self.model(input_ids=input_ids, attention_mask=mask, past_key_values=source, use_cache=True, logits_to_keep=1)
        pairs = [(row, place) for row, body in enumerate(bodies) for place in places_of[body]]
        rows, places = torch.tensor(pairs, device=self.device).T
        self.cache.load(places, rows, source)

    def logits(self, N: int) -> Tensor:
        """Next-token logits `(N, V)` of the first N slots."""
        lengths_N = torch.from_numpy(self.lengths[:N]).to(self.device)
        W = int(self.lengths[:N].max()) + 1
        self.cache.begin_step(lengths_N, W)
        recent = torch.from_numpy(self.recent[:N]).to(self.device)
        dtype = self.model.dtype
        unused_NW = torch.arange(W, device=self.device) > lengths_N[:, None]
        mask_NW = torch.zeros((N, W), dtype=dtype, device=self.device).masked_fill_(unused_NW, torch.finfo(dtype).min)
        extra = {"shift_ids": recent[:, :-1]} if self.is_shift else {}
        output = self.model(
            input_ids=recent[:, -1:],
            attention_mask=mask_NW[:, None, None],
            position_ids=lengths_N[:, None],
            past_key_values=self.cache,
            use_cache=True,
            **extra,
        )
        return output.logits[:, -1]

    def append(self, slots: NDArray[np.int64], ids: NDArray[np.int64]) -> None:
        """The tokens to feed next to these slots."""
        self.lengths[slots] += 1
        self.recent[slots, :-1] = self.recent[slots, 1:]
        self.recent[slots, -1] = ids

    def move(self, origin: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Copy rows over others."""
        width = max(1, int(self.lengths[origin].max()))
        self.cache.move(torch.from_numpy(origin).to(self.device), torch.from_numpy(target).to(self.device), width)
        self.lengths[target] = self.lengths[origin]
        self.recent[target] = self.recent[origin]


def layer_count(model: PreTrainedModel) -> int:
    """How many layers of the model keep keys and values."""
    return len(DynamicCache(config=model.config).layers)


def decode_in_slots(model: PreTrainedModel, ledger: Ledger, *, pad_token_id: int, batch_size: int) -> SamplerStats:
    """Complete every request of the ledger."""
    # Neighbours in this order have equal or nearly equal prefixes: shared prefill, little padding. Popped from the end.
    waiting = sorted(ledger.requests, key=lambda request: (len(request.prefix), request.prefix), reverse=True)
    slots = min(batch_size, len(waiting))
    width = max(len(request.prefix) + min(64, request.limit) for request in waiting)
    decoder = SlotDecoder(model, pad_token_id, slots, width)
    request_of: NDArray[np.int64] = np.zeros(slots, dtype=np.int64)
    idle: NDArray[np.bool_] = np.ones(slots, dtype=bool)
    N = steps = slot_steps = prefilled = 0
    while waiting or not idle[:N].all():
        free = np.flatnonzero(idle)
        if waiting and (len(free) >= max(1, slots // _REFILL_SHARE)):
            taken = [waiting.pop() for _ in range(min(len(free), len(waiting)))]
            prefilled += _start(decoder, ledger, taken, free[: len(taken)], request_of, idle)
            N = max(N, int(free[len(taken) - 1]) + 1)
        holes = int(idle[:N].sum())
        if not waiting and holes >= max(1, N // _COMPACT_SHARE):
            N = _compact(decoder, N, request_of, idle)
        uniform_N = torch.from_numpy(ledger.uniforms(request_of[:N])).to(decoder.device)
        chosen, logprobs = choose_tokens(decoder.logits(N), uniform_N, ledger.temperature, ledger.top_p)
        live = np.flatnonzero(~idle[:N])
        ids = chosen.cpu().numpy()[live]
        idle[live] = ledger.record(request_of[live], ids, logprobs.cpu().numpy()[live])
        decoder.append(live, ids)
        steps, slot_steps = steps + 1, slot_steps + N
    return SamplerStats(steps=steps, slot_steps=slot_steps, prefill_tokens=prefilled)


def _start(
    decoder: SlotDecoder,
    ledger: Ledger,
    taken: list[Request],
    places: NDArray[np.int64],
    request_of: NDArray[np.int64],
    idle: NDArray[np.bool_],
) -> int:
    for request, place in zip(taken, places, strict=True):
        ledger.open(request)
        request_of[place] = request.index
    idle[places] = False
    return decoder.admit([request.prefix for request in taken], places)


def _compact(decoder: SlotDecoder, N: int, request_of: NDArray[np.int64], idle: NDArray[np.bool_]) -> int:
    """Move rows from the end into idle slots; returns how many rows are left."""
    alive = int((~idle[:N]).sum())
    holes = np.flatnonzero(idle[:alive])
    movers = alive + np.flatnonzero(~idle[alive:N])
    if len(holes):
        decoder.move(movers, holes)
        request_of[holes] = request_of[movers]
    idle[:alive], idle[alive:N] = False, True
    return alive


def slots_reproduce(model: PreTrainedModel, pad_token_id: int) -> bool:
    """Whether decoding in slots gives this model's own logits: tried on two short rows of unequal length.

    False for windows and recurrent states (their caches are not plain keys and values), for attention that takes no
    additive mask, and for positions that are not given as `position_ids`.
    """
    try:
        plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
        if not plain or "position_ids" not in inspect.signature(model.forward).parameters:
            return False
        decoder = SlotDecoder(model, pad_token_id, 2, 2)
        decoder.admit([row[:-1] for row in _PROBE_ROWS], np.arange(2))
        decoder.logits(2)
        decoder.append(np.arange(2), np.array([row[-1] for row in _PROBE_ROWS]))
        got = decoder.logits(2).float()
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        logger.info("decoding in slots fails for %s: %s", type(model).__name__, error)
        return False
    expected = [model(input_ids=torch.tensor([row], device=model.device)).logits[0, -1].float() for row in _PROBE_ROWS]
    want = torch.stack(expected)
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    return bool((got - want).abs().max() <= tolerance * (want - want.mean(-1, keepdim=True)).abs().max())
