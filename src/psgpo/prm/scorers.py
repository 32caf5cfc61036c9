"""One interface for every PRM and ORM folder: a problem's text and a program in, one number per line out."""

# L code lines

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.lines import code_lines
from psgpo.models import TokenValueModel, load_tokenizer
from psgpo.prm.align import Aligned, Aligner, with_end, without_newline
from psgpo.prm.calibrate import probabilities
from psgpo.prm.encoder import EncoderScorer
from psgpo.prm.ngrams import NgramScorer
from psgpo.prm.record import ScorerRecord, needs_orm
from psgpo.prm.score import PrmScorer, ScoreItem
from psgpo.prompts import cut_prompt, encode_prompt, fill

Scores = NDArray[np.float64]


class TextScorer(Protocol):
    """What `open_scorer` gives.

    The lines are those of `psgpo.lines.code_lines(code)`. The score of line m says how good the program is up to and
    with line m; it is made from the problem and that much of the program, except for `progress` (see `CausalScorer`).
    """

    record: ScorerRecord

    @property
    def threshold(self) -> float:
        """A line that scores below it is called wrong."""
        ...

    def score_lines(self, problem: str, code: str) -> Scores:
        """Shape: (L,). `problem` is `Problem.prompt`; the folder's template is applied here."""
        ...

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[Scores]:
        """`score_lines` of many (problem, code), in batches."""
        ...

    def score_prefixes(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """The score at the last line of each (problem, code); every code has one. Shape: (pairs,).

        A causal model is told by a newline at the end of `code` that the program goes on.
        """
        ...

    def probabilities(self, problem: str, code: str) -> Scores:
        """Calibrated P(good) per line, in [0, 1]. Shape: (L,)."""
        ...

    def score_program(self, problem: str, code: str) -> float:
        """The ORM's score of the whole program; NaN for one without lines.

        Raises:
            UserError: this is no ORM.
        """
        ...


class CausalScorer:
    """A token value model read where lines end.

    A last line without a newline is read at an end-of-sequence token, as in the responses of a run: there the policy
    has just said that the program ends. All other lines are read where their newline is. An ORM reads the last line so
    even where it has a newline.

    A `progress` PRM says how much of the program is done and right; which lines it calls good needs the whole
    program (`psgpo.prm.measure`). Its line scores here are therefore the margins T max(0, R_1 .. R_T) + 1/2 - m,
    below 0 for lines that it calls wrong.
    """

    def __init__(self, scorer: PrmScorer, record: ScorerRecord, name: str = "PRM") -> None:
        self.record = record
        self.scorer = scorer
        self._name = name
        self._align = Aligner(scorer.tokenizer)
        self._context = getattr(scorer.model.classifier.config, "max_position_embeddings", None)

    @property
    def threshold(self) -> float:
        return self.record.threshold

    def score_lines(self, problem: str, code: str) -> Scores:
        return self.score_many([(problem, code)])[0]

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[Scores]:
        items: list[ScoreItem] = []
        places: list[list[tuple[int, int]]] = []  # per pair, per line: (item, which of its line ends)
        for problem, code in pairs:
            prompt = self._prompt(problem)
            code = self._whole(code)
            aligned = self._ended(code)
            whole = len(items)
            items.append(self._checked(problem, (prompt, aligned.token_ids, aligned.line_ends)))
            places.append([(whole, m) for m in range(len(aligned.line_ends))])
            for m, ids in self._align.alone(aligned, code).items():
                places[-1][m] = (len(items), 0)
                items.append(self._checked(problem, (prompt, ids, [len(ids) - 1])))
        found = self.scorer.score(items)
        scores = [np.array([found[item][k] for item, k in lines], dtype=np.float64) for lines in places]
        return [_margins(row) for row in scores] if self.record.target == "progress" else scores

    def score_prefixes(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        items: list[ScoreItem] = []
        for problem, code in pairs:
            aligned = self._ended(self._whole(code))
            items.append(self._checked(problem, (self._prompt(problem), aligned.token_ids, aligned.line_ends[-1:])))
        return np.array([row[0] for row in self.scorer.score(items)], dtype=np.float64)

    def probabilities(self, problem: str, code: str) -> Scores:
        return probabilities(self.score_lines(problem, code), self.record.calibration, self.record.target)

    def score_program(self, problem: str, code: str) -> float:
        needs_orm(self.record, self._name)
        return float(self.score_prefixes([(problem, code)])[0]) if code_lines(code) else float("nan")

    def _whole(self, code: str) -> str:
        return without_newline(code) if self.record.scope == "program" else code

    def _ended(self, code: str) -> Aligned:
        """The text as ids, with an end-of-sequence id where its last line has no newline."""
        return with_end(self._align(code), code, int(self.scorer.tokenizer.eos_token_id))

    def _prompt(self, problem: str) -> tuple[int, ...]:
        ids = encode_prompt(self.scorer.tokenizer, fill(self.record.prompt_template, problem))
        return cut_prompt(self.scorer.tokenizer, ids, self.record.max_prompt_tokens)

    def _checked(self, problem: str, item: ScoreItem) -> ScoreItem:
        prompt, ids, ends = item
        which = f"{self._name}: a program for {' '.join(problem.split())[:60]!r}"
        tokens = len(prompt) + len(ids)
        if self._context is not None and tokens > self._context:
            raise UserError(
                f"{which} has {tokens} tokens with its problem, the model's context holds {self._context}; "
                "leave the program out or use a PRM with a longer context"
            )
        if any(len(prompt) + end < 0 for end in ends):
            raise UserError(f"{which} has a line without tokens behind an empty prompt: there is nothing to read")
        return item


def open_scorer(folder: Path | str, *, device: str | torch.device = "cpu") -> TextScorer:
    """The scorer of a model folder that holds `psgpo_prm.json`.

    Raises:
        UserError: the folder, its record, its weights or its tokenizer is missing or unusable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the model folder of a PRM")
    record = ScorerRecord.load(folder)
    if record.kind == "encoder":
        return EncoderScorer.open(folder, record, device=device)
    if record.kind == "ngrams":
        return NgramScorer(folder, record)
    scorer = PrmScorer(TokenValueModel.from_pretrained(folder, device=device), load_tokenizer(folder), device=device)
    return CausalScorer(scorer, record, str(folder))


def _margins(scores: Scores) -> Scores:
    T = len(scores)
    return T * max(0.0, float(scores.max())) + 0.5 - np.arange(1, T + 1) if T else scores
