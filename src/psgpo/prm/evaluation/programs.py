"""What a PRM is measured on, whatever file it comes from: programs whose lines are labelled.

Three files are told apart by the keys of their first record:

labels.jsonl     of a run or `psgpo labels`: responses of a policy. The labels are the search's, or the exact ones.
programs.jsonl   of `psgpo mutate`: reference solutions and verified changes of them.
items.jsonl      of `psgpo firsterror make`: the lines before the first error are good and that line is not. What
                 comes after is bad as well where an oracle says that no completion can pass (opchain), and unlabelled
                 for mutants.

The first error of a program is its first bad line when every line before it is labelled good; a program is right when
all its lines are, and a response where it passes. Of the others nothing is known, and measures of first errors leave
them out. A success rate of one half is bad, as in `labeling.quality`, `labeling.select` and `prm.assess`.
"""

# L code lines

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.firsterror.items import Item, candidate_lines
from psgpo.jsonl import read_jsonl
from psgpo.lines import code_lines
from psgpo.mutation.labelled import LabelledProgram
from psgpo.prm.data import ExactLines, ResponseKey, is_held_out, response_key
from psgpo.prm.programs import Labelled
from psgpo.prm.texts import data_file
from psgpo.records import LineLabels

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalProgram:
    """A program with what is known about its lines."""

    id: str
    problem_id: str
    prompt: str
    """The task as `Problem.prompt` has it."""
    code: str
    """A program, or a response with a fenced one in it."""
    labels: tuple[int, ...]
    """Per line +1, -1, or 0 where nothing is known or the line says nothing. Shape: (L,)."""
    candidates: tuple[int, ...]
    """Lines, from 1, that may be called the first wrong one."""
    first_error: int | None
    """The first wrong line; None for a right program and where it is not known."""
    outcome: str
    """`wrong` (`first_error` says where), `right`, or `unknown`."""
    family: str
    """Where the program comes from: a checkpoint, `bug`, `refactor`, `reference`, `opchain`, `mutant`."""
    kind: str
    """The kind of bug or rewrite; empty where there is none."""


