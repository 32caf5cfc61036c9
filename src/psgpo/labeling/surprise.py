"""The policy's surprise at its own tokens, for priors over lines. Loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

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
        found: list[list[float]] = [[] for _ in responses]
        for name, model in self._models.items():
            members = [n for n, response in enumerate(responses) if response.checkpoint == name]
            members.sort(key=lambda n: len(responses[n].token_ids))
            for start in range(0, len(members), ROWS):
                rows = members[start : start + ROWS]
                for number, values in zip(rows, _surprise(model, [responses[n] for n in rows]), strict=True):
                    found[number] = values
        return found


def _surprise(model: PreTrainedModel, responses: Sequence[Response]) -> list[list[float]]:
    ids, mask = right_pad([[*r.prompt_ids, *r.token_ids] for r in responses], 0)
    prompt = torch.tensor([len(r.prompt_ids) for r in responses])
    marked = mask * (torch.arange(ids.shape[1]) >= prompt[:, None])
    logprobs, _ = token_logprobs(model, ids.to(model.device), mask.to(model.device), marked.to(model.device))
    return [
        [-value for value in row[len(r.prompt_ids) : len(r.prompt_ids) + len(r.token_ids)].tolist()]
        for row, r in zip(logprobs.cpu(), responses, strict=True)
    ]
