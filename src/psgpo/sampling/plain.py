"""The decoding loop for every other architecture: groups of equal length, the model's own cache, no padding at all."""

# N rows of a group

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from psgpo.sampling.choose import choose_tokens
from psgpo.sampling.ledger import Ledger, Request
from psgpo.sampling.sampler import SamplerStats

_DROP_SHARE = 8
"""Finished rows are dropped when they are at least 1 / this of the group."""


def decode_in_groups(model: PreTrainedModel, ledger: Ledger, *, batch_size: int) -> SamplerStats:
    """Complete every request of the ledger, in groups whose prefixes have exactly the same length."""
    stats = SamplerStats()
    ordered = sorted(ledger.requests, key=lambda request: (len(request.prefix), request.prefix))
    for _, same_length in groupby(ordered, key=lambda request: len(request.prefix)):
        group = list(same_length)
        for start in range(0, len(group), batch_size):
            stats += _decode_group(model, ledger, group[start : start + batch_size])
    return stats


def _decode_group(model: PreTrainedModel, ledger: Ledger, group: list[Request]) -> SamplerStats:
    for request in group:
        ledger.open(request)
    prefixes = sorted({request.prefix for request in group})
    row_of = {prefix: row for row, prefix in enumerate(prefixes)}
    rows = torch.tensor([row_of[request.prefix] for request in group], device=model.device)
    ids = torch.tensor(prefixes, device=model.device)
    output = _forward(model, ids, None)
    cache, logits, ids = output.get("past_key_values"), output.logits[:, -1][rows], ids[rows]
    if isinstance(cache, Cache):
        cache.reorder_cache(rows)
    request_of = np.array([request.index for request in group])
    idle = np.zeros(len(group), dtype=bool)
    steps = slot_steps = 0
    while True:
        uniform_N = torch.from_numpy(ledger.uniforms(request_of)).to(model.device)
        chosen, logprobs = choose_tokens(logits, uniform_N, ledger.temperature, ledger.top_p)
        live = np.flatnonzero(~idle)
        idle[live] = ledger.record(request_of[live], chosen.cpu().numpy()[live], logprobs.cpu().numpy()[live])
        steps, slot_steps = steps + 1, slot_steps + len(idle)
        if idle.all():
            return SamplerStats(steps=steps, slot_steps=slot_steps, prefill_tokens=sum(map(len, prefixes)))
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        if idle.sum() >= max(1, len(idle) // _DROP_SHARE):
            keep = torch.from_numpy(np.flatnonzero(~idle)).to(model.device)
            ids, request_of, idle = ids[keep], request_of[~idle], idle[~idle]
            if isinstance(cache, Cache):
                cache.reorder_cache(keep)
        output = _forward(model, ids, cache)
        cache, logits = output.get("past_key_values"), output.logits[:, -1]


def _forward(model: PreTrainedModel, ids: torch.Tensor, cache: Any) -> Any:
    """One pass over what the cache does not hold; models that return no cache are fed everything again."""
    fed = ids if cache is None else ids[:, -1:]
    return model(input_ids=fed, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
