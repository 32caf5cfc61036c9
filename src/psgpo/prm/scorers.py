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
from psgpo.prm.align import Aligned, Aligner, code_alone, with_end
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

    def readable(self, problem: str, code: str) -> bool:
        """Whether it can score this. A causal model cuts nothing; encoders do, and n-grams have no limit."""
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

    @property
    def threshold(self) -> float:
        return self.record.threshold

    def readable(self, problem: str, code: str) -> bool:
        items = [self._last(problem, code)] if self.record.scope == "program" else self._lines(problem, code)[0]
        return all(self._fault(item) is None for item in items)

    def score_lines(self, problem: str, code: str) -> Scores:
        return self.score_many([(problem, code)])[0]

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[Scores]:
        items: list[ScoreItem] = []
        places: list[list[tuple[int, int]]] = []  # per pair, per line: (item, which of its line ends)
        for problem, code in pairs:
            of_pair, places_L = self._lines(problem, code)
            places.append([(len(items) + item, end) for item, end in places_L])
            items += [self._checked(problem, item) for item in of_pair]
        found = self.scorer.score(items)
        scores = [np.array([found[item][k] for item, k in lines], dtype=np.float64) for lines in places]
        return [_margins(row) for row in scores] if self.record.target == "progress" else scores

    def score_prefixes(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        items = [self._checked(problem, self._last(problem, code)) for problem, code in pairs]
        return np.array([row[0] for row in self.scorer.score(items)], dtype=np.float64)

    def probabilities(self, problem: str, code: str) -> Scores:
        return probabilities(self.score_lines(problem, code), self.record.calibration, self.record.target)

    def score_program(self, problem: str, code: str) -> float:
        needs_orm(self.record, self._name)
        return float(self.score_prefixes([(problem, code)])[0]) if code_lines(code) else float("nan")

    def _lines(self, problem: str, code: str) -> tuple[list[ScoreItem], list[tuple[int, int]]]:
        """(what to read, per line: which item and which of its line ends)."""
        prompt, code = self._prompt(problem), self._whole(code)
        aligned = self._ended(code)
        items: list[ScoreItem] = [(prompt, aligned.token_ids, aligned.line_ends)]
        places_L = [(0, m) for m in range(len(aligned.line_ends))]
        for m, ids in self._align.alone(aligned, code).items():
            places_L[m] = (len(items), 0)
            items.append((prompt, ids, [len(ids) - 1]))
        return items, places_L

    def _last(self, problem: str, code: str) -> ScoreItem:
        """What to read for the last line alone."""
        aligned = self._ended(self._whole(code))
        return self._prompt(problem), aligned.token_ids, aligned.line_ends[-1:]

    def _whole(self, code: str) -> str:
        return code_alone(code) if self.record.scope == "program" else code

    def _ended(self, code: str) -> Aligned:
        """The text as ids, with an end-of-sequence id where its last line has no newline."""
        return with_end(self._align(code), code, int(self.scorer.tokenizer.eos_token_id))

    def _prompt(self, problem: str) -> tuple[int, ...]:
        ids = encode_prompt(self.scorer.tokenizer, fill(self.record.prompt_template, problem))
        return cut_prompt(self.scorer.tokenizer, ids, self.record.max_prompt_tokens)

    def _checked(self, problem: str, item: ScoreItem) -> ScoreItem:
        fault = self._fault(item)
        if fault is not None:
            raise UserError(f"{self._name}: a program for {' '.join(problem.split())[:60]!r} {fault}")
        return item

    def _fault(self, item: ScoreItem) -> str | None:
        """Why this cannot be read; None where it can."""
        prompt, ids, ends = item
        tokens, context = len(prompt) + len(ids), self.scorer.context
        if context is not None and tokens > context:
            return (
                f"has {tokens} tokens with its problem, the model's context holds {context}; "
                "leave the program out or use a PRM with a longer context"
            )
        if any(len(prompt) + end < 0 for end in ends):
            return "has a line without tokens behind an empty prompt: there is nothing to read"
        return None


def open_scorer(folder: Path | str, *, device: str | torch.device = "cpu", dtype: str = "float32") -> TextScorer:
    """The scorer of a model folder that holds `psgpo_prm.json`.

    Args:
        dtype: what networks compute in, as `model.dtype` of a recipe; n-grams have none.

    Raises:
        UserError: the folder, its record, its weights or its tokenizer is missing or unusable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the model folder of a PRM")
    record = ScorerRecord.load(folder)
    if record.kind == "encoder":
        return EncoderScorer.open(folder, record, device=device, dtype=dtype)
    if record.kind == "ngrams":
        return NgramScorer(folder, record)
    model, tokenizer = TokenValueModel.from_pretrained(folder), load_tokenizer(folder)
    scorer = PrmScorer(model, tokenizer, device=device, dtype=dtype)
    return CausalScorer(scorer, record, str(folder))


def _margins(scores: Scores) -> Scores:
    T = len(scores)
    return T * max(0.0, float(scores.max())) + 0.5 - np.arange(1, T + 1) if T else scores
