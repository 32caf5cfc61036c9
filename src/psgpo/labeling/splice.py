"""Line labels without rollouts: endings of passing programs put behind the prefixes of a failed one, and judged.

For a failed program of T lines and a pool of programs that pass the same problem:

    m*  the last line whose prefix was completed to a program that passes. Proof: the program is there.
    M   the first line at which some test is lost whatever follows (`psgpo.syntax.reach`). Proof as well.

m* is searched from M - 1 down to 1: at each line the splices (`psgpo.syntax.splice`) are judged, nearest first, until
one passes or the line's budget is spent. What the labels mean:

    +1  lines 1 .. m*. A program begins with these lines, makes use of them and passes every test. As good as the tests.
    -1  lines from M on. No continuation can pass, and M is behind every line that some program of the pool begins
        with. Lines between m* and M, if any, have neither proof: the splices at hand did not complete them. They are
        -1 when `gap = "negative"` (absence of proof), 0 when `gap = "zero"`.
    0   neutral lines, and gaps as above; every line of a program whose problem has no passing one and no M.

Where M = m* + 1 (in statements) both sides are proved and the first wrong line is exact. Only *completable by using
the prefix* is claimed: a prefix that every continuation would have to undo counts as wrong though a program could
start over behind it.

This file knows no model and no sandbox: the search is a generator that yields programs and is sent their verdicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from psgpo.labeling.search import line_labels
from psgpo.labeling.suffixes import same_start
from psgpo.lines import code_lines
from psgpo.records import AssertTests, CallTests, Problem, Verdict
from psgpo.syntax import (
    Donor,
    Patient,
    Prefix,
    Receiver,
    Repair,
    decided,
    open_ended,
    parse,
    parse_prefix,
    repairs,
    splices,
    without_blocks,
)
from psgpo.syntax.names import binds

Gap = Literal["negative", "zero"]
Judging = Generator[list[str], Sequence[Verdict], "SpliceResult"]
"""Yields programs, is sent their verdicts in order, returns what was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpliceSettings:
    """How much is tried."""

    first_sweep: int = 8
    """Splices judged at each line before any line is looked at more closely."""
    per_line: int = 48
    """Splices judged at one line, at most."""
    confirm: int = 64
    """Repairs of one statement judged after m*, where M does not already follow it."""
    per_program: int = 400
    """Splices judged for one program, at most."""
    batch: int = 8
    """Splices of a line judged together; the first batch that holds a pass ends the line."""
    donors: int = 8
    """Passing programs tried, the first ones of the pool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpliceResult:
    """What is proved about one failed program. Lines are numbered from 1, as `psgpo.lines.code_lines` counts them."""

    lines: int
    """T."""
    last_proved: int
    """m*, neutral lines after it included; 0 when no prefix was completed."""
    first_refuted: int | None
    """M; None when no line is proved wrong."""
    suspect: int | None
    """Last line of the first statement after m*: the first wrong line, if both proofs meet. None when m* = T."""
    executions: int
    shared: int
    """First lines that some passing program of the pool begins with as well; none of them is proved wrong."""
    donors: int
    """Passing programs that were tried."""
    proof: str | None
    """The program that begins with m* lines and passes."""
    confined: bool
    """Whether the proof is the failed program with nothing changed but the first statement after m*."""

    @property
    def exact(self) -> bool:
        """Whether the first wrong statement is known: M follows m*, or one changed statement mends the program."""
        return (
            self.last_proved > 0 and self.suspect is not None and (self.suspect == self.first_refuted or self.confined)
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> SpliceResult:
        return cls(**record)


def splice_search(
    code: str,
    pool: Sequence[str],
    *,
    roots: Sequence[str] | None,
    whole: Callable[[str], str] = str,
    preamble: str = "",
    settings: SpliceSettings | None = None,
) -> Judging:
    """Find m* and M of one failed program.

    Args:
        code: the program, as the policy wrote it.
        pool: programs that pass the problem's tests, in the same form, without repetition.
        roots: names that the tests use; None for a program that is run for its output.
        whole: from a program in that form to what is judged.
        preamble: code that every program of the problem may rely on.
        settings: how much is tried.
    """
    limits = settings or SpliceSettings()
    listed = code_lines(code)
    lines = [line.text for line in listed]
    neutral = [line.neutral for line in listed]
    known = _names(preamble)
    cuts = _cuts(lines, neutral)
    executions = 0

    # M: the prefixes whose failure is decided are those from some line on, behind the start of any passing program: one
    # that binds a name of that start anew refutes the marks.
    shared = max((same_start(lines, [line.text for line in code_lines(program)]) for program in pool), default=0)
    low, high = sum(line <= shared for line, _ in cuts), len(cuts)
    while low < high:
        middle = (low + high) // 2
        marked = open_ended(cuts[middle][1], roots=roots, known=known) if roots is not None else None
        lost = False
        if marked is not None:
            (verdict,) = yield [whole(marked)]
            executions += 1
            lost = decided(verdict)
        low, high = (low, middle) if lost else (middle + 1, high)
    refuted = cuts[high][0] if high < len(cuts) else None

    found = yield from _descend(lines, cuts[:high], refuted, pool, roots, known, whole, limits)
    last, proof, confined, spent, donors = found
    suspect = _follows(cuts, last)
    while last and last < len(lines) and neutral[last]:
        last += 1
    return SpliceResult(
        lines=len(lines),
        last_proved=last,
        first_refuted=refuted,
        suspect=suspect,
        executions=executions + spent,
        shared=shared,
        donors=donors,
        proof=proof,
        confined=confined,
    )


def _follows(cuts: Sequence[tuple[int, Any]], line: int) -> int | None:
    """The first cut after a line."""
    return next((cut for cut, _ in cuts if cut > line), None)


def _descend(
    lines: Sequence[str],
    cuts: Sequence[tuple[int, Prefix]],
    refuted: int | None,
    pool: Sequence[str],
    roots: Sequence[str] | None,
    known: Iterable[str],
    whole: Callable[[str], str],
    limits: SpliceSettings,
) -> Generator[list[str], Sequence[Verdict], tuple[int, str | None, bool, int, int]]:
    """(m*, its proof, whether that changes one statement only, programs judged, donors): sweeps from the last cut down.

    A short sweep comes first; the second looks closer at the lines that the first could not prove.
    """
    donors = [donor for program in pool[: limits.donors] if (donor := Donor.of(program)) is not None]
    if not donors:
        return 0, None, False, 0, 0
    receiver = Receiver.of(lines, roots=roots, known=known)
    patient = Patient.of(lines)
    prefixes = dict(cuts)
    sources = {line: _alternate(prefix, patient, receiver, donors) for line, prefix in cuts}
    last, spent = 0, 0
    proof: Repair | None = None
    for per_line in (limits.first_sweep, limits.per_line - limits.first_sweep):
        for line, _ in reversed(cuts):
            if line <= last or spent >= limits.per_program:
                break
            passed, judged = yield from _try(sources[line], prefixes[line], receiver, per_line, limits.batch, whole)
            spent += judged
            if passed is not None:
                last, proof = line, passed
                break
    if (
        proof is not None
        and not proof.confined
        and patient is not None
        and _follows([*cuts, (refuted, None)] if refuted else cuts, last) != refuted
    ):
        prefix = prefixes[last]
        mended = (repair for repair in repairs(prefix, patient, receiver, donors) if repair.confined)
        passed, judged = yield from _try(mended, prefix, receiver, limits.confirm, limits.batch, whole)
        spent += judged
        proof = passed or proof
    program = None if proof is None else proof.program
    return last, program, proof is not None and proof.confined, spent, len(donors)


def _alternate(
    prefix: Prefix, patient: Patient | None, receiver: Receiver, donors: Sequence[Donor]
) -> Iterator[Repair]:
    """Splices and repairs of one prefix in turn."""
    spliced = (Repair(program=splice.program, confined=False) for splice in splices(prefix, receiver, donors))
    mended = repairs(prefix, patient, receiver, donors) if patient is not None else iter(())
    seen: set[str] = set()
    for pair in itertools.zip_longest(spliced, mended):
        for candidate in pair:
            if candidate is not None and candidate.program not in seen:
                seen.add(candidate.program)
                yield candidate


def _try(
    source: Iterator[Repair],
    prefix: Prefix,
    receiver: Receiver,
    count: int,
    batch: int,
    whole: Callable[[str], str],
) -> Generator[list[str], Sequence[Verdict], tuple[Repair | None, int]]:
    """The first of the next `count` candidates that passes and needs the prefix's blocks; how many were judged."""
    judged = 0
    while judged < count and (listed := list(itertools.islice(source, min(batch, count - judged)))):
        verdicts = yield [whole(candidate.program) for candidate in listed]
        judged += len(listed)
        for candidate, verdict in zip(listed, verdicts, strict=True):
            if not verdict.passed:
                continue
            reduced = without_blocks(candidate.program, prefix, receiver)
            without = (yield [whole(program) for program in reduced]) if reduced else []
            judged += len(reduced)
            if not any(other.passed for other in without):
                return candidate, judged
    return None, judged


