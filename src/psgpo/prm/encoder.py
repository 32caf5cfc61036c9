"""An encoder that reads (problem, prefix) and says how likely the prefix is right (PRLCoder's PRM).

Any encoder that `AutoModelForSequenceClassification` knows, with one label: the raw logit is the score and σ(logit) is
P(good). UniXcoder is a RoBERTa and loads as it is. The pair is laid out as the tokenizer lays out pairs (RoBERTa:
`<s> problem </s></s> prefix </s>`).

What does not fit is cut: the problem loses its end, the prefix its beginning, because the line to judge stands at its
end. How many pairs were cut is counted.
"""

# B sequences, L code lines

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from psgpo.errors import UserError
from psgpo.lines import code_lines
from psgpo.models import round_frozen
from psgpo.prm.calibrate import probabilities
from psgpo.prm.record import ScorerRecord, needs_orm
from psgpo.prompts import fill
from psgpo.training import computing

Pair = tuple[str, str]
"""(problem with the template applied, prefix)."""
LEAST_ROOM = 16
"""Tokens of a prefix that are always read."""


class PairEncoder:
    """Pairs to ids, cut to the context.

    Args:
        max_tokens: of both together, special tokens included.
        max_prompt_tokens: of the problem when the prefix needs the room; None is half of it.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, max_prompt_tokens: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.room = max_tokens - int(tokenizer.num_special_tokens_to_add(pair=True))
        self.most_problem = self.room // 2 if max_prompt_tokens is None else max_prompt_tokens
        if self.room - self.most_problem < LEAST_ROOM:
            raise UserError(
                f"max_tokens {max_tokens} with {self.most_problem} for the problem leaves fewer than {LEAST_ROOM} for "
                "the prefix; use an encoder with a longer context or a smaller --max-prompt-tokens"
            )
        self.cut = 0
        """Pairs that lost text so far."""
        self._typed = "token_type_ids" in tokenizer.model_input_names

    def __call__(self, pair: Pair) -> tuple[list[int], list[int]]:
        """(ids, segment of each id)."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        problem, prefix = (backend.encode(text, add_special_tokens=False) for text in pair)
        room = max(min(len(problem), self.most_problem), self.room - len(prefix))
        self.cut += len(problem) > room or len(prefix) > self.room - min(room, len(problem))
        problem.truncate(min(room, len(problem)), direction="right")
        prefix.truncate(min(len(prefix), self.room - len(problem)), direction="left")
        made = backend.post_process(problem, prefix, True)
        return list(made.ids), list(made.type_ids)

    def batch(self, pairs: Sequence[tuple[list[int], list[int]]], device: torch.device | str) -> dict[str, Tensor]:
        """Padded on the right, with mask (and segments where the model has them). Shapes: (B, tokens)."""
        width = max(len(ids) for ids, _ in pairs)
        pad = int(self.tokenizer.pad_token_id)
        rows = {
            "input_ids": [ids + [pad] * (width - len(ids)) for ids, _ in pairs],
            "attention_mask": [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in pairs],
        }
        if self._typed:
            rows["token_type_ids"] = [types + [0] * (width - len(types)) for _, types in pairs]
        return {name: torch.tensor(row, device=device) for name, row in rows.items()}


def load_encoder(folder: Path | str, *, fresh_head: bool) -> tuple[PreTrainedModel, Any]:
    """(model with one label, tokenizer) from a local folder.

    Args:
        fresh_head: the folder is an encoder without a trained head; its new head is drawn from torch's generator.

    Raises:
        UserError: no such folder, no encoder or tokenizer in it, or a head with more than one label.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the local folder of an encoder (download hub models first)")
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a fresh head is meant to be "newly initialized"
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not fresh_head and config.num_labels != 1:
            raise UserError(f"{folder}: an encoder PRM has num_labels = 1, found {config.num_labels}; train it again")
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: no encoder with its tokenizer ({' '.join(str(error).split())[:300]})") from None
    finally:
        transformers_logging.set_verbosity(before)
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: the encoder needs a fast tokenizer (tokenizer.json) with a pad token")
    return model.eval(), tokenizer


def context_of(model: PreTrainedModel) -> int | None:
    """Tokens that the encoder can read; None without a limit. RoBERTa counts positions from its padding id on."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    embeddings = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    offset = getattr(embeddings, "padding_idx", None)
    return int(positions) if offset is None else int(positions) - offset - 1


class EncoderScorer:
    """`TextScorer` of an encoder folder: every prefix of a program is one row of a batch."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        record: ScorerRecord,
        name: str = "encoder",
        *,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        batch_tokens: int = 8192,
    ) -> None:
        """
        Args:
            dtype: as `model.dtype` of a recipe. bfloat16 freezes the model, and its matrices are kept in it.
            batch_tokens: padded tokens per forward pass, at most (one longer pair still goes alone).
        """
        assert record.max_tokens is not None
        self.record = record
        if dtype != "float32":
            round_frozen(model.requires_grad_(False), dtype)
        self.model = model.to(device).eval()
        self._computing = partial(computing, dtype, device)
        self.pairs = PairEncoder(tokenizer, record.max_tokens, record.max_prompt_tokens)
        self._name = name
        self._batch_tokens = batch_tokens

    @classmethod
    def open(
        cls, folder: Path, record: ScorerRecord, *, device: str | torch.device = "cpu", dtype: str = "float32"
    ) -> EncoderScorer:
        if record.max_tokens is None:
            raise UserError(f"{folder}: psgpo_prm.json of an encoder lacks max_tokens; train the PRM again")
        return cls(*load_encoder(folder, fresh_head=False), record, str(folder), device=device, dtype=dtype)

    @property
    def threshold(self) -> float:
        return self.record.threshold

    @property
    def cut(self) -> int:
        """Pairs so far that lost text to the context."""
        return self.pairs.cut

    def readable(self, problem: str, code: str) -> bool:
        return True

    def score_lines(self, problem: str, code: str) -> NDArray[np.float64]:
        return self.score_many([(problem, code)])[0]

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[NDArray[np.float64]]:
        prefixes: list[Pair] = []
        counts = []
        for problem, code in pairs:
            lines = [line.text for line in code_lines(code)]
            prefixes += [(problem, "\n".join(lines[:m])) for m in range(1, len(lines) + 1)]
            counts.append(len(lines))
        flat = self.score_prefixes(prefixes)
        return np.split(flat, np.cumsum(counts)[:-1]) if counts else []

    @torch.inference_mode()
    def score_prefixes(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Logits of (problem, prefix) pairs, in the order given. Shape: (pairs,)."""
        rows = [self.pairs((fill(self.record.prompt_template, problem), prefix)) for problem, prefix in pairs]
        scores = np.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        while order:
            size = max(1, self._batch_tokens // len(rows[order[0]][0]))
            batch, order = order[:size], order[size:]
            with self._computing():
                logits = self.model(**self.pairs.batch([rows[i] for i in batch], self.model.device)).logits
            scores[batch] = logits[:, 0].double().cpu().numpy()
        return scores

    def probabilities(self, problem: str, code: str) -> NDArray[np.float64]:
        return probabilities(self.score_lines(problem, code), self.record.calibration, self.record.target)

    def score_program(self, problem: str, code: str) -> float:
        needs_orm(self.record, self._name)
        lines = [line.text for line in code_lines(code)]
        return float(self.score_prefixes([(problem, "\n".join(lines))])[0]) if lines else float("nan")
