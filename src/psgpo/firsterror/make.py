"""Make the benchmark: from the embedded benchmark's exact oracle, and from verified mutants of reference solutions.

opchain   The program has one misconception in the place of one operation. The oracle knows up to which line it can
          still be completed; the next line is the first error, exactly.
mutant    A planted bug on one line of a reference solution, all other lines byte for byte the same, which fails a test.
          What comes before the line is the reference's own, so no earlier line is wrong: the line is the first error by
          construction, in the sense that the rest of the reference does not mend it.

For each wrong program there is a right one of the same problem: another correct variant, the reference, or a verified
rewrite of it, so that a change of style gives nothing away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.firsterror.items import Item, candidate_lines
from psgpo.lines import code_lines
from psgpo.mutation.labelled import LabelledProgram, load_programs
from psgpo.problems.opchain import OpChain, OpChainSettings, chain_of
from psgpo.problems.opchain.operation import Chain, program
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.problems.opchain.tracing import EvaluateMany
from psgpo.records import Problem, Status
from psgpo.seeds import derive_seed

_TRIES = 12
"""Wrong programs drawn for a problem until one fails."""
MIN_LINES = 3
"""Shortest reference, in lines that may be named: in a shorter one there is nothing to find."""


def opchain_items(
    count: int, evaluate_many: EvaluateMany, *, operations: tuple[int, int] = (3, 10), seed: int = 0
) -> list[Item]:
    """`count` pairs of a wrong and a right program, one pair per problem of the test split."""
    if count < 1:
        return []
    problems = list(OpChain(OpChainSettings(seed=seed)).problems("test", count, operations))
    drawn: list[tuple[Problem, str, str]] = []
    for problem in problems:
        rng = random.Random(derive_seed(seed, "firsterror", problem.id))
        chain = chain_of(problem)
        right = program([line for step in chain for line in rng.choice(step.correct())])
        drawn.append((problem, "", right))
        drawn += [(problem, *_planted(chain, rng)) for _ in range(_TRIES)]
    labels = ExactOracle(evaluate_many).label([(problem, code) for problem, _, code in drawn])
    wrong: dict[str, Item] = {}
    right_items: dict[str, Item] = {}
    for (problem, kind, code), label in zip(drawn, labels, strict=True):
        if label.passed and not kind:
            right_items[problem.id] = _opchain_item(problem, code, None, "right")
        elif kind and not label.passed and problem.id not in wrong:
            lines = [n for n in candidate_lines(code) if n > label.last_on_track]
            if lines:
                wrong[problem.id] = _opchain_item(problem, code, lines[0], kind)
    return [
        item for p in problems if p.id in wrong and p.id in right_items for item in (wrong[p.id], right_items[p.id])
    ]


def _planted(chain: Chain, rng: random.Random) -> tuple[str, str]:
    """(what is wrong, program): one operation, drawn evenly, in one of its misconceptions."""
    place = rng.randrange(len(chain))
    step = chain[place]
    misconception = rng.randrange(len(step.operation.wrong))
    body = [line for other in chain[:place] for line in rng.choice(other.correct())]
    body += rng.choice(step.wrong(misconception))
    body += [line for other in chain[place + 1 :] for line in rng.choice(other.correct())]
    return step.name, program(body)


def _opchain_item(problem: Problem, code: str, first_error: int | None, kind: str) -> Item:
    return Item(
        id=f"{problem.id}:{'right' if first_error is None else 'wrong'}",
        problem_id=problem.id,
        prompt=problem.prompt,
        code=code,
        first_error=first_error,
        candidates=candidate_lines(code),
        source="opchain",
        kind=kind,
    )


def mutant_items(path: Path | str, *, per_problem: int = 2, seed: int = 0) -> list[Item]:
    """Pairs from the `programs.jsonl` of `psgpo mutate`, at most `per_problem` of each problem.

    Raises:
        UserError: the file is missing or malformed, or holds no pair.
    """
    path = Path(path)
    path = path / "programs.jsonl" if path.is_dir() else path
    by_problem: dict[str, list[LabelledProgram]] = {}
    for entry in load_programs(path):
        by_problem.setdefault(entry.problem_id, []).append(entry)
    items: list[Item] = []
    for problem_id, programs in by_problem.items():
        rng = random.Random(derive_seed(seed, "firsterror", problem_id))
        reference = next((p for p in programs if p.family == "reference"), None)
        right = [p for p in programs if p.family == "refactor" and p.verdict == "pass"]
        wrong = [p for p in programs if _is_exact(p)]
        if reference is None or len(candidate_lines(reference.code, reference.given_lines)) < MIN_LINES:
            continue
        given = reference.given_lines
        # One right program in two is the reference itself, the others are rewrites.
        rng.shuffle(right)
        right = [reference, *right] if rng.random() < 0.5 else [*right, reference]
        chosen = _varied(wrong, rng)[:per_problem]
        for bad, good in zip(chosen, right, strict=False):
            items += [_mutant_item(bad, given), _mutant_item(good, given)]
    if not items:
        raise UserError(f"{path}: holds no pair of a wrong and a right program; run psgpo mutate with more proposals")
    return items


def refuse_repeats(items: Sequence[Item]) -> None:
    """See that every id occurs once.

    Raises:
        UserError: two folders of mutants hold programs of one problem.
    """
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise UserError(f"{item.id}: comes from two of --mutants; give one folder for each set of problems")
        seen.add(item.id)


def _is_exact(entry: LabelledProgram) -> bool:
    """One changed line, and a test that fails for good."""
    m = entry.mutated_line
    failed = entry.verdict == "fail" and entry.status != Status.TIMEOUT
    return failed and entry.family == "bug" and entry.in_place and m is not None and entry.labels[m - 1] == -1


def _varied(programs: Sequence[LabelledProgram], rng: random.Random) -> list[LabelledProgram]:
    """One bug of each line, the lines in random order, then a second of each: busy lines count no more than others.

    Within a line a kind of bug that has not been taken yet comes first.
    """
    by_line: dict[int | None, list[LabelledProgram]] = {}
    for entry in programs:
        by_line.setdefault(entry.mutated_line, []).append(entry)
    lines = list(by_line.values())
    rng.shuffle(lines)
    found: list[LabelledProgram] = []
    while lines := [line for line in lines if line]:
        for line in lines:
            rng.shuffle(line)
            taken = {entry.kind for entry in found}
            found.append(line.pop(next((i for i, entry in enumerate(line) if entry.kind not in taken), 0)))
    return found


def _mutant_item(entry: LabelledProgram, given: int) -> Item:
    wrong = entry.verdict == "fail"
    values: dict[str, Any] = {"problem_id": entry.problem_id, "prompt": entry.prompt, "code": entry.code}
    return Item(
        **values,
        id=f"{entry.id}:{'wrong' if wrong else 'right'}",
        first_error=entry.mutated_line if wrong else None,
        candidates=candidate_lines(entry.code, min(given, len(code_lines(entry.code)) - 1)),
        source="mutant",
        kind=entry.kind,
    )
