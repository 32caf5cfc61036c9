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
