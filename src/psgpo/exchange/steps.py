"""Line labels as rows of a stepwise dataset: TRL's `prompt`, `completions`, `labels`, and where the steps stand.

A step is a code line, or several that were joined, without the last newline, so `"\\n".join(completions)` is the
program. The label of a step is a claim about the program up to its end. TRL tokenises each step on its own, which need
not fall on the policy's tokens: hence the columns with character offsets into `text` and token offsets into
`token_ids`.

Labels are booleans, which is what TRL's `PRMTrainer` takes: it makes classes of them by int(label), so that of numbers
-1 is no class, and 0 and every soft label below 1 become "wrong". Or they are numbers (+1 can be completed, -1 cannot,
0 no claim; soft labels as they are), for other trainers. True means that the label is above 0; with `soft`, whose
labels are success rates, that a completion of the line or of a later one passed, which proves it.

Lines without a claim (neutral, or left open by the strategy) are joined to the step after them (`merge`): that step's
label speaks for them too, since it is about the whole program so far; lines after the last claim are left out. Or they
are steps of their own with label 0 (`keep`). Booleans have no word for "no claim", so they need `merge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.labeling.search import line_labels
from psgpo.lines import CodeLine, code_lines
from psgpo.mutation.labelled import LabelledProgram
from psgpo.problems import load_problems_jsonl
from psgpo.records import LineLabels

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepForm:
    """How lines become steps."""

    labels: str = "bool"
    """`bool` or `float`."""
    unlabelled: str = "merge"
    """`merge` or `keep`."""

    def __post_init__(self) -> None:
        for name, allowed in (("labels", ("bool", "float")), ("unlabelled", ("merge", "keep"))):
            if getattr(self, name) not in allowed:
                raise UserError(f"--{name} {getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        if self.labels == "bool" and self.unlabelled == "keep":
            raise UserError(
                "--labels bool has no word for lines without a claim; give --unlabelled merge, or --labels float"
            )


def read_rows_of(path: Path, form: StepForm, problems: Path | None = None) -> list[Row]:
    """The rows of a file of labels (`labels.jsonl`) or of labelled programs (`programs.jsonl` of `psgpo mutate`).

    Args:
        problems: the problems of a file of labels; None for `problems.jsonl` beside it, or for a run's own.

    Raises:
        UserError: a file is missing, malformed or of another kind, or a problem is not in `problems`.
    """
    kind = next(iter(read_jsonl(path, _kind)), None)
    if kind is None:
        raise UserError(f"{path}: holds nothing to export")
    if kind == "programs":
        return [program_row(program, form) for program in read_jsonl(path, LabelledProgram.from_json)]
    labels = [label for label in read_jsonl(path, LineLabels.from_json) if not label.unlabelled]
    if not labels:
        raise UserError(f"{path}: no response has labels; see why in its summary.json")
    file = problems or problems_beside(path)
    prompts = {problem.id: problem.prompt for problem in load_problems_jsonl(file)}
    missing = next((label for label in labels if label.response.problem_id not in prompts), None)
    if missing is not None:
        raise UserError(
            f"{path}: problem {missing.response.problem_id} is not in {file}; give the problems of these labels with "
            "--problems"
        )
    rows = [label_row(label, prompts[label.response.problem_id], form) for label in labels]
    rows = [row for row in rows if row["completions"]]
    if not rows:
        raise UserError(
            f"{path}: no line has a claim, so nothing is left to merge lines into; --labels float --unlabelled keep"
        )
    return rows


def label_row(label: LineLabels, prompt: str, form: StepForm) -> Row:
    """One labelled response as a row.

    Args:
        prompt: the task in words (`Problem.prompt`).
    """
    response = label.response
    lines = code_lines(response.text)
    if len(lines) != len(label.labels):
        raise UserError(
            f"response {response.index} of problem {response.problem_id}: {len(lines)} lines and {len(label.labels)} "
            "labels; the file was edited or written by another version"
        )
    labels = label.labels
    if form.labels == "bool" and label.strategy == "soft":
        labels = line_labels(label.last_solvable, [line.neutral for line in lines])
    # A soft label of 0 is a claim: half of the completions pass.
    claimed = [
        bool(value) or (label.real_valued and not line.neutral) for value, line in zip(labels, lines, strict=True)
    ]
    return _row(prompt, response.text, lines, labels, claimed, label.line_ends, form) | {
        "id": f"{response.problem_id}#{response.checkpoint}#{response.index}",
        "problem_id": response.problem_id,
        "checkpoint": response.checkpoint,
        "verdict": response.verdict.status.value,
        "source": label.strategy + ("/guess" if label.guessed else ""),
        "kind": "",
        "token_ids": list(response.token_ids),
        "prompt_ids": list(response.prompt_ids),
        "tokenizer": label.tokenizer,
    }


def program_row(program: LabelledProgram, form: StepForm) -> Row:
    """One program of `psgpo mutate` as a row; it has no tokens."""
    status = "PASSED" if program.verdict == "pass" else program.status
    claimed = [bool(value) for value in program.labels]
    return _row(program.prompt, program.code, code_lines(program.code), program.labels, claimed, (), form) | {
        "id": program.id,
        "problem_id": program.problem_id,
        "checkpoint": "",
        "verdict": status,
        "source": f"mutation/{program.teacher}",
        "kind": f"{program.family}/{program.kind}",
        "token_ids": [],
        "prompt_ids": [],
        "tokenizer": "",
    }


def _row(
    prompt: str,
    text: str,
    lines: Sequence[CodeLine],
    labels: Sequence[float],
    claimed: Sequence[bool],
    ends: Sequence[int],
    form: StepForm,
) -> Row:
    """The columns that follow from the lines."""
    steps = _steps(claimed) if form.unlabelled == "merge" else [(n, n) for n in range(len(lines))]
    value: Callable[[float], Any] = float if form.labels == "float" else (lambda label: label > 0)
    return {
        "prompt": prompt,
        "completions": ["\n".join(line.text for line in lines[first : last + 1]) for first, last in steps],
        "labels": [value(labels[last]) for _, last in steps],
        "text": text,
        "char_starts": [lines[first].start for first, _ in steps],
        "char_ends": [lines[last].start + len(lines[last].text) for _, last in steps],
        "token_ends": [ends[last] for _, last in steps] if ends else [],
    }


def _steps(claimed: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last line of every step that ends in a line with a claim."""
    lasts = [number for number, claim in enumerate(claimed) if claim]
    return [(first, last) for first, last in zip([0, *(last + 1 for last in lasts)], lasts, strict=False)]