def splice_labels(result: SpliceResult, neutral: Sequence[bool], gap: Gap = "negative") -> tuple[float, ...]:
    """Labels of every line, see the head of this module."""
    if gap == "negative" and result.donors:
        return line_labels(result.last_proved, neutral)
    refuted = len(neutral) + 1 if result.first_refuted is None else _start(result, result.first_refuted)
    return tuple(
        label if line <= result.last_proved or line >= refuted else 0.0
        for line, label in enumerate(line_labels(result.last_proved, neutral), start=1)
    )


def _start(result: SpliceResult, refuted: int) -> int:
    """First line of the statement that ends at `refuted`, as far as the result tells and no passing program has it."""
    return max(result.last_proved, result.shared) + 1 if refuted == result.suspect else refuted


def names_used(problem: Problem) -> list[str] | None:
    """Names of the program that the problem's tests use; None for programs run for their output."""
    if isinstance(problem.tests, CallTests):
        return [problem.tests.function.split(".")[0]]
    if isinstance(problem.tests, AssertTests):
        return [problem.tests.entry_point, *problem.tests.objects]
    return None


def _cuts(lines: Sequence[str], neutral: Sequence[bool]) -> list[tuple[int, Prefix]]:
    """Lines that end a statement or a header, with their prefixes."""
    found = ((m, parse_prefix(lines[:m])) for m in range(1, len(lines) + 1) if not neutral[m - 1])
    return [(line, prefix) for line, prefix in found if prefix is not None]


