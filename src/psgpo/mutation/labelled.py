"""The record of `psgpo mutate`: one whole program with a label per line, and why.

**What the labels are** (PRLCoder, section on statement mutation). L lines as `psgpo.lines.code_lines` counts them, m
the mutated line (the first that differs from the reference), verdict of the whole program on all tests.

    program passes:  every line +1, because the program itself completes each of its prefixes
    program fails:   lines before m +1 (the reference completes them), line m -1, lines after m by the setting `after`
    neutral lines and lines of the prompt: 0

The paper says that the mutated line takes the verdict and unchanged lines are positive; it does not say what a label
after a planted bug would mean. `after` is ours: `unlabelled` 0 (default), `negative` -1 (PSGPO's reading: the prefix
holds a bug), or `positive` +1 (the line by itself is the reference's).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from psgpo.jsonl import read_jsonl
from psgpo.lines import code_lines

Json = dict[str, Any]
After = Literal["unlabelled", "negative", "positive"]
AFTER: tuple[str, ...] = get_args(After)
_AFTER_LABEL: dict[str, int] = {"unlabelled": 0, "negative": -1, "positive": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledProgram:
    """A program whose lines are labelled: a reference solution, or a verified change of one."""

    id: str
    """`<problem id>#reference`, or `<problem id>#<number>` by the order of the proposals."""
    problem_id: str
    prompt: str
    """The task as `Problem.prompt` has it."""
    code: str
    lines: tuple[str, ...]
    """Of `code`, without their newlines; blank lines at the end left out."""
    labels: tuple[int, ...]
    """Per line +1, -1 or 0, see this module."""
    mutated_line: int | None
    """First line (from 1) that differs from the reference; None for the reference itself."""
    reference_line: str | None
    """What the reference has in the place of the mutated line; None where it has nothing there."""
    in_place: bool
    """Only the mutated line differs."""
    family: str
    """`reference`, `bug` (meant to be wrong) or `refactor` (meant to change nothing)."""
    kind: str
    operator: str
    teacher: str
    verdict: str
    """`pass` or `fail`, over all tests."""
    status: str
    """`psgpo.records.Status` of the run that decided."""
    decided_by: str
    """Tests that the program failed: `tests` (the problem's own), `plus` or `generated`; empty when it passed all."""

    @property
    def given_lines(self) -> int:
        """Leading lines that the prompt gave, or that say nothing: those before the first labelled one."""
        return next((n for n, label in enumerate(self.labels) if label), 0)

    def to_json(self) -> Json:
        return dataclasses.asdict(self) | {"lines": list(self.lines), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> LabelledProgram:
        program = cls(**(dict(record) | {"lines": tuple(record["lines"]), "labels": tuple(record["labels"])}))
        if len(program.lines) != len(program.labels) or not set(program.labels) <= {-1, 0, 1}:
            raise ValueError(f"program {program.id}: needs one label of -1, 0 or 1 for each of its lines")
        return program


def line_labels(code: str, *, mutated_line: int | None, passed: bool, after: After, given_lines: int = 0) -> list[int]:
    """Labels of a program's lines, see this module."""
    labels = []
    for number, line in enumerate(code_lines(code), start=1):
        if line.neutral or number <= given_lines:
            labels.append(0)
        elif passed or mutated_line is None or number < mutated_line:
            labels.append(1)
        else:
            labels.append(-1 if number == mutated_line else _AFTER_LABEL[after])
    return labels


def load_programs(path: Path | str) -> list[LabelledProgram]:
    """Read `programs.jsonl`.

    Raises:
        UserError: the file is missing or a line is malformed.
    """
    return list(read_jsonl(path, LabelledProgram.from_json))


def text_lines(code: str) -> Sequence[str]:
    return [line.text for line in code_lines(code)]
