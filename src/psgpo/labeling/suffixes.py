"""Splicing by lines: prefix lines + the last lines of a passing program. For programs that share names and indentation.

Enough where programs keep their state in the same variables, as the embedded benchmark's do; other programs need whole
statements and names matched by use (`psgpo.syntax`). What passes must need its prefix (`psgpo.syntax.needed`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from psgpo.lines import code_lines
from psgpo.problems.programs import entry_name, judged_program
from psgpo.records import Problem, Status, Verdict
from psgpo.syntax import parse, reductions, unused_lines


@dataclass(frozen=True, slots=True)
class Spliced:
    """What a search found."""

    last: int
    """m*, in lines."""
    judged: int
    """Programs."""
    program: str | None
    """The program that completes the first m* lines; None where nothing beyond `above` could be completed."""


Suffixes = Generator[list[str], Sequence[Verdict], Spliced]
"""Yields programs, is sent their verdicts, returns what they say."""

DEFINITION = re.compile(r"(?:async\s+def|def|class)\b")
_RETURN = re.compile(r"\s*return\b")
FIRST = 4
BATCH = 16
ENDLESS = (Status.TIMEOUT, Status.MEMORY)


@dataclass(frozen=True, slots=True)
class Reader:
    """How programs of one problem are read as Python. Where they are something else, nothing is known about them."""

    problem: Problem
    python: bool
    """Whether some of the programs at hand parse."""

    @classmethod
    def of(cls, problem: Problem, programs: Iterable[str]) -> Reader:
        return cls(problem, any(parse(judged_program(problem, program)) is not None for program in programs))

    def readable(self, program: str) -> bool:
        """False where the program cannot pass for its syntax alone."""
        return not self.python or parse(judged_program(self.problem, program)) is not None

    def unused(self, lines: Sequence[str]) -> set[int]:
        """Lines that the program itself makes no use of."""
        program = "".join(f"{line}\n" for line in lines)
        head = self._head(program)
        if head is None:
            return set()
        return {line - head.count("\n") for line in unused_lines(head + program, self._roots())}

    def reductions(self, program: str, lines: range, exempt: set[int]) -> list[str] | None:
        """See `psgpo.syntax.reductions`; programs in the form of the responses."""
        head = self._head(program)
        if head is None:
            return []
        skip = head.count("\n")
        shifted = range(lines.start + skip, lines.stop + skip)
        found = reductions(head + program, shifted, self._roots(), {line + skip for line in exempt})
        return None if found is None else [text[len(head) :] for text in found]

    def _head(self, program: str) -> str | None:
        """What is judged before the program; None where that is not all that is added."""
        judged = judged_program(self.problem, program)
        return judged[: len(judged) - len(program)] if self.python and judged.endswith(program) else None

    def _roots(self) -> list[str] | None:
        name = entry_name(self.problem)
        return None if name is None else [name]


def suffix_programs(lines: Sequence[str], kept: int, pool: Sequence[Sequence[str]]) -> Iterator[str]:
    """Distinct programs `lines[:kept] + donor[j:]`, those nearest in position first; the lines alone are one of them.

    Suffixes that define a function or class at the margin again are left out: they would start over.
    """
    found: dict[str, int] = {}
    head = "".join(f"{line}\n" for line in lines[:kept])
    for donor in pool:
        margin = max((j for j, line in enumerate(donor) if DEFINITION.match(line)), default=-1)
        for j in range(margin + 1, len(donor) + (kept < len(lines))):
            program = head + "".join(f"{line}\n" for line in donor[j:])
            found[program] = min(found.get(program, len(donor)), abs(j - kept))
    yield from sorted(found, key=lambda program: found[program])


def crossed_programs(programs: Sequence[Sequence[str]], fresh: int = 0) -> Iterator[str]:
    """Distinct programs that begin like one of those given and end like another, cut at about the same line.

    Cuts in the middle of a program come first: what is right at one's beginning may be right at another's end.

    Args:
        fresh: programs before this one have been joined with each other already.
    """
    seen: set[str] = set()
    joins: list[tuple[float, int, int, int, int]] = []
    for a, b in itertools.permutations(range(len(programs)), 2):
        if max(a, b) < fresh:
            continue
        for kept in range(1, len(programs[a])):
            middle = abs(kept / len(programs[a]) - 0.5)
            places = [j for j in (kept, kept + 1, kept - 1) if 0 < j < len(programs[b])]
            joins += [(middle + 0.5 * (j != kept), a, b, kept, j) for j in places]
    for _, a, b, kept, j in sorted(joins):
        if any(map(DEFINITION.match, programs[b][j:])):
            continue
        program = "".join(f"{line}\n" for line in (*programs[a][:kept], *programs[b][j:]))
        if program not in seen:
            seen.add(program)
            yield program


def _finished(lines: Sequence[str], neutral: Sequence[bool]) -> bool:
    """Whether the program ends with a `return` of its outermost block: nothing that is put behind it would run."""
    code = [line for line, says_nothing in zip(lines, neutral, strict=True) if not says_nothing]
    margins = [len(line) - len(line.lstrip()) for line in code if line[:1].isspace()]
    last = code[-1] if code else ""
    return bool(margins) and _RETURN.match(last) is not None and len(last) - len(last.lstrip()) == min(margins)


def suffix_search(
    lines: Sequence[str],
    neutral: Sequence[bool],
    pool: Sequence[Sequence[str]],
    reader: Reader,
    *,
    above: int,
    halving: bool = False,
) -> Suffixes:
    """m* of a failed program: from its last line down, the first that some suffix completes.

    A completion counts where it needs the lines after `above`. A line whose first few completions all run out of time
    or memory is given up: its prefix does not end.

    With `halving` the last completable one is searched among the lines that end a statement of the outermost block, as
    if those before a completable one were all completable. A wrong statement that the next one mends breaks that rule,
    so the next but one is asked too, and where it is completable those that follow it, up to the first that is not.
    Then come the lines within the statement behind the last completable one. About half as many programs.

    Args:
        lines: the program.
        neutral: per line; neutral lines are not asked about.
        pool: lines of the passing programs.
        above: lines known to be completable; none of them is asked about.
    """
    search = _Joins(lines, pool, reader, above)
    last = len(lines) - _finished(lines, neutral)
    asked = [kept for kept in range(above + 1, last + 1) if not neutral[kept - 1]]
    best: tuple[int, str | None] = (above, None)
    if halving:
        ends = _statement_ends(lines, neutral, asked)
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            program = yield from search.completed(ends[middle])
            if program is None:
                high = middle
            else:
                best, low = (ends[middle], program), middle + 1
        beyond = low + 1
        while beyond < len(ends) and (program := (yield from search.completed(ends[beyond]))) is not None:
            best, low, beyond = (ends[beyond], program), beyond + 1, beyond + 1
        asked = [kept for kept in asked if best[0] < kept and (low == len(ends) or kept < ends[low])]
    for kept in reversed(asked):
        program = yield from search.completed(kept)
        if program is not None:
            return Spliced(kept, search.judged, program)
    return Spliced(best[0], search.judged, best[1])


def _statement_ends(lines: Sequence[str], neutral: Sequence[bool], asked: Sequence[int]) -> list[int]:
    """Those of `asked` after which the program's outermost indented block goes on, or nothing comes."""
    code = [number for number, says_nothing in enumerate(neutral, start=1) if not says_nothing]
    margins = {number: len(lines[number - 1]) - len(lines[number - 1].lstrip()) for number in code}
    outermost = min((margin for margin in margins.values() if margin), default=0)
    following = dict(itertools.pairwise(code))
    return [kept for kept in asked if kept not in following or margins[following[kept]] <= outermost]


