"""From logits and one uniform number per row to a token: inverse CDF, so that a row's seed decides its tokens."""

# N rows, V vocabulary

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def row_uniforms(seed: int, count: int) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1) for positions 0 .. count - 1 of the row with this seed.

    Number i is the top 24 bits of word i of the Philox 4x64 stream with key `seed`: a counter-based generator, so
    the numbers depend on nothing but (seed, position). The first numbers do not change when `count` grows.
    """
    words = np.random.Philox(key=seed).random_raw(count)
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def choose_tokens(logits_NV: Tensor, uniform_N: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Sampled ids `(N,)` and their log-probabilities `(N,)` under softmax(logits / temperature).

    A token is the first whose cumulative probability exceeds the uniform number, in the order of ids. `top_p` < 1
    keeps the smallest set of likeliest tokens whose probability reaches it (ties: the lower id first).
    Temperature 0 takes the likeliest token and reports its probability at temperature 1.
    """
    logits_NV = logits_NV.float()
    if temperature not in (0.0, 1.0):
        logits_NV = logits_NV / temperature
    normaliser_N1 = logits_NV.logsumexp(dim=-1, keepdim=True)
    if temperature == 0.0:
        ids_N1 = logits_NV.argmax(dim=-1, keepdim=True)
    else:
        probabilities_NV = (logits_NV - normaliser_N1).exp_()
        if top_p < 1.0:
            probabilities_NV = _nucleus(probabilities_NV, top_p)
        cdf_NV = probabilities_NV.cumsum(dim=-1)
        total_N1 = cdf_NV[:, -1:]
        # Strictly below the total, so that rounding cannot point past the last token with any probability.
        below = torch.nextafter(total_N1, torch.zeros_like(total_N1))
        target_N1 = torch.minimum(uniform_N[:, None] * total_N1, below)
        ids_N1 = torch.searchsorted(cdf_NV, target_N1, right=True)
    return ids_N1[:, 0], (logits_NV.gather(1, ids_N1) - normaliser_N1)[:, 0]


def _nucleus(probabilities_NV: Tensor, top_p: float) -> Tensor:
    ranked, order = probabilities_NV.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(dim=-1) - ranked
    ranked = ranked.masked_fill(before >= top_p, 0.0)
    return torch.zeros_like(probabilities_NV).scatter_(1, order, ranked)