def load_eval_programs(
    path: Path,
    *,
    prompts: Callable[[], Mapping[str, str]] = dict,
    exact: Mapping[ResponseKey, ExactLines] | None = None,
    held_out: float | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[EvalProgram]:
    """The programs of any of the three files, in their order, those without lines left out.

    Args:
        prompts: gives problem id to prompt; asked for a label file only, the others bring theirs.
        exact: the oracle's answer per response of a label file, in place of the search's.
        held_out: keep only problems that training with this `holdout` leaves out.
        limit: at most so many programs, whole problems drawn at random until there are enough.

    Raises:
        UserError: the file is missing, empty, malformed, of none of the three forms, or lacks what was asked for.
    """
    path = data_file(path)
    kind = _recognised(path)
    if exact is not None and kind != "labels":
        raise UserError(f"{path}: exact labels belong to the labels.jsonl of a run; leave --exact out")
    known = prompts() if kind == "labels" else {}
    parse: dict[str, Callable[[Json], EvalProgram]] = {
        "labels": lambda row: _of_labels(LineLabels.from_json(row), known, exact),
        "mutants": lambda row: _of_mutant(LabelledProgram.from_json(row)),
        "items": lambda row: _of_item(Item.from_json(row)),
    }
    programs = [program for program in read_jsonl(path, parse[kind]) if program.labels]
    if held_out is not None:
        programs = [program for program in programs if is_held_out(program.problem_id, held_out)]
    if not any(label for program in programs for label in program.labels):
        which = "" if held_out is None else f" among the problems that --held-out {held_out} keeps"
        raise UserError(f"{path}: holds no labelled line{which}; make more with psgpo labels, mutate or firsterror")
    if len({program.id for program in programs}) < len(programs):
        raise UserError(f"{path}: two programs have the same id; was the file put together from several?")
    return programs if limit is None else _drawn(programs, limit, seed)


def counted_lines(programs: Sequence[Labelled]) -> list[tuple[float, ...]]:
    """The labels with every prefix of a problem counted once, +1 where two programs disagree. Shapes: (L,).

    Mutants share most of their lines with their reference, and responses their beginnings; a score belongs to a prefix,
    so the same prefix again is no further evidence. A passing program proves its prefixes, so +1 stands.
    """
    best: dict[tuple[str, str], tuple[float, int, int]] = {}
    for p, program in enumerate(programs):
        for m, (prefix, label) in enumerate(zip(_prefixes(program.code), program.labels, strict=True)):
            key = (program.problem_id, prefix)
            if label and (key not in best or best[key][0] < label):
                best[key] = (label, p, m)
    counted = [[0.0] * len(program.labels) for program in programs]
    for label, p, m in best.values():
        counted[p][m] = label
    return [tuple(row) for row in counted]


def _recognised(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give labels.jsonl, programs.jsonl or items.jsonl")
    with path.open(encoding="utf-8", errors="replace") as stream:
        first = next((line for line in stream if line.strip()), "")
    try:
        record = json.loads(first)
    except json.JSONDecodeError:
        record = None
    keys = set(record) if isinstance(record, dict) else set()
    forms = {
        "labels": {"response", "labels", "line_ends"},
        "mutants": {"code", "labels", "mutated_line"},
        "items": {"code", "first_error", "candidates"},
    }
    for kind, needed in forms.items():
        if needed <= keys:
            return kind
    found = f"a record with the keys {', '.join(sorted(keys))}" if keys else "no JSON record"
    raise UserError(
        f"{path}: {found}; expected labels.jsonl of a run or psgpo labels, programs.jsonl of psgpo mutate, or "
        "items.jsonl of psgpo firsterror make"
    )


def _of_labels(
    label: LineLabels, prompts: Mapping[str, str], exact: Mapping[ResponseKey, ExactLines] | None
) -> EvalProgram:
    response = label.response
    if response.problem_id not in prompts:
        raise ValueError(
            f"problem {response.problem_id} is in none of the problem files; name its file with --problems"
        )
    lines = code_lines(response.text)
    if exact is None:
        even = -1 if label.real_valued else 0  # half of the completions pass: a value like any other, as in quality.py
        signs = [1 if value > 0 else -1 if value < 0 else even for value in label.labels]
    else:
        if response_key(response) not in exact:
            raise ValueError(f"response {response_key(response)} has no exact labels")
        last = exact[response_key(response)].last_on_track
        signs = [1 if m <= last else -1 for m in range(1, len(lines) + 1)]
    if len(signs) != len(lines):
        raise ValueError(f"response {response_key(response)}: {len(signs)} labels for {len(lines)} lines")
    labels = tuple(0 if line.neutral else sign for line, sign in zip(lines, signs, strict=True))
    program = _judged(
        EvalProgram(
            id=f"{response.problem_id}/{response.index}/{response.checkpoint}",
            problem_id=response.problem_id,
            prompt=prompts[response.problem_id],
            code=response.text,
            labels=labels,
            candidates=candidate_lines(response.text),
            first_error=None,
            outcome="unknown",
            family=response.checkpoint,
            kind="",
        )
    )
    if exact is None and response.verdict.passed and program.candidates:
        return replace(program, outcome="right", first_error=None)  # `soft` labels the last of its lines alone
    return program


def _of_mutant(entry: LabelledProgram) -> EvalProgram:
    candidates = candidate_lines(entry.code, entry.given_lines)
    return _judged(
        EvalProgram(
            id=entry.id,
            problem_id=entry.problem_id,
            prompt=entry.prompt,
            code=entry.code,
            labels=entry.labels,
            candidates=candidates,
            first_error=None,
            outcome="unknown",
            family=entry.family,
            kind="" if entry.family == "reference" else entry.kind,
        )
    )


def _of_item(item: Item) -> EvalProgram:
    after = -1 if item.source == "opchain" else 0
    labels = [0] * len(code_lines(item.code))
    for line in item.candidates:
        error = item.first_error
        labels[line - 1] = 1 if error is None or line < error else -1 if line == error else after
    return EvalProgram(
        id=item.id,
        problem_id=item.problem_id,
        prompt=item.prompt,
        code=item.code,
        labels=tuple(labels),
        candidates=item.candidates,
        first_error=item.first_error,
        outcome="right" if item.first_error is None else "wrong",
        family=item.source,
        kind=item.kind if item.first_error is not None else "",
    )


def _judged(program: EvalProgram) -> EvalProgram:
    """With the first error as the labels of the candidate lines tell it."""
    for line in program.candidates:
        label = program.labels[line - 1]
        if label < 0:
            return replace(program, first_error=line, outcome="wrong")
        if label == 0:
            return program
    return replace(program, outcome="right") if program.candidates else program


def _drawn(programs: Sequence[EvalProgram], limit: int, seed: int) -> list[EvalProgram]:
    """Whole problems in random order until `limit` programs are there, in the order of the file."""
    members: dict[str, list[EvalProgram]] = {}
    for program in programs:
        members.setdefault(program.problem_id, []).append(program)
    names = sorted(members)
    random.Random(seed).shuffle(names)
    chosen: set[str] = set()
    for name in names:
        room = limit - len(chosen)
        chosen |= {program.id for program in members[name][: max(0, room)]}
    return [program for program in programs if program.id in chosen]


def _prefixes(code: str) -> list[str]:
    """The code up to and including each line. Shape: (L,)."""
    lines = code_lines(code)
    return [code[lines[0].start : line.start + len(line.text)].rstrip() for line in lines]
