"""Sampling with any Hugging Face policy in this process.

Decoders: continuous batching over a preallocated cache, where that gives their own logits (`continuous`); every other
model, encoder–decoders too: chunks of rows with the model's own cache (`plain`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psgpo.errors import UserError
from psgpo.records import Completion
from psgpo.sampling.continuous import decode_in_slots, slots_reproduce
from psgpo.sampling.ledger import Ledger, Request
from psgpo.sampling.plain import DecoderSteps, decode_in_chunks
from psgpo.sampling.rows import checked_limits, stop_ids
from psgpo.sampling.sampler import SamplerStats
from psgpo.sampling.seq2seq import Seq2SeqSteps

logger = logging.getLogger(__name__)


class HFSampler:
    """Implements `psgpo.sampling.Sampler` for a model in this process."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: must be at least 1")
        self.model = model
        self.batch_size = batch_size
        self.stats = SamplerStats()
        self.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.stop_ids = stop_ids(getattr(model, "generation_config", None), tokenizer)
        self._in_slots: bool | None = None

    def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int | Sequence[int] = 256,
    ) -> list[Completion]:
        """See `Sampler.sample`.

        Raises:
            UserError: an empty prefix, lists of unequal length, or more tokens than the model's context holds.
        """
        context = getattr(self.model.config, "max_position_embeddings", None)
        limits = checked_limits(prefixes, seeds, max_new_tokens, temperature=temperature, top_p=top_p, context=context)
        started = time.perf_counter()
        requests = [
            Request(index=i, prefix=tuple(prefix), seed=seed, limit=limit)
            for i, (prefix, seed, limit) in enumerate(zip(prefixes, seeds, limits, strict=True))
        ]
        ledger = Ledger(requests, self.stop_ids, temperature, top_p)
        with _evaluating(self.model):
            if requests:
                self.stats += self._decode(ledger)
        completions = ledger.completions()
        self.stats += SamplerStats(
            completions=len(completions),
            useful_tokens=sum(len(completion.token_ids) for completion in completions),
            seconds=time.perf_counter() - started,
        )
        return completions

    def _decode(self, ledger: Ledger) -> SamplerStats:
        both = bool(self.model.config.is_encoder_decoder)
        if self._in_slots is None:
            self._in_slots = not both and slots_reproduce(self.model, self.pad_token_id)
            if not self._in_slots and not both:
                logger.warning(
                    "%s cannot be decoded in slots; it is sampled in chunks with its own cache, which is slower",
                    type(self.model).__name__,
                )
        if self._in_slots:
            return decode_in_slots(self.model, ledger, pad_token_id=self.pad_token_id, batch_size=self.batch_size)
        steps = Seq2SeqSteps(self.model) if both else DecoderSteps(self.model)
        return decode_in_chunks(steps, ledger, batch_size=self.batch_size, device=self.model.device)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Inference mode and `model.eval()`, with the model's own mode restored."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
