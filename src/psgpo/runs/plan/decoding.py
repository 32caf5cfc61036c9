"""What an encoder–decoder holds while it samples, counted on fake tensors.

`psgpo.sampling.seq2seq` keeps, for N rows in the decoding loop: the encoder's states of every row's prompt, keys and
values of those states in every decoder layer, and the decoder's own keys and values, a position more at every step. The
encoder reads at most `ENCODER_TOKENS` padded tokens at once. The loop's own code runs here from the first prompt to the
second token; later steps add what the second one added.
"""

from __future__ import annotations

import torch

from psgpo.config import SamplingSettings
from psgpo.runs.plan.live import LiveBytes
from psgpo.runs.plan.network import Network
from psgpo.sampling.choose import choose_tokens
from psgpo.sampling.seq2seq import Seq2SeqSteps
from psgpo.training import computing


def encoder_decoder_bytes(network: Network, sampling: SamplingSettings, rows: int, prompt: int) -> int:
    """The most that is alive beside the weights while `rows` responses to different prompts are drawn.

    Args:
        prompt: tokens of each.
    """
    N, R = min(rows, sampling.batch_size), sampling.max_new_tokens
    module = network.module.eval()
    prompts = [(row, *[0] * (prompt - 1)) for row in range(N)]
    live = LiveBytes(network.tensors())
    try:
        with network.fake, live, torch.inference_mode(), computing(network.settings.dtype, "cpu"):
            steps = Seq2SeqSteps(module)  # type: ignore[arg-type]
            logits, _ = steps.start(prompts, [(0,)] * N)
            choose_tokens(logits, torch.zeros(N), sampling.temperature, sampling.top_p)
            del logits
            begun, first = live.peak, live.now
            live.peak = live.now
            ids, _ = choose_tokens(steps.step(torch.zeros(N, dtype=torch.long)), torch.zeros(N), 1.0, sampling.top_p)
            steps.keep(torch.zeros(N, dtype=torch.long))
            del ids
            second, worst = live.now, live.peak
            tensors = 2 * len(steps.cache.self_attention_cache)
    finally:
        module.train()
    a_step = second - first
    # A layer's keys or values are copied to make room for one more, beside the old ones.
    last = worst + a_step * max(0, R - 2) + a_step * R // tensors
    return max(begun, last) - network.weights