class _Joins:
    """Completions of one failed program's prefixes, judged."""

    def __init__(self, lines: Sequence[str], pool: Sequence[Sequence[str]], reader: Reader, above: int) -> None:
        self._lines, self._pool, self._reader, self._above = lines, pool, reader, above
        self._exempt = reader.unused(lines)
        self.judged = 0

    def completed(self, kept: int) -> Generator[list[str], Sequence[Verdict], str | None]:
        """A program that passes, begins with the first `kept` lines and needs those after `above`; None without one."""
        every = suffix_programs(self._lines, kept, self._pool)
        candidates = (program for program in every if self._reader.readable(program))
        size = FIRST
        while batch := list(itertools.islice(candidates, size)):
            verdicts = yield batch
            self.judged += len(batch)
            for program in [one for one, verdict in zip(batch, verdicts, strict=True) if verdict.passed]:
                without = self._reader.reductions(program, range(self._above + 1, kept + 1), self._exempt)
                if without is None:
                    continue
                answers = (yield without) if without else []
                self.judged += len(without)
                if not any(verdict.passed for verdict in answers):
                    return program
            if size == FIRST and all(verdict.status in ENDLESS for verdict in verdicts):
                return None
            size = BATCH
        return None


def done_share(lines: Sequence[str], found: Spliced, pool: Sequence[str]) -> float:
    """`LineLabels.done` of a failed program.

    Args:
        lines: of the program.
        found: what `suffix_search` says of it.
        pool: the passing programs, at least one.
    """
    kept = found.last
    if found.program is not None:
        endings = [code_lines(found.program)[kept:]]
    else:  # a start that it shares with programs of the pool
        donors = [code_lines(program) for program in pool]
        endings = [donor[kept:] for donor in donors if same_start(lines, [line.text for line in donor]) >= kept]
    if not endings:
        return 0.0
    left = min(sum(not line.neutral for line in ending) for ending in endings)
    whole = min(sum(not line.neutral for line in code_lines(program)) for program in pool)
    return max(0.0, 1 - left / whole)


def same_start(left: Sequence[str], right: Sequence[str]) -> int:
    """How many first lines two programs share, but for spaces at their ends."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one.rstrip() != other.rstrip():
            break
        count += 1
    return count
