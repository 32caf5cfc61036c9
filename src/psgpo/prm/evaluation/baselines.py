"""What a PRM has to beat: scores that do not look at the program, and how surprising a policy finds each line.

majority        one number for all lines
position        share of good lines in the same tenth of a program, among the problems of the other half
surprise-mean   minus the mean -log p of the line's tokens under a policy
surprise-sum    minus their sum
"""

# L code lines

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.labeling.surprise import token_surprise
from psgpo.models import load_policy
from psgpo.prm.align import Aligner
from psgpo.prm.evaluation.table import Lines, Scored
from psgpo.prompts import encode_prompt, fill

Array = NDArray[np.float64]
TENTHS = 10


def majority(lines: Lines) -> Scored:
    """The same number for all lines; as a probability, the share of good ones in the other half of the problems."""
    constant = [np.zeros(len(program.labels)) for program in lines.programs]
    return Scored(name="majority", evidence=constant, probabilities={"raw": _rates(lines, 1)})


def position(lines: Lines) -> Scored:
    """The share of good lines in the same tenth of a program, in the other half of the problems."""
    rates = _rates(lines, TENTHS)
    return Scored(name="position", evidence=rates, probabilities={"raw": rates})


def _rates(lines: Lines, parts: int) -> list[Array]:
    """P(good) in each of so many parts of a program, counted in the other half with one good and one bad line added."""
    part_N = (lines.number_N - 1) * parts // lines.length_N
    half_N = lines.first_half[lines.program_N]
    rates = {}
    for side in (True, False):
        other_N = half_N != side if (half_N != side).any() else half_N == side
        good = np.bincount(part_N[other_N], weights=lines.good_N[other_N], minlength=parts)
        rates[side] = (good + 1) / (np.bincount(part_N[other_N], minlength=parts) + 2)
    found = []
    for program, first in zip(lines.programs, lines.first_half, strict=True):
        L = len(program.labels)
        found.append(rates[bool(first)][np.arange(L) * parts // max(1, L)])
    return found


class LineSurprise:
    """A causal language model as a scorer of lines: -log p of their tokens after the prompt and what comes before.

    Args:
        folder: the model and its tokenizer.
        template: `{prompt}` in it is the problem's text.
    """

    def __init__(self, folder: Path, template: str, *, device: str = "cpu") -> None:
        self.model, self.tokenizer = load_policy(folder, device=device)
        self.folder = folder
        self.template = template
        self._align = Aligner(self.tokenizer)

    @torch.inference_mode()
    def line_surprise(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[float], list[float]]]:
        """(mean, sum) in nats per line of each (problem, code).

        A line is the tokens after the one that ends the line before (the first line: all from the start, a fence before
        it included); lines that end in one token share its surprise.

        Raises:
            UserError: a program with its prompt is longer than the model's context.
        """
        encoded = [self._encode(problem, code) for problem, code in pairs]
        longest = max((len(prompt) + len(ids) for prompt, ids, _ in encoded), default=0)
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is not None and longest > context:
            raise UserError(
                f"{self.folder}: a program of {longest} tokens does not fit its context of {context} tokens"
            )
        surprise = token_surprise(self.model, [(prompt, ids) for prompt, ids, _ in encoded])
        found = []
        for (_, _, spans), values in zip(encoded, surprise, strict=True):
            parts = [values[start:stop] for start, stop in spans]
            found.append(([sum(part) / len(part) for part in parts], [sum(part) for part in parts]))
        return found

    def _encode(self, problem: str, code: str) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
        """(prompt ids, code ids, per line its tokens as [start, stop))."""
        aligned = self._align(code)
        starts = [0, *(end + 1 for end in aligned.line_ends[:-1])]
        spans = [(max(0, min(a, b)), max(1, b + 1)) for a, b in zip(starts, aligned.line_ends, strict=False)]
        return encode_prompt(self.tokenizer, fill(self.template, problem)), aligned.token_ids, spans
