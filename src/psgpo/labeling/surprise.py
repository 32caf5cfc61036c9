"""The policy's surprise at its own tokens, for priors over lines. Loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from psgpo.errors import UserError
from psgpo.models import right_pad, token_logprobs
from psgpo.records import Response

ROWS = 64
"""Responses in one forward pass."""


class PolicySurprise:
    """-log p of every token of responses, under the model that wrote them; a `splice_policy.Surprise`.

    Args:
        models: checkpoint name to model.
    """

    def __init__(self, models: Mapping[str, PreTrainedModel]) -> None:
        self._models = models

    @torch.inference_mode()
    def __call__(self, responses: Sequence[Response]) -> list[list[float]]:
        """Shape: per response, its tokens.

        Raises:
            UserError: a response is of a checkpoint that is not among the models.
        """
        strangers = sorted({response.checkpoint for response in responses} - self._models.keys())
        if strangers:
            raise UserError(
                f"the prior reads how sure the policy was of its own lines; the model of checkpoint {strangers[0]!r} "
                f"is not given (there are: {', '.join(self._models)}). Add it, or use a strategy without a prior"
            )
        found: list[list[float]] = [[] for _ in responses]
        for name, model in self._models.items():
            members = [n for n, response in enumerate(responses) if response.checkpoint == name]
            members.sort(key=lambda n: len(responses[n].token_ids))
            for start in range(0, len(members), ROWS):
                rows = members[start : start + ROWS]
                pairs = [(responses[n].prompt_ids, responses[n].token_ids) for n in rows]
                for number, values in zip(rows, token_surprise(model, pairs), strict=True):
                    found[number] = values
        return found


def token_surprise(model: PreTrainedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
    """-log p of every token of the second parts of (prompt, response) pairs, in one forward pass, in nats."""
    ids, mask = right_pad([[*prompt, *response] for prompt, response in pairs], 0)
    starts = torch.tensor([len(prompt) for prompt, _ in pairs])
    marked = mask * (torch.arange(ids.shape[1]) >= starts[:, None])
    logprobs, _ = token_logprobs(model, ids.to(model.device), mask.to(model.device), marked.to(model.device))
    return [
        [-value for value in row[len(prompt) : len(prompt) + len(response)].tolist()]
        for row, (prompt, response) in zip(logprobs.cpu(), pairs, strict=True)
    ]
