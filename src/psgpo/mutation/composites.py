"""Many changes in one program: what a model can learn from in one pass.

A mutant changes one line, so most of what a model reads of it is the reference again. A *composite* takes, line by
line, the reference's own text, a bug of that line or a rewrite of it. A line's label says whether that line itself is
a bug, which is the label its mutant has; the lines before it may hold bugs, which no mutant's do. Changes that touch
more than one line take part too: the composite ends there, in the mutant's own lines.

For training only: no composite has run as a whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from psgpo.lines import code_lines
from psgpo.mutation.catalogue import Catalogue
from psgpo.mutation.labelled import LabelledProgram
from psgpo.mutation.program import Program
from psgpo.records import AssertTests, Problem

_NONE = AssertTests(entry_point="", checks=())
"""Nothing runs here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledText:
    """A program with a label per line: +1, -1, or 0 for none."""

    problem_id: str
    prompt: str
    code: str
    labels: tuple[int, ...]


@dataclass(kw_only=True)
class Variants:
    """What may stand in the place of each line of one program."""

    problem_id: str
    prompt: str
    lines: tuple[str, ...]
    labels: tuple[int, ...]
    """Of the unchanged lines: +1, or 0 for lines that say nothing."""
    bugs: dict[int, list[str]] = field(default_factory=dict)
    """By line number from 1: other texts of that line alone."""
    rewrites: dict[int, list[str]] = field(default_factory=dict)
    endings: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """(m, lines 1..m): bugs that change more than one line, up to the wrong one."""
    wholes: list[tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=list)
    """(lines, labels): right programs that differ in more than one line."""

    def exact(self, rng: random.Random) -> LabelledText:
        """One mutant, up to its bug, or one right program: what the model is measured on."""
        bugs = [(m, (*self.lines[: m - 1], text)) for m, texts in self.bugs.items() for text in texts] + self.endings
        if bugs and rng.random() < 0.7:
            m, lines = rng.choice(bugs)
            return self._text(lines, (*self.labels[: m - 1], -1))
        rewrites = [(m, text) for m, texts in self.rewrites.items() for text in texts]
        number = rng.randrange(len(rewrites) + len(self.wholes) + 1)
        if number < len(self.wholes):
            return self._text(*self.wholes[number])
        if number == len(rewrites) + len(self.wholes):
            return self._text(self.lines, self.labels)
        m, text = rewrites[number - len(self.wholes)]
        return self._text((*self.lines[: m - 1], text, *self.lines[m:]), self.labels)

    def composite(self, rng: random.Random, *, bug: float, rewrite: float, ending: float) -> LabelledText:
        """Every line changed with the given probabilities; with probability `ending` one of `endings` closes it."""
        stop = len(self.lines)
        tail: tuple[str, ...] = ()
        if self.endings and rng.random() < ending:
            m, lines = rng.choice(self.endings)
            # The change may begin above the wrong line; those lines stay the mutant's own.
            same = next((i for i, line in enumerate(lines[:-1]) if line != self.lines[i]), m - 1)
            stop, tail = same, lines[same:]
        made: list[str] = []
        labels: list[int] = []
        for m in range(1, stop + 1):
            draw = rng.random()
            text, label = self.lines[m - 1], self.labels[m - 1]
            if label and draw < bug and m in self.bugs:
                text, label = rng.choice(self.bugs[m]), -1
            elif label and bug <= draw < bug + rewrite and m in self.rewrites:
                text = rng.choice(self.rewrites[m])
            made.append(text)
            labels.append(label)
        if tail:
            made += tail
            labels += [*self.labels[stop : stop + len(tail) - 1], -1]
        return self._text(made, labels)

    def _text(self, lines: Sequence[str], labels: Sequence[int]) -> LabelledText:
        return LabelledText(problem_id=self.problem_id, prompt=self.prompt, code="\n".join(lines), labels=tuple(labels))


def verified_variants(programs: Iterable[LabelledProgram]) -> list[Variants]:
    """The variants that execution has judged, by problem: failing ones are bugs, passing ones rewrites."""
    found: dict[str, Variants] = {}
    rest = []
    for program in programs:
        if program.family == "reference":
            found[program.problem_id] = Variants(
                problem_id=program.problem_id, prompt=program.prompt, lines=program.lines, labels=program.labels
            )
        else:
            rest.append(program)
    for program in rest:
        variants = found.get(program.problem_id)
        m = program.mutated_line
        if variants is None or m is None:
            continue
        _enter(variants, program.lines, program.labels, m, in_place=program.in_place, bad=program.verdict == "fail")
    return list(found.values())


def planted_variants(
    name: str, prompt: str, code: str, *, bugs_per_line: int, rewrites_per_line: int, seed: int
) -> Variants:
    """Variants of any function by the catalogue. Nothing runs: a bug may change nothing, a rewrite hardly does.

    Raises:
        UnusableError: the code cannot be mutated.
    """
    program = Program(code)
    lines = tuple(line.text for line in program.lines)
    variants = Variants(
        problem_id=name,
        prompt=prompt,
        lines=lines,
        labels=tuple(0 if line.neutral else 1 for line in program.lines),
    )
    catalogue = Catalogue(bugs_per_line=bugs_per_line, refactors_per_line=rewrites_per_line)
    problem = Problem(id=name, prompt=prompt, tests=_NONE)
    for candidate in catalogue.propose(problem, program, seed=seed):
        new = code_lines(candidate.code)
        labels = tuple(0 if line.neutral else 1 for line in new)
        text = tuple(line.text for line in new)
        bad = candidate.family == "bug"
        _enter(variants, text, labels, candidate.mutated_line, in_place=candidate.in_place, bad=bad)
    return variants


def _enter(
    variants: Variants, lines: tuple[str, ...], labels: tuple[int, ...], m: int, *, in_place: bool, bad: bool
) -> None:
    if in_place and m <= len(lines) and m <= len(variants.lines):
        (variants.bugs if bad else variants.rewrites).setdefault(m, []).append(lines[m - 1])
    elif bad and m <= len(lines) and m <= len(variants.lines):
        variants.endings.append((m, lines[:m]))
    elif not bad:
        variants.wholes.append((lines, labels))
