"""The strategy `splice` on real code: whole statements (`psgpo.labeling.splice`), proofs alone.

Programs of real problems share neither names nor layout, so lines of one behind lines of another are rarely a program.
Absence of proof is no evidence there either (docs/labels.md): what is not proved right or wrong stays 0.
"""

# L code lines of a response

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psgpo.labeling.collect import Grader
from psgpo.labeling.splice import SpliceResult, judge_all, names_used, splice_labels, splice_search
from psgpo.lines import code_lines
from psgpo.problems.programs import judged_program
from psgpo.records import Problem, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedProgram:
    """What is searched."""

    problem: Problem
    code: str
    """As the policy wrote it, fences taken off."""
    pool: Sequence[str]
    """Passing programs of the problem in the same form; none is enough to find lines that are proved wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvedLines:
    """What came of it."""

    labels: tuple[float, ...]
    """+1 and -1 where there is a proof, else 0. Shape: (L,)."""
    last: int
    """m*; 0 where no line is proved right."""
    executions: int
    cpu_seconds: float
    """Of the programs that were judged."""


def prove_lines(programs: Sequence[FailedProgram], grader: Grader) -> list[ProvedLines]:
    """Search all programs side by side. A program that is not Python, or not judged as it stands, has no proofs."""
    wholes = [judged_program(program.problem, program.code) for program in programs]
    searches = [
        splice_search(
            whole,
            [judged_program(program.problem, one) for one in program.pool],
            roots=names_used(program.problem),
            preamble=program.problem.preamble,
        )
        for program, whole in zip(programs, wholes, strict=True)
    ]
    seconds = [0.0] * len(programs)

    def judge(asked: list[tuple[int, str]]) -> list[Verdict]:
        verdicts = grader.grade([(program, programs[number].problem.tests) for number, program in asked])
        for (number, _), verdict in zip(asked, verdicts, strict=True):
            seconds[number] += 0.0 if verdict.cached else verdict.cpu_seconds
        return verdicts

    results = dict(judge_all(searches, judge))
    return [
        _own_lines(program, whole, results[number], seconds[number])
        for number, (program, whole) in enumerate(zip(programs, wholes, strict=True))
    ]


def _own_lines(program: FailedProgram, whole: str, result: SpliceResult, seconds: float) -> ProvedLines:
    """The result for the response's own lines: those of the starter code before it are no lines of it."""
    own = len(code_lines(program.code))
    lines = code_lines(whole)
    labels = (0.0,) * own
    above = len(lines) - own
    if whole.endswith(program.code) and above >= 0:
        labels = splice_labels(result, [line.neutral for line in lines], "zero")[above:]
    last = max(0, result.last_proved - above) if any(label > 0 for label in labels) else 0
    return ProvedLines(labels=labels, last=last, executions=result.executions, cpu_seconds=seconds)
