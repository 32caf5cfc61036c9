"""What was asked and what has been sampled so far, for all rows of one call."""

# R requests of one call, N rows of one step, M the largest max_new_tokens

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psgpo.records import Completion
from psgpo.sampling.choose import row_uniforms


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One row to sample."""

    index: int
    """Its place in the caller's list."""
    prefix: tuple[int, ...]
    seed: int
    limit: int
    """Most tokens to sample."""


class Ledger:
    """Requests in, completions out; both decoding loops write here."""

    def __init__(self, requests: Sequence[Request], stop_ids: frozenset[int], temperature: float, top_p: float) -> None:
        R, M = len(requests), max((request.limit for request in requests), default=1)
        self.requests = requests
        self.temperature, self.top_p = temperature, top_p
        self.counts: NDArray[np.int64] = np.zeros(R, dtype=np.int64)
        self._limits = np.array([request.limit for request in requests], dtype=np.int64)
        self._ids = np.zeros((R, M), dtype=np.int64)
        self._logprobs = np.zeros((R, M), dtype=np.float32)
        self._finished = np.zeros(R, dtype=bool)
        self._uniforms = np.zeros((R, M), dtype=np.float32)
        self._is_stop = np.zeros(max(stop_ids) + 1, dtype=bool)
        self._is_stop[list(stop_ids)] = True

    def open(self, request: Request) -> None:
        """Draw the random numbers of a row that is about to start. Greedy rows need none."""
        if self.temperature > 0:
            self._uniforms[request.index, : request.limit] = row_uniforms(request.seed, request.limit)

    def uniforms(self, index_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """The number that decides the next token of each row; rows already full get their last one again."""
        return self._uniforms[index_N, np.minimum(self.counts[index_N], self._uniforms.shape[1] - 1)]

    def record(
        self, index_N: NDArray[np.int64], ids_N: NDArray[np.int64], logprobs_N: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Append one token to each of these rows; True for the rows that end with it."""
        at_N = self.counts[index_N]
        self._ids[index_N, at_N] = ids_N
        self._logprobs[index_N, at_N] = logprobs_N
        self.counts[index_N] = at_N + 1
        stopped_N = self._is_stop[np.minimum(ids_N, len(self._is_stop) - 1)] & (ids_N < len(self._is_stop))
        self._finished[index_N] = stopped_N
        return stopped_N | (at_N + 1 >= self._limits[index_N])

    def completions(self) -> list[Completion]:
        """What was sampled, in the order of the requests."""
        return [
            Completion(
                token_ids=tuple(self._ids[i, :n].tolist()),
                logprobs=tuple(self._logprobs[i, :n].tolist()),
                finished=bool(self._finished[i]),
            )
            for i, n in enumerate(self.counts.tolist())
        ]
