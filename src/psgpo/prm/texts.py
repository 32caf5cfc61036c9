"""Labelled programs as text: what encoders, n-gram models and ORMs are trained on, from either kind of label file.

labels.jsonl     of a run or `psgpo labels`: responses with the labels of a search, hard or soft
programs.jsonl   of `psgpo mutate`: reference solutions and verified changes of them
"""

# L code lines

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.lines import code_lines
from psgpo.mutation.labelled import LabelledProgram
from psgpo.prm.record import Scope
from psgpo.records import LineLabels

Source = Literal["labels", "mutants"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextProgram:
    """A program with a label per line and its verdict."""

    problem_id: str
    prompt: str
    """The task as `Problem.prompt` has it."""
    code: str
    """A program, or a response with a fenced one in it."""
    labels: tuple[float | None, ...]
    """Per line in [-1, 1]; None for no label. Shape: (L,)."""
    passed: bool
    """All tests."""
    proved: bool = True
    """The labels rest on programs that were judged, not on a probability (soft, noisy, a prior)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextExample:
    """One prefix of a program, or a whole program, with the probability that it is right."""

    problem_id: str
    prompt: str
    prefix: str
    """Lines 1..m joined by newlines, no newline at the end."""
    target: float
    """P(good) in [0, 1]: (label + 1) / 2."""
    weight: float = 1.0


def data_file(path: Path) -> Path:
    """The label file itself: the one that was named, or the one in the folder of `psgpo mutate` or `psgpo labels`.

    Raises:
        UserError: a folder with none, or with both.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in ("programs.jsonl", "labels.jsonl") if (path / name).is_file()]
    if len(found) != 1:
        what = "both programs.jsonl and labels.jsonl; name the one" if found else "no programs.jsonl or labels.jsonl"
        raise UserError(f"{path}: holds {what}")
    return found[0]


def recognised(path: Path) -> Source:
    """Which of the two files this is.

    Raises:
        UserError: neither, empty or missing.
    """
    first = next(iter(read_jsonl(path, dict)), None)
    if first is not None and "mutated_line" in first:
        return "mutants"
    if first is not None and "response" in first:
        return "labels"
    raise UserError(f"{path}: neither labels.jsonl (psgpo labels, a run) nor programs.jsonl (psgpo mutate); give one")


def load_text_programs(path: Path, prompts: Mapping[str, str] | None = None) -> list[TextProgram]:
    """The programs of a file (`data_file`), those without lines left out.

    Args:
        prompts: problem id to prompt; labels.jsonl needs it.

    Raises:
        UserError: the file is missing or malformed, or the prompt of a problem is not known.
    """
    path = data_file(path)
    parse: dict[Source, Callable[[dict[str, Any]], TextProgram]] = {
        "mutants": lambda row: _of_mutant(LabelledProgram.from_json(row)),
        "labels": lambda row: _of_labels(LineLabels.from_json(row), prompts or {}),
    }
    return [program for program in read_jsonl(path, parse[recognised(path)]) if program.labels]


def text_examples(programs: Iterable[TextProgram], scope: Scope) -> list[TextExample]:
    """One example per labelled line, or per program; the same (problem, text) once.

    Where programs give one text different labels: of those that rest on programs the highest stands, because a program
    that passes proves its prefixes; without any, their mean.
    """
    found: dict[tuple[str, str], tuple[TextProgram, list[float], list[float]]] = {}
    for program in programs:
        lines = [line.text for line in code_lines(program.code)]
        if scope == "program":
            labelled = [("\n".join(lines), 1.0 if program.passed else -1.0)]
        else:
            labelled = [("\n".join(lines[:m]), label) for m, label in enumerate(program.labels, start=1)]
        for prefix, label in labelled:
            if label is not None:
                _, proved, guessed = found.setdefault((program.problem_id, prefix), (program, [], []))
                (proved if program.proved or scope == "program" else guessed).append((label + 1) / 2)
    return [
        TextExample(
            problem_id=problem_id,
            prompt=program.prompt,
            prefix=prefix,
            target=max(proved) if proved else sum(guessed) / len(guessed),
        )
        for (problem_id, prefix), (program, proved, guessed) in found.items()
    ]


def both_classes(examples: Sequence[TextExample], side: str) -> tuple[int, int]:
    """(bad, good) counts.

    Raises:
        UserError: one class does not occur.
    """
    good = sum(example.target > 0.5 for example in examples)
    bad = sum(example.target < 0.5 for example in examples)
    if not good or not bad:
        raise UserError(
            f"{side}: {good} good and {bad} bad examples; a PRM needs both. Label more problems, or hold out others"
        )
    return bad, good


def _of_mutant(entry: LabelledProgram) -> TextProgram:
    if len(code_lines(entry.code)) != len(entry.labels):
        raise ValueError(f"program {entry.id}: its labels and lines disagree")
    return TextProgram(
        problem_id=entry.problem_id,
        prompt=entry.prompt,
        code=entry.code,
        labels=tuple(float(label) if label else None for label in entry.labels),
        passed=entry.verdict == "pass",
    )


def _of_labels(label: LineLabels, prompts: Mapping[str, str]) -> TextProgram:
    response = label.response
    if response.problem_id not in prompts:
        raise ValueError(
            f"problem {response.problem_id} is in none of the problem files; name its file with --problems"
        )
    lines = code_lines(response.text)
    if len(lines) != len(label.labels):
        raise ValueError(f"response {response.problem_id}/{response.index}: its labels and lines disagree")
    return TextProgram(
        problem_id=response.problem_id,
        prompt=prompts[response.problem_id],
        code=response.text,
        labels=tuple(
            None if line.neutral or (value == 0 and not label.real_valued) else float(value)
            for line, value in zip(lines, label.labels, strict=True)
        ),
        passed=response.verdict.passed,
        proved=response.verdict.passed or not (label.guessed or label.real_valued),
    )
