"""The exact oracle: up to which line can a response still be completed into a right program?

A prefix (the first m lines) is *on track* iff some completion by the benchmark's own grammar passes every test: the
rest of a correct variant of the operation it stands in, then the remaining operations, then `return x`.

Line boundaries and operations, L lines, n operations:

    B_0  the boundary after `def solve(x):`
    B_j  boundaries b at statement level of the function body that come, with at least one effective line between,
         after some b' in B_(j-1), where `x`, on every test input, is taken by operations j+1..n to the expected output
         ("good for j operations done"), and which are the first of that kind or end a correct variant of operation j

Comments, blank lines, `pass` and `x = x` change nothing: a boundary after them belongs where the one before them does.
The first m lines are on track iff some longer or equal prefix ends in a B_j, or ends in lines Q since some b in B_j
that are the beginning of operation j+1: Q equals the first k lines of a correct variant v, or (k <= 5, B_(j+1) empty)
the prefix followed by v[k:] leaves `x` good for j + 1. A response that passes is on track throughout.

So a dead segment (a wrong loop whose result is never assigned) is off track although `x` is still untouched, and so is
a sort in the wrong direction although sorting again would mend it: starting an operation over is no completion in the
grammar. Both turn out harmless if the response itself does start over.

Untrusted code runs in the sandbox only, see `psgpo.problems.opchain.tracing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psgpo.lines import code_lines
from psgpo.problems.opchain.chain import all_calls_of, chain_of, states_of
from psgpo.problems.opchain.operation import FOOTER, HEADER, INDENT, Chain
from psgpo.problems.opchain.operations import NO_OPS
from psgpo.problems.opchain.strength import run_chain
from psgpo.problems.opchain.tracing import (
    ODD,
    EvaluateMany,
    Reply,
    Request,
    Run,
    Source,
    Structure,
    instrument,
    readable_lines,
    run_requests,
    structure_of,
)
from psgpo.records import Problem

MAX_SPLICED = 5
"""Most effective lines of an unfinished operation that are tried by running, not by comparing text."""

_TYPES = {"list": list, "int": int, "str": str}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactLabels:
    """What the oracle knows about one response. L code lines, as `psgpo.lines.code_lines` counts them."""

    on_track: tuple[bool, ...]
    """Per line: can the prefix that ends with it still be completed? True for lines 1..last_on_track."""
    last_on_track: int
    """m*: number of leading lines that are on track."""
    progress: tuple[float, ...]
    """Per line: share of the operations that are done; stays where it was after the first error; in [0, 1]."""
    lines: int
    """L."""
    passed: bool
    """Whether the whole response passes, as far as the oracle's own run can tell."""