def _names(preamble: str) -> set[str]:
    tree = parse(preamble)
    return set() if tree is None else {name for node in tree.body for name in binds(node)}


def judge_all(
    searches: Sequence[Judging], judge: Callable[[list[tuple[int, str]]], Sequence[Verdict]], *, in_flight: int = 64
) -> Iterator[tuple[int, SpliceResult]]:
    """Run many searches side by side; each round judges what all of them wait for in one batch.

    Args:
        searches: one per program.
        judge: from (number of the search, program) pairs to verdicts, in order.
        in_flight: searches that wait at the same time.

    Yields (number, result) as searches end: round by round, in the order of their numbers.
    """
    queue = iter(range(len(searches)))
    waiting: dict[int, list[str]] = {}
    while True:
        ended: list[tuple[int, SpliceResult]] = []
        while len(waiting) < in_flight and (number := next(queue, None)) is not None:
            _advance(searches[number], number, None, waiting, ended)
        yield from ended
        if not waiting:
            if not ended:
                return
            continue
        asked = [(number, program) for number, programs in waiting.items() for program in programs]
        verdicts = iter(judge(asked))
        answers = {number: [next(verdicts) for _ in programs] for number, programs in waiting.items()}
        ended = []
        for number, answer in answers.items():
            del waiting[number]
            _advance(searches[number], number, answer, waiting, ended)
        yield from ended


def _advance(
    search: Judging,
    number: int,
    answer: Sequence[Verdict] | None,
    waiting: dict[int, list[str]],
    ended: list[tuple[int, SpliceResult]],
) -> None:
    try:
        waiting[number] = next(search) if answer is None else search.send(answer)
    except StopIteration as stop:
        ended.append((number, stop.value))
