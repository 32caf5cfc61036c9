"""Line scores from a vLLM server that holds the PRM: `vllm serve PRM --runner pooling`.

The server is sent token ids, never text, so that a score belongs to the token that ends a line.

# L code lines, T response tokens
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.remote import Endpoint
from psgpo.rl.rollout import Rollout

AT_ONCE = 64
"""Responses of one request."""


class PoolingScorer:
    """R(x, y^(≤m)) for every line, read at line ends as `rl.PrmLineScorer` does."""

    def __init__(self, url: str, *, timeout: float = 600.0) -> None:
        """
        Args:
            url: of the server, e.g. `http://node-7:8000`.
            timeout: seconds without an answer until a request is tried again.
        """
        self._endpoint = Endpoint(url=url, timeout=timeout)
        self._served: tuple[str, int] | None = None

    def score(self, rollouts: Sequence[Rollout]) -> list[NDArray[np.float64]]:
        """Scores of the lines of every rollout, (L,) each; responses without lines cost nothing.

        They are NaN where prompt and response together are longer than the server reads.

        Raises:
            UserError: no answer, or one that holds no number per token.
        """
        scores = [np.full(len(rollout.line_ends), np.nan) for rollout in rollouts]
        asked = [i for i, rollout in enumerate(rollouts) if rollout.line_ends]
        if not asked:
            return scores
        # The server refuses a whole request for one row that is too long.
        _, context = self._model()
        asked = [i for i in asked if len(rollouts[i].prompt_ids) + len(rollouts[i].token_ids) <= context]
        for start in range(0, len(asked), AT_ONCE):
            part = asked[start : start + AT_ONCE]
            rows = [[*rollouts[i].prompt_ids, *rollouts[i].token_ids] for i in part]
            for i, values in zip(part, self._values(rows), strict=True):
                first = len(rollouts[i].prompt_ids)
                scores[i] = values[[first + end for end in rollouts[i].line_ends]]
        return scores

    def _model(self) -> tuple[str, int]:
        """Its name on the server, and how many tokens it reads at most."""
        if self._served is None:
            answer = self._endpoint.get("v1/models")
            try:
                entry = answer["data"][0]
                self._served = str(entry["id"]), int(entry["max_model_len"])
            except (KeyError, IndexError, TypeError, ValueError):
                raise UserError(
                    f"{self._endpoint.url}: v1/models names no model with its max_model_len, so this is no server of "
                    "vLLM; start one with vllm serve PRM --runner pooling"
                ) from None
        return self._served

    def _values(self, rows: Sequence[Sequence[int]]) -> list[NDArray[np.float64]]:
        """The raw output at every token, (tokens of the row,) each."""
        body = {"model": self._model()[0], "input": rows, "task": "token_classify", "use_activation": False}
        answer = self._endpoint.post("pooling", body)
        try:
            entries = sorted(answer["data"], key=lambda entry: entry["index"])
            values = [np.asarray(entry["data"], dtype=np.float64).reshape(-1) for entry in entries]
        except (KeyError, TypeError, ValueError):
            values = []
        if [len(row) for row in values] != [len(row) for row in rows] or not all(
            math.isfinite(total) for total in map(np.sum, values)
        ):
            raise UserError(
                f"{self._endpoint.url}: the server gives no number per token; start it with "
                "vllm serve PRM --runner pooling, PRM a folder of psgpo with one label"
            )
        return values