class ExactOracle:
    """Labels responses to OpChain problems exactly.

    Args:
        evaluate_many: `Sandbox.evaluate_many` or its like.
    """

    def __init__(self, evaluate_many: EvaluateMany) -> None:
        self._evaluate_many = evaluate_many

    def label(self, items: Sequence[tuple[Problem, str]]) -> list[ExactLabels]:
        """Label responses (problem, response text), in order.

        All responses are traced together, then the unfinished operations of those that fail are tried together: two
        calls of `evaluate_many`, more only for responses whose run gave no answer.

        Raises:
            UserError: a problem is not one of OpChain's.
        """
        tasks = {problem.id: _Task.of(problem) for problem, _ in items}
        cases = [_Case.of(tasks[problem.id], text) for problem, text in items]
        self._trace([case for case in cases if case.header])
        for case in cases:
            case.place_boundaries()
        spliced = [(case, splices) for case in cases if (splices := case.splices())]
        requests = [Request(case.task.inputs, tuple(splice.source for splice in splices)) for case, splices in spliced]
        for (case, splices), reply in zip(spliced, self._run_each(requests), strict=True):
            for splice, runs in zip(splices, reply, strict=True):
                if runs is not None and case.task.good([run.states[0] for run in runs], runs, splice.done):
                    case.last = max(case.last, splice.line)
        return [case.labels() for case in cases]

    def _trace(self, cases: Sequence[_Case]) -> None:
        """Trace every response; where that gives no answer, the most statements that do give one."""
        replies = self._run([case.tracing() for case in cases])
        stuck = [case for case, reply in zip(cases, replies, strict=True) if not case.accept_trace(reply)]
        # The run of a longer part fails whenever that of a shorter one does: bisect on the number of statements.
        low, high = [0] * len(stuck), [len(case.structure.ends) + 1 for case in stuck]
        while open_cases := [i for i in range(len(stuck)) if high[i] - low[i] > 1]:
            middle = {i: (low[i] + high[i]) // 2 for i in open_cases}
            replies = self._run([stuck[i].tracing(middle[i]) for i in open_cases])
            for i, reply in zip(open_cases, replies, strict=True):
                if stuck[i].accept_trace(reply, middle[i]):
                    low[i] = middle[i]
                else:
                    high[i] = middle[i]

    def _run(self, requests: Sequence[Request]) -> list[Reply | None]:
        return run_requests(self._evaluate_many, requests) if requests else []

    def _run_each(self, requests: Sequence[Request]) -> list[Reply]:
        """Like `_run`; a request without an answer is taken apart, so that one endless program spoils no other."""
        replies = self._run(requests)
        parts = [(i, source) for i, reply in enumerate(replies) if reply is None for source in requests[i].sources]
        alone = self._run([Request(requests[i].inputs, (source,)) for i, source in parts])
        collected: dict[int, list[tuple[Run, ...] | None]] = {}
        for (i, _), answer in zip(parts, alone, strict=True):
            collected.setdefault(i, []).append(answer[0] if answer else None)
        return [reply if reply is not None else tuple(collected[i]) for i, reply in enumerate(replies)]


@dataclass(frozen=True, slots=True)
class _Task:
    """A problem as the oracle sees it."""

    chain: Chain
    inputs: tuple[Any, ...]
    expected: tuple[Any, ...]
    reference: tuple[tuple[Any, ...], ...]
    """Per test the states s_0 .. s_n of the right chain."""
    variants: tuple[tuple[tuple[str, ...], ...], ...]
    """Per operation its correct variants."""

    @classmethod
    def of(cls, problem: Problem) -> _Task:
        chain = chain_of(problem)
        inputs = tuple(call.args[0] for call in all_calls_of(problem))
        reference = []
        for value in inputs:
            states = states_of(chain, value)
            assert states is not None, f"problem {problem.id}: its chain is undefined on one of its own tests"
            reference.append(tuple(states))
        expected = tuple(call.expected for call in all_calls_of(problem))
        return cls(chain, inputs, expected, tuple(reference), tuple(step.correct() for step in chain))

    def good(self, states: Sequence[Any], runs: Sequence[Run], done: int) -> bool:
        """Whether `x` on every test is taken by the operations after the first `done` to the expected output.

        A test on which the program has returned before counts by what it returned.
        """
        for test, state in enumerate(states):
            if state is None and runs[test].returned:
                if not _same(runs[test].value, self.expected[test]):
                    return False
            elif not self._completes(test, state, done):
                return False
        return True

    def passes(self, runs: Sequence[Run]) -> bool:
        return all(run.returned and _same(run.value, self.expected[test]) for test, run in enumerate(runs))

    def _completes(self, test: int, state: Any, done: int) -> bool:
        if state is None or state is ODD:
            return False
        if _same(state, self.reference[test][done]):
            return True
        if done == len(self.chain) or type(state) is not _TYPES[self.chain[done].operation.takes]:
            return False
        return _same(run_chain(self.chain[done:], state), self.expected[test])


def _same(value: Any, expected: Any) -> bool:
    return type(value) is type(expected) and bool(value == expected)


@dataclass(frozen=True, slots=True)
class _Splice:
    """A prefix completed by the rest of a variant: shows, when it is good, that `line` is on track."""

    source: Source
    line: int
    done: int
    """Operations done once the variant is complete."""


@dataclass(slots=True)
class _Case:
    """One response on its way to its labels. Lines are numbered from 1; 0 is the boundary before the first."""

    task: _Task
    lines: tuple[str, ...]
    neutral: tuple[bool, ...]
    open_tail: bool
    """The last line has no newline: it may be cut off in the middle."""
    readable: int
    header: int
    """Line of `def solve(x):`; 0 when the response does not begin with it."""
    structure: Structure
    boundaries: tuple[int, ...] = ()
    """Lines after which `x` was recorded."""
    runs: tuple[Run, ...] = ()
    passed: bool = False
    last: int = 0
    """m*, as far as known."""
    done_at: list[int] = field(default_factory=list)
    """min B_0, min B_1, ...: the first line at which that many operations are done."""
    good_at: list[tuple[int, int]] = field(default_factory=list)
    """All (b, j) with b in B_j."""

    @classmethod
    def of(cls, task: _Task, text: str) -> _Case:
        code = code_lines(text)
        lines = tuple(line.text for line in code)
        neutral = tuple(line.neutral for line in code)
        open_tail = bool(code) and not text[: code[-1].end].endswith("\n")
        readable = readable_lines(lines)
        first = next((number for number, flag in enumerate(neutral, start=1) if not flag), 0)
        is_header = 0 < first <= readable and lines[first - 1].rstrip() == HEADER
        structure = structure_of(lines[:readable], first) if is_header else Structure((), INDENT, False, False)
        case = cls(task, lines, neutral, open_tail, readable, first if is_header else 0, structure)
        if not is_header:
            unfinished = first == len(lines) and open_tail and HEADER.startswith(lines[first - 1])
            case.last = len(lines) if first == 0 or unfinished else first - 1
        return case

    def tracing(self, statements: int | None = None) -> Request:
        """The request that traces the response, or only its first `statements` statements.

        The whole response is run apart, as a second program, when it is more than its function.
        """
        ends = self.structure.ends[:statements]
        sources = []
        if ends:
            sources.append(instrument(self.lines[: ends[-1]], ends, self.structure.indent))
        if statements is None and self._whole() and not self.structure.alone:
            sources.append(instrument(self.lines))
        return Request(self.task.inputs, tuple(sources))

    def accept_trace(self, reply: Reply | None, statements: int | None = None) -> bool:
        """Keep the answer to `tracing(statements)`; False when there is none to keep."""
        ends = self.structure.ends[:statements]
        if reply is None:
            return False
        if ends:
            if reply[0] is None:
                return False
            self.boundaries, self.runs = ends, reply[0]
        if statements is None and self._whole() and reply and reply[-1] is not None:
            self.passed = self.task.passes(reply[-1])
        return True

    def _whole(self) -> bool:
        """Whether every line of the response parses."""
        return self.structure.whole and self.readable == len(self.lines)

    def place_boundaries(self) -> None:
        """Find B_0 .. B_n and what is on track without running anything more."""
        if not self.header:
            return
        boundaries = [(self.header, self.task.inputs)]
        for index, line in enumerate(self.boundaries):
            boundaries.append((line, tuple(run.states[index] for run in self.runs)))
        effective = self._effective_counts()
        found = [b for b, _ in boundaries if effective[b] == effective[self.header]]
        for done in range(len(self.task.chain) + 1):
            self.done_at.append(found[0])
            self.good_at += [(b, done) for b in found]
            complete = {self._match_text(b, done) for b in found}
            if done == len(self.task.chain):
                break
            start, found = found[0], []
            for b, states in boundaries:
                idle = bool(found) and effective[b] == effective[found[-1]]
                if effective[b] <= effective[start] or (found and not idle and b not in complete):
                    continue
                if self.task.good(states, self.runs, done + 1):
                    found.append(b)
            if not found:
                break
        self.last = max(self.last, *(b for b, _ in self.good_at))
        if self.passed:
            self.last = len(self.lines)

    def _effective_counts(self) -> list[int]:
        """Per boundary 0..L: lines before it that are neither neutral nor no-ops."""
        counts = [0]
        for text, flag in zip(self.lines, self.neutral, strict=True):
            counts.append(counts[-1] + (not flag and text.strip() not in NO_OPS))
        return counts

    def _since(self, boundary: int) -> list[int]:
        """Effective lines after a boundary. A no-op counts unless it stands in the block of the line before it."""
        following = range(boundary + 1, self.readable + 1)
        return [number for number in following if not self.neutral[number - 1] and not self._is_no_op(number)]

    def _is_no_op(self, number: int) -> bool:
        """Whether a line is a no-op in the same block as the line before it, neutral lines left out."""
        line = self.lines[number - 1]
        if line.strip() not in NO_OPS:
            return False
        before = next(
            (
                text
                for text, flag in zip(self.lines[number - 2 :: -1], self.neutral[number - 2 :: -1], strict=True)
                if not flag
            ),
            "",
        )
        return _indent(line) == _indent(before) and not before.rstrip().endswith(":")

    def _match_text(self, boundary: int, done: int) -> int:
        """Move m* over lines after `boundary` that are the beginning of a correct variant of the next operation.

        Returns the last line of the variant where all of one is there, else 0.
        """
        complete = 0
        variants = self.task.variants[done] if done < len(self.task.chain) else ((FOOTER,),)
        numbers = self._since(boundary)
        for variant in variants:
            for k, (number, wanted) in enumerate(zip(numbers, variant, strict=False), start=1):
                line = self.lines[number - 1]
                cut_off = number == len(self.lines) and self.open_tail and wanted.startswith(line)
                if line.rstrip() != wanted and not cut_off:
                    break
                self.last = max(self.last, number)
                if k == len(variant):
                    complete = number
        return complete

    def splices(self) -> list[_Splice]:
        """Programs that would show lines after m* to be on track: prefix + rest of a variant of its operation."""
        if self.passed or not self.header:
            return []
        reached = len(self.done_at) - 1
        if reached == len(self.task.chain):
            return []
        found: dict[str, _Splice] = {}
        for boundary in (b for b, done in self.good_at if done == reached):
            for k, number in enumerate(self._since(boundary)[:MAX_SPLICED], start=1):
                if number <= self.last:
                    continue
                for variant in self.task.variants[reached]:
                    if len(variant) > k:
                        spliced = (*self.lines[:number], *variant[k:])
                        source = instrument(spliced, [len(spliced)], stop=True)
                        found[source.text] = _Splice(source, number, reached + 1)
        return list(found.values())

    def labels(self) -> ExactLabels:
        total = len(self.lines)
        while self.last < total and (self.neutral[self.last] or self._is_no_op(self.last + 1)):
            self.last += 1
        share = [sum(at <= line for at in self.done_at[1:]) for line in range(1, total + 1)]
        progress = [done / len(self.task.chain) for done in share[: self.last]]
        progress += [progress[-1] if progress else 0.0] * (total - self.last)
        if self.passed:
            final = max(number for number, flag in enumerate(self.neutral, start=1) if not flag)
            progress[final - 1 :] = [1.0] * (total - final + 1)
        return ExactLabels(
            on_track=tuple(line <= self.last for line in range(1, total + 1)),
            last_on_track=self.last,
            progress=tuple(progress),
            lines=total,
            passed=self.passed,
        )


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
