"""Labelled programs (verified mutants, planted bugs) as examples for a PRM or an ORM.

A causal PRM reads a whole program in one pass, so every line gets its target in one example. The ids are those of the
whole program, cut behind the last line that has a label: what the model is trained on is what it reads when it scores.
Lines without a label (0) say nothing and weigh nothing.

An ORM has one target, the verdict, at an end-of-sequence token behind the program's last line.
"""

# L code lines

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from psgpo.prm.align import Aligned, Aligner, code_alone, with_end
from psgpo.prm.data import PrmExample, token_weights
from psgpo.prompts import cut_prompt, encode_prompt, fill


class Labelled(Protocol):
    """A program with a label per line; `psgpo.mutation.labelled.LabelledProgram` is one."""

    @property
    def problem_id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def labels(self) -> Sequence[float | None]:
        """Per line of `psgpo.lines.code_lines(code)`: +1 or -1; 0 or None for no label. Shape: (L,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptShape:
    """How the problem's text becomes prompt ids."""

    template: str = "{prompt}\n"
    max_tokens: int | None = None
    """Longer prompts lose their end; None keeps all."""

    def encode(self, tokenizer: Any, problem: str) -> tuple[int, ...]:
        ids = encode_prompt(tokenizer, fill(self.template, problem))
        return cut_prompt(tokenizer, ids, self.max_tokens)


class Encoder:
    """Text to ids with the token that ends each line, exactly as `psgpo.prm.scorers.CausalScorer` reads it."""

    def __init__(self, tokenizer: Any, shape: PromptShape) -> None:
        self.tokenizer = tokenizer
        self.shape = shape
        self._align = Aligner(tokenizer)
        self._prompts: dict[str, tuple[int, ...]] = {}

    def prompt(self, problem: str) -> tuple[int, ...]:
        """Prompt ids; problems come back often, so they are kept."""
        if problem not in self._prompts:
            self._prompts[problem] = self.shape.encode(self.tokenizer, problem)
        return self._prompts[problem]

    def code(self, code: str) -> tuple[Aligned, dict[int, tuple[int, ...]]]:
        """(the whole, ids of the prefix of each line that is read alone: see `Aligner.alone`)."""
        aligned = with_end(self._align(code), code, int(self.tokenizer.eos_token_id))
        return aligned, self._align.alone(aligned, code)

    def tokens(self, problem: str, code: str) -> int:
        """Of the longest sequence that is read for a program, prompt included."""
        aligned, alone = self.code(code)
        return len(self.prompt(problem)) + max(len(aligned.token_ids), *map(len, alone.values()), 0)


def line_examples(encoder: Encoder, programs: Iterable[Labelled]) -> list[PrmExample]:
    """Targets at every labelled line. A prefix that several programs share counts in each of them.

    One example per program with a label, and one more for each labelled line that is read alone.
    """
    made: list[PrmExample] = []
    for index, program in enumerate(programs):
        last = max((m for m, label in enumerate(program.labels, start=1) if label), default=0)
        if not last:
            continue
        aligned, alone = encoder.code(program.code)
        ends, labels = aligned.line_ends[:last], tuple(float(label or 0) for label in program.labels[:last])
        silent = tuple(label == 0 or m in alone for m, label in enumerate(labels))
        speaking = token_weights(ends, silent)
        whole = PrmExample(
            problem_id=program.problem_id,
            checkpoint="",
            index=index,
            prompt_ids=encoder.prompt(program.prompt),
            token_ids=aligned.token_ids[: max(ends) + 1],
            line_ends=ends,
            neutral=silent,
            last_solvable=next((m for m, label in enumerate(labels) if label < 0), last),
            targets=labels,
            weights=tuple(0.0 if quiet else weight for quiet, weight in zip(silent, speaking, strict=True)),
        )
        made += [whole] if any(whole.weights) else []
        made += [_alone(whole, ids, labels[m]) for m, ids in alone.items() if m < last and labels[m]]
    return made


def program_examples(encoder: Encoder, programs: Iterable[tuple[Labelled, bool]]) -> list[PrmExample]:
    """(program, passed): one target, the verdict, behind the last line; programs without lines are left out."""
    made: list[PrmExample] = []
    for index, (program, passed) in enumerate(programs):
        aligned, _ = encoder.code(code_alone(program.code))
        L, ends = len(aligned.lines), aligned.line_ends
        if not L:
            continue
        made.append(
            PrmExample(
                problem_id=program.problem_id,
                checkpoint="",
                index=index,
                prompt_ids=encoder.prompt(program.prompt),
                token_ids=aligned.token_ids[: ends[-1] + 1],
                line_ends=ends,
                neutral=(*(True,) * (L - 1), False),
                last_solvable=L if passed else L - 1,
                targets=(*(0.0,) * (L - 1), 1.0 if passed else -1.0),
                weights=(*(0.0,) * (L - 1), 1.0),
            )
        )
    return made


def _alone(whole: PrmExample, ids: tuple[int, ...], label: float) -> PrmExample:
    return replace(
        whole,
        token_ids=ids,
        line_ends=(len(ids) - 1,),
        neutral=(False,),
        last_solvable=int(label > 0),
        targets=(label,),
        weights=(1.0,),
    )
