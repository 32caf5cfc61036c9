"""Labelled programs (verified mutants, planted bugs) as examples for a PRM or an ORM.

A causal PRM reads a whole program in one pass, so every line gets its target in one example. The ids are those of the
whole program, cut behind the last line that has a label: what the model is trained on is what it reads when it scores.
Lines without a label (0) say nothing and weigh nothing.

An ORM has one target, the verdict, at the program's last token.
"""

# L code lines

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from psgpo.lines import Tokenizer, TokenText, code_lines, line_end_tokens
from psgpo.prm.data import PrmExample, token_weights
from psgpo.prompts import encode_prompt, fill

Scope = Literal["line", "program"]


class Labelled(Protocol):
    """A program with a label per line; `psgpo.mutation.labelled.LabelledProgram` is one."""

    @property
    def problem_id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def labels(self) -> Sequence[float]:
        """Per line of `psgpo.lines.code_lines(code)`: +1, -1, anything between, or 0 for no label. Shape: (L,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptShape:
    """How the problem's text becomes prompt ids."""

    template: str = "{prompt}\n"
    max_tokens: int | None = None
    """Longer prompts lose their end; None keeps all."""

    def encode(self, tokenizer: Any, problem: str) -> tuple[int, ...]:
        ids = encode_prompt(tokenizer, fill(self.template, problem))
        return ids if self.max_tokens is None else ids[: self.max_tokens]


class Encoder:
    """Text to ids with the token that ends each line."""

    def __init__(self, tokenizer: Any, shape: PromptShape) -> None:
        self.tokenizer = tokenizer
        self.shape = shape
        self._text = TokenText(cast(Tokenizer, tokenizer))
        self._prompts: dict[str, tuple[int, ...]] = {}

    def prompt(self, problem: str) -> tuple[int, ...]:
        """Prompt ids; problems come back often, so they are kept."""
        if problem not in self._prompts:
            self._prompts[problem] = self.shape.encode(self.tokenizer, problem)
        return self._prompts[problem]

    def code(self, code: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(ids, per line the index of the token that ends it)."""
        ids = tuple(int(token) for token in self.tokenizer(code, add_special_tokens=False)["input_ids"])
        text, char_ends = self._text.decode_with_ends(ids)
        return ids, line_end_tokens(char_ends, code_lines(text))


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
    """One target, the verdict, at the last token; None for a program without lines."""
    ids, ends = encoder.code(code)
    L = len(ends)
    if not L:
        return None
    ends = (*ends[:-1], len(ids) - 1)
    return PrmExample(
        problem_id=problem_id,
        checkpoint="",
        index=index,
        prompt_ids=encoder.prompt(prompt),
        token_ids=ids,
        line_ends=ends,
        neutral=(*(True,) * (L - 1), False),
        last_solvable=L if label > 0 else L - 1,
        targets=(*(0.0,) * (L - 1), float(label)),
        weights=(*(0.0,) * (L - 1), 1.0),
    )


def line_examples(encoder: Encoder, programs: Iterable[Labelled]) -> list[PrmExample]:
    """`line_example` of every program that has a labelled line."""
    made = (line_example(encoder, program, index) for index, program in enumerate(programs))
    return [example for example in made if example is not None]
