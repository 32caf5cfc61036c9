"""Reading a causal PRM at line ends of token ids. Text becomes ids in one place: `psgpo.prm.scorers`."""

# B sequences, P prompt tokens, T response tokens, L code lines

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from psgpo.errors import UserError
from psgpo.models import TokenValueModel, load_tokenizer, right_pad, round_frozen
from psgpo.training import computing, token_batches

ScoreItem = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""(prompt ids (P,), response ids (T,), line ends (L,) as indices into the response ids)."""


def line_values(model: TokenValueModel, items: Sequence[ScoreItem], pad_token_id: int) -> torch.Tensor:
    """R(x, y^(<=m)) of all lines of all items, concatenated in order, with gradient. Shape: (sum of L,)."""
    device = next(model.parameters()).device
    ids_BT, mask_BT = right_pad([[*prompt, *response] for prompt, response, _ in items], pad_token_id, device=device)
    rows = [b for b, item in enumerate(items) for _ in item[2]]
    columns = [len(item[0]) + end for item in items for end in item[2]]
    values_BT: torch.Tensor = model(ids_BT, mask_BT)
    return values_BT[torch.tensor(rows, dtype=torch.long), torch.tensor(columns, dtype=torch.long)]


class PrmScorer:
    """Scores responses that are token ids with a trained PRM (or any `TokenValueModel`); of text see `open_scorer`."""

    def __init__(
        self,
        model: TokenValueModel | Path | str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        batch_tokens: int = 8192,
    ) -> None:
        """Load or wrap a PRM.

        Args:
            model: a folder written by `train_prm`, or a model already in memory (moved to `device`).
            tokenizer: needed with a model in memory; a folder brings its own.
            dtype: as `model.dtype` of a recipe. bfloat16 freezes the model, and its matrices are kept in it.
            batch_tokens: padded tokens per forward pass, at most (one longer response still goes alone).
        """
        if isinstance(model, Path | str):
            tokenizer = tokenizer or load_tokenizer(model)
            model = TokenValueModel.from_pretrained(model)
        if tokenizer is None:
            raise UserError("PrmScorer: a model in memory needs its tokenizer; pass tokenizer=")
        if dtype != "float32":
            round_frozen(model.requires_grad_(False), dtype)
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self._computing = partial(computing, dtype, device)
        self.batch_tokens = batch_tokens
        self._pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)

    @property
    def context(self) -> int | None:
        """Tokens of prompt and response that it can read; None without a limit."""
        return getattr(self.model.classifier.config, "max_position_embeddings", None)

    @torch.inference_mode()
    def score(self, items: Sequence[ScoreItem]) -> list[NDArray[np.float64]]:
        """Scores R(x, y^(<=m)) per item, in the order given. Shape of each: (L,); empty for an item without lines."""
        scores = [np.zeros(0) for _ in items]
        with_lines = [i for i, item in enumerate(items) if len(item[2])]
        lengths = [len(items[i][0]) + len(items[i][1]) for i in with_lines]
        for part in token_batches(lengths, self.batch_tokens):
            batch = [with_lines[number] for number in part]
            with self._computing():
                values = line_values(self.model, [items[i] for i in batch], self._pad)
            flat = values.double().cpu().numpy()
            cuts = np.cumsum([len(items[i][2]) for i in batch])[:-1]
            for i, score_L in zip(batch, np.split(flat, cuts), strict=True):
                scores[i] = score_L
        return scores