def _kind(record: Mapping[str, Any]) -> str:
    if "response" in record and "line_ends" in record:
        return "labels"
    if "lines" in record and "family" in record:
        return "programs"
    raise ValueError("neither a line of labels.jsonl nor of programs.jsonl (psgpo labels make, psgpo mutate)")


def problems_beside(path: Path) -> Path:
    """`problems.jsonl` of `psgpo labels make`, or the labelled problems of a run."""
    for file in (path.resolve().parent / "problems.jsonl", path.resolve().parent.parent / "problems" / "label.jsonl"):
        if file.is_file():
            return file
    raise UserError(f"{path}: its problems are not beside it; give them with --problems")


def count_steps(rows: Iterable[Row], form: StepForm) -> dict[str, int]:
    """Sizes of a set of rows. With `keep` a rate of exactly one half is counted as no claim."""
    listed = list(rows)
    labels = [label for row in listed for label in row["labels"]]
    positive = sum(label > 0 for label in labels)
    no_claim = 0 if form.unlabelled == "merge" else sum(label == 0 for label in labels)
    return {
        "rows": len(listed),
        "problems": len({row["problem_id"] for row in listed}),
        "steps": len(labels),
        "positive": positive,
        "negative": len(labels) - positive - no_claim,
        "no_claim": no_claim,
    }
