"""Splicing by lines: prefix lines + the last lines of a passing program. For programs that share names and indentation.

Enough where programs keep their state in the same variables, as the embedded benchmark's do; other programs need whole
statements and names matched by use (`psgpo.syntax`). Costs no parsing, so it is the search of the strategy `splice`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator, Sequence

from psgpo.records import Verdict

Suffixes = Generator[list[str], Sequence[Verdict], tuple[int, int]]
"""Yields programs, is sent their verdicts, returns (m*, programs judged)."""

_DEFINITION = re.compile(r"(?:async\s+def|def|class)\b")
BATCH = 16


def suffix_programs(lines: Sequence[str], kept: int, pool: Sequence[Sequence[str]]) -> Iterator[str]:
    """Distinct programs `lines[:kept] + donor[j:]`, those nearest in position first.

    Suffixes that define a function or class at the margin again are left out: they would start over.
    """
    found: dict[str, int] = {}
    head = "".join(f"{line}\n" for line in lines[:kept])
    for donor in pool:
        margin = max((j for j, line in enumerate(donor) if _DEFINITION.match(line)), default=-1)
        for j in range(margin + 1, len(donor)):
            program = head + "".join(f"{line}\n" for line in donor[j:])
            found[program] = min(found.get(program, len(donor)), abs(j - kept))
    yield from sorted(found, key=lambda program: found[program])


def crossed_programs(programs: Sequence[Sequence[str]]) -> Iterator[str]:
    """Distinct programs that begin like one of those given and end like another, cut at about the same line.

    Cuts in the middle of a program come first: what is right at one's beginning may be right at another's end.
    """
    seen: set[str] = set()
    joins: list[tuple[float, int, int, int, int]] = []
    for a, b in itertools.permutations(range(len(programs)), 2):
        for kept in range(1, len(programs[a])):
            middle = abs(kept / len(programs[a]) - 0.5)
            places = [j for j in (kept, kept + 1, kept - 1) if 0 < j < len(programs[b])]
            joins += [(middle + 0.5 * (j != kept), a, b, kept, j) for j in places]
    for _, a, b, kept, j in sorted(joins):
        if any(map(_DEFINITION.match, programs[b][j:])):
            continue
        program = "".join(f"{line}\n" for line in (*programs[a][:kept], *programs[b][j:]))
        if program not in seen:
            seen.add(program)
            yield program


def suffix_search(
    lines: Sequence[str], neutral: Sequence[bool], pool: Sequence[Sequence[str]], *, above: int
) -> Suffixes:
    """m* of a failed program: from the last line but one down, the first that some suffix completes.

    Args:
        lines: the program.
        neutral: per line; neutral lines are not asked about.
        pool: lines of the passing programs.
        above: lines known to be completable; none of them is asked about.
    """
    judged = 0
    for kept in range(len(lines) - 1, above, -1):
        if neutral[kept - 1]:
            continue
        candidates = suffix_programs(lines, kept, pool)
        while batch := list(itertools.islice(candidates, BATCH)):
            verdicts = yield batch
            judged += len(batch)
            if any(verdict.passed for verdict in verdicts):
                return kept, judged
    return above, judged
