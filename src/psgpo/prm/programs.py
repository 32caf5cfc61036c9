"""Labelled programs (verified mutants, planted bugs) as examples for a PRM or an ORM.

A causal PRM reads a whole program in one pass, so every line gets its target in one example. The ids are those of the
whole program, cut behind the last line that has a label: what the model is trained on is what it reads when it scores.
Lines without a label (0) say nothing and weigh nothing.

An ORM has one target, the verdict, where the program's last line ends.
"""

# L code lines

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psgpo.prm.align import Aligner, with_end
from psgpo.prm.data import PrmExample, token_weights
from psgpo.prompts import encode_prompt, fill


class Labelled(Protocol):
    """A program with a label per line; `psgpo.mutation.labelled.LabelledProgram` is one."""

    @property
    def problem_id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def code(self, code: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(ids, per line the index of the token that ends it), as `psgpo.prm.scorers.CausalScorer` reads them."""
        aligned = with_end(self._align(code), code, int(self.tokenizer.eos_token_id))
        return aligned.token_ids, aligned.line_ends


def line_example(encoder: Encoder, program: Labelled, index: int = 0) -> PrmExample | None:
    """Targets at every labelled line; None when no line has a label."""
    last = max((m for m, label in enumerate(program.labels, start=1) if label), default=0)
    if not last:
        return None
    ids, ends = encoder.code(program.code)
    labels = tuple(float(label) for label in program.labels[:last])
    silent = tuple(label == 0 for label in labels)
    speaking = token_weights(ends[:last], silent)
    bad = next((m for m, label in enumerate(labels) if label < 0), last)
    return PrmExample(
        problem_id=program.problem_id,
        checkpoint="",
        index=index,
        prompt_ids=encoder.prompt(program.prompt),
        token_ids=ids[: ends[last - 1] + 1],
        line_ends=ends[:last],
        neutral=silent,
        last_solvable=bad,
        targets=labels,
        weights=tuple(0.0 if quiet else weight for quiet, weight in zip(silent, speaking, strict=True)),
    )


def program_example(
    encoder: Encoder, problem_id: str, prompt: str, code: str, label: float, index: int = 0
) -> PrmExample | None:
    """One target, the verdict, where the last line ends; None for a program without lines."""
    ids, ends = encoder.code(code)
    L = len(ends)
    if not L:
        return None
    return PrmExample(
        problem_id=problem_id,
        checkpoint="",
        index=index,
        prompt_ids=encoder.prompt(prompt),
        token_ids=ids[: ends[-1] + 1],
        line_ends=ends,
        neutral=(*(True,) * (L - 1), False),
        last_solvable=L if label > 0 else L - 1,
        targets=(*(0.0,) * (L - 1), float(label)),
        weights=(*(0.0,) * (L - 1), 1.0),
    )


def line_examples(encoder: Encoder, programs: Iterable[Labelled]) -> list[PrmExample]:
    """`line_example` of every program that has a labelled line. A prefix that several programs share counts in each."""
    made = (line_example(encoder, program, index) for index, program in enumerate(programs))
    return [example for example in made if example is not None]
