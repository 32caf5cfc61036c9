"""Encoder–decoders in the decoding loop: the encoder reads a prompt once, the decoder goes on with its own cache."""

# N rows of a chunk, P tokens of the longest prompt, d hidden features, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput

from psgpo.models.batch import right_pad
from psgpo.models.seq2seq import special_ids
from psgpo.prompts import split_prompt
from psgpo.sampling.ledger import Request
from psgpo.sampling.plain import Ids, Row
from psgpo.training import token_batches

ENCODER_TOKENS = 8192
"""Padded prompt tokens that the encoder reads at once, at most: T5's attention holds their square."""


class Seq2SeqSteps:
    """Implements `psgpo.sampling.plain.Steps`. Prompts are padded and masked; the decoder's rows are not padded."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._special = special_ids(model.config)
        self._states_NPd = self._mask_NP = torch.empty(0)
        self._cache: Any = None

    def read(self, request: Request) -> Row:
        """A prefix is a prompt and what is written of its response.

        Raises:
            UserError: the prefix holds no whole prompt.
        """
        prompt, written = split_prompt(request.prefix, self._special["end"])
        return Row(request=request, source=prompt, fed=(self._special["start"], *written))

    def start(self, sources: Sequence[Ids], fed: Sequence[Ids]) -> tuple[Tensor, int]:
        device = self._model.device
        prompts = sorted(set(sources))
        states, mask_P = self._encode(prompts)
        prompt_of = {prompt: row for row, prompt in enumerate(prompts)}
        pairs = sorted(set(zip(sources, fed, strict=True)))
        pair_of = {pair: row for row, pair in enumerate(pairs)}
        chosen = torch.tensor([prompt_of[source] for source, _ in pairs], device=device)
        self._states_NPd, self._mask_NP, self._cache = states[chosen], mask_P[chosen], None
        written = torch.tensor([ids for _, ids in pairs], device=device)
        if written.shape[1] > 1:
            # Without the head: of these tokens nobody wants the logits.
            output = self._model.get_decoder()(
                input_ids=written[:, :-1],
                encoder_hidden_states=self._states_NPd,
                encoder_attention_mask=self._mask_NP,
                use_cache=True,
            )
            self._cache = output.past_key_values
        logits = self.step(written[:, -1])
        rows = torch.tensor([pair_of[pair] for pair in zip(sources, fed, strict=True)], device=device)
        self.keep(rows)
        return logits[rows], sum(map(len, prompts)) + written.numel()

    def _encode(self, prompts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """States (prompts, P, d) and mask (prompts, P), a few prompts of like length at a time."""
        _, mask_P = right_pad(prompts, self._special["pad"], device=self._model.device)
        states = torch.empty(0)
        for part in token_batches([len(prompt) for prompt in prompts], ENCODER_TOKENS):
            ids, mask = right_pad([prompts[i] for i in part], self._special["pad"], device=self._model.device)
            found = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            if not len(states):
                states = found.new_zeros((*mask_P.shape, found.shape[-1]))
            states[torch.tensor(part, device=found.device), : found.shape[1]] = found
        return states, mask_P

    def step(self, ids_N: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._states_NPd),
            attention_mask=self._mask_NP,
            decoder_input_ids=ids_N[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        assert isinstance(self._cache, Cache), "an encoder–decoder of transformers returns its cache"
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows_K: Tensor) -> None:
        self._states_NPd, self._mask_NP = self._states_NPd[rows_K], self._mask_NP[rows_K]
        self._cache.reorder_cache(rows_K)
