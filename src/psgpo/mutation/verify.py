"""Run what teachers propose, and say what it is.

positive     passes every test, its line was executed
negative     fails a test
timeout      ran out of time        memory   ran out of memory         (neither pass nor fail, see `run.Settings`)
unreached    passes, but no test executes its line: says nothing
untraced     passes, and the trace gave no answer
equivalent   a planted bug that compiles to the same instructions as the reference
duplicate    same syntax tree as the reference or as an earlier proposal
invalid      does not compile
unusable     a model's reply that is no replacement of the line
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psgpo.mutation.candidates import Candidate, Teacher, compiled_key, tree_key
from psgpo.mutation.program import Program, UnusableError
from psgpo.mutation.reach import is_reached, reached_lines
from psgpo.mutation.strengthen import OWN, Grader, Stage, generated_stages, plus_stages
from psgpo.records import Json, Problem, Status, Verdict

POSITIVE, NEGATIVE, TIMEOUT, MEMORY = "positive", "negative", "timeout", "memory"
UNREACHED, UNTRACED, EQUIVALENT, DUPLICATE, INVALID = "unreached", "untraced", "equivalent", "duplicate", "invalid"
UNUSABLE = "unusable"
OUTCOMES = (POSITIVE, NEGATIVE, TIMEOUT, MEMORY, UNREACHED, UNTRACED, EQUIVALENT, DUPLICATE, INVALID, UNUSABLE)
KEPT = frozenset({POSITIVE, NEGATIVE, TIMEOUT})
"""Outcomes whose programs are written down."""
_BY_STATUS = {Status.TIMEOUT: TIMEOUT, Status.MEMORY: MEMORY, Status.SYNTAX_ERROR: INVALID}
_MAX_SHARE = 0.25


@dataclass(slots=True)
class Judged:
    """A proposal and what came of it."""

    candidate: Candidate
    outcome: str = ""
    status: str = ""
    """Status of the run that decided."""
    decided_by: str = ""
    """Stage that the program failed; empty when it passed all."""

    def to_json(self) -> Json:
        c = self.candidate
        record = {"teacher": c.teacher, "operator": c.operator, "kind": c.kind, "family": c.family, "line": c.line}
        record |= {"mutated_line": c.mutated_line, "in_place": c.in_place, "outcome": self.outcome}
        record |= {"status": self.status, "decided_by": self.decided_by}
        return record | ({"code": c.code} if self.outcome in KEPT else {})


@dataclass(slots=True)
class Work:
    """One problem on its way through."""

    problem: Problem
    skipped: str = ""
    """Why there is nothing to mutate; empty when there is."""
    program: Program | None = None
    stages: list[Stage] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    reached: frozenset[int] | None = None
    seconds: float = 0.0
    """Processor time of all programs of this problem."""

    def to_json(self, prompt: str) -> Json:
        record: Json = {"problem_id": self.problem.id, "skipped": self.skipped}
        if self.skipped or self.program is None:
            return record
        record |= {"prompt": prompt, "reference": self.program.text, "given_lines": self.program.given_lines}
        record["tests"] = {stage.name: {"kept": stage.count, "refused": stage.refused} for stage in self.stages}
        return record | {"candidates": [judged.to_json() for judged in self.judged]}


def given_lines(problem: Problem) -> int:
    """Leading lines of the reference that the prompt gave."""
    reference, starter = problem.reference_solution or "", problem.starter_code
    if not starter or not reference.startswith(starter):
        return 0
    return starter.count("\n") + (not starter.endswith("\n"))


def judge_batch(
    problems: Sequence[Problem],
    teachers: Sequence[Teacher],
    grader: Grader,
    *,
    plus: Mapping[str, Problem],
    generated: int,
    seed: int,
    timeout: float,
) -> list[Work]:
    """Propose, run and judge all changes of a few problems. Deterministic but for programs near the time limit.

    Args:
        plus: problems of an extended benchmark by id; their inputs are used where the function is the same.
        generated: inputs to make for each problem.
        timeout: the grader's time limit, seconds.
    """
    works = [_opened(problem) for problem in problems]
    _check_references([work for work in works if not work.skipped], grader, timeout)
    works_left = [work for work in works if not work.skipped]
    open_problems = [work.problem for work in works_left]
    extended = plus_stages(open_problems, plus, grader, timeout=timeout)
    made = generated_stages(open_problems, extended, grader, count=generated, seed=seed, timeout=timeout)
    for work, *stages in zip(works_left, extended, made, strict=True):
        work.stages += [stage for stage in stages if stage is not None]
    for work in works_left:
        assert work.program is not None
        proposals = [c for teacher in teachers for c in teacher.propose(work.problem, work.program, seed=seed)]
        work.judged = [Judged(candidate) for candidate in proposals]
        _set_aside_repeats(work)
    _run_stages(works_left, grader)
    _look_for_unreached(works_left, grader)
    return works


def _opened(problem: Problem) -> Work:
    if not problem.reference_solution or not problem.reference_solution.strip():
        return Work(problem, skipped="it has no reference solution")
    try:
        return Work(problem, program=Program(problem.reference_solution, given_lines(problem)))
    except UnusableError as error:
        return Work(problem, skipped=f"its reference solution {error}")


def _check_references(works: Sequence[Work], grader: Grader, timeout: float) -> None:
    """Skip problems whose reference does not pass its own tests, fast enough to tell slow from endless."""
    verdicts = grader.grade([(work.problem.reference_solution or "", work.problem.tests) for work in works])
    for work, verdict in zip(works, verdicts, strict=True):
        if not verdict.passed:
            work.skipped = (
                f"its reference solution fails its own tests ({verdict.status}: {verdict.detail})".rstrip(": )") + ")"
            )
        elif verdict.cpu_seconds > _MAX_SHARE * timeout:
            work.skipped = f"its reference solution takes more than a quarter of the time limit of {timeout:g} s"
        else:
            work.stages = [Stage(name=OWN, tests=work.problem.tests)]


def _set_aside_repeats(work: Work) -> None:
    assert work.program is not None
    reference_tree, reference_code = tree_key(work.program.text), compiled_key(work.program.text)
    trees, texts = {reference_tree}, {work.program.text}
    for judged in work.judged:
        candidate = judged.candidate
        if not candidate.code:
            judged.outcome = UNUSABLE
            continue
        try:
            tree, compiled = tree_key(candidate.code), compiled_key(candidate.code)
        except (SyntaxError, ValueError, RecursionError):
            judged.outcome = INVALID
            continue
        if candidate.code in texts or (tree in trees and not candidate.layout):
            judged.outcome = DUPLICATE
        elif candidate.family == "bug" and compiled == reference_code:
            judged.outcome = EQUIVALENT
        trees.add(tree)
        texts.add(candidate.code)


def _run_stages(works: Sequence[Work], grader: Grader) -> None:
    """Every program meets the tests of its problem stage by stage; those that fail go no further."""
    for number in range(max((len(work.stages) for work in works), default=0)):
        running = [
            (work, judged)
            for work in works
            if number < len(work.stages)
            for judged in work.judged
            if not judged.outcome
        ]
        verdicts = grader.grade([(judged.candidate.code, work.stages[number].tests) for work, judged in running])
        for (work, judged), verdict in zip(running, verdicts, strict=True):
            work.seconds += verdict.cpu_seconds
            _note(judged, verdict, work.stages[number].name)
    for work in works:
        for judged in work.judged:
            judged.outcome = judged.outcome or POSITIVE


def _note(judged: Judged, verdict: Verdict, stage: str) -> None:
    judged.status = verdict.status.value
    if not verdict.passed:
        judged.outcome = _BY_STATUS.get(verdict.status, NEGATIVE)
        judged.decided_by = stage


def _look_for_unreached(works: Sequence[Work], grader: Grader) -> None:
    asked = [work for work in works if any(judged.outcome == POSITIVE for judged in work.judged)]
    items = [(work.program, [stage.tests for stage in work.stages]) for work in asked if work.program is not None]
    for work, reached in zip(asked, reached_lines(items, grader), strict=True):
        work.reached = reached
        for judged in work.judged:
            if judged.outcome != POSITIVE:
                continue
            assert work.program is not None
            if reached is None:
                judged.outcome = UNTRACED
            elif not is_reached(work.program, judged.candidate.line, reached):
                judged.outcome = UNREACHED
