"""What every sampler promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psgpo.records import Completion


class Sampler(Protocol):
    """Prefixes of token ids in, one completion for each out, in the same order."""

    def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int | Sequence[int] = 256,
    ) -> list[Completion]:
        """Sample one completion per prefix; equal prefixes may repeat and share their prefill.

        Args:
            prefixes: token ids, at least one each.
            seeds: one non-negative integer per prefix; it alone decides the random numbers of that row.
            temperature: 0 is greedy.
            top_p: sample from the smallest set of likeliest tokens whose probability reaches this.
            max_new_tokens: one limit for all, or one for each prefix.

        Returns:
            Completions whose `logprobs` are log softmax(logits / temperature) of the sampled ids before any top-p
            truncation (at temperature 0: log softmax(logits)); NaN where an engine does not tell them, never another
            quantity.
        """
        ...


def context_of(sampler: Any) -> int | None:
    """Most tokens of prefix and completion together; None where nobody tells."""
    config = getattr(getattr(sampler, "model", None), "config", None)
    context: int | None = getattr(sampler, "context", None) or getattr(config, "max_position_embeddings", None)
    return context


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerStats:
    """What a sampler did since it was made, for logging. Subtract two to get the part between them."""

    completions: int = 0
    useful_tokens: int = 0
    """Sampled tokens returned to the caller, end-of-sequence tokens included."""
    prefill_tokens: int = 0
    """Prefix tokens computed; a prefix shared by several rows counts once."""
    steps: int = 0
    """Decoding forward passes."""
    slot_steps: int = 0
    """Rows computed in decoding passes, idle ones included."""
    seconds: float = 0.0
    """Wall time inside `sample`."""

    @property
    def tokens_per_second(self) -> float:
        """Useful tokens per second of wall time; NaN before the first call."""
        return self.useful_tokens / self.seconds if self.seconds else float("nan")

    @property
    def utilisation(self) -> float:
        """Share of computed rows that gave a useful token; NaN before the first call."""
        return self.useful_tokens / self.slot_steps if self.slot_steps else float("nan")

    def __add__(self, other: SamplerStats) -> SamplerStats:
        return SamplerStats(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def __sub__(self, other: SamplerStats) -> SamplerStats:
        return SamplerStats(**{name: getattr(self, name) - getattr(other, name) for name in self.__slots__})
