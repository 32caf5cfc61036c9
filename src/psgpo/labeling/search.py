"""The search for the last solvable line, as pure functions: no model, no sandbox, no file.

PSGPO (arXiv 2410.17621), section "collecting labels" and Figure 2. Lines are numbered 1..T; `solvable(m)` says
whether some completion of the first m lines passes every test.

    binary search    [low, high] = [1, T];  m = floor((low + high) / 2)
                     solvable(m): low = m + 1;  otherwise high = m - 1;  until low > high;  m* = high

Figure 2: T = 5, m = 3 accepted, [4, 5], m = 4 rejected, m* = 3: lines 1-3 are +1, lines 4-5 are -1.

m = 0 is never asked. m* = 0 means that no prefix was found solvable, not that the empty one is.

What differs from the paper: a neutral line (comment, blank, docstring) is never asked about, because the prefix that
ends in it can be completed exactly when the prefix before it can. The search runs over the other lines, renumbered,
and `last_solvable_line` carries its result back. This saves probes and changes no label.

A strategy is a generator that yields m and is sent the answer, so one implementation serves both the plain functions
here and the scheduler, which keeps thousands of searches waiting for their rollouts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType

Search = Generator[int, bool, int]
"""Yields the line m to ask about, is sent `solvable(m)`, returns m*."""


def binary_search_steps(lines: int) -> Search:
    """Binary search over lines 1..`lines` (T); at most floor(log2 T) + 1 questions.

    Right when solvable(m) is monotone (true up to m*, false after). Otherwise m* is a line whose successor on the
    search path was rejected, and some later line may still be solvable.
    """
    low, high = 1, lines
    while low <= high:
        middle = (low + high) // 2
        if (yield middle):
            low = middle + 1
        else:
            high = middle - 1
    return high


def linear_scan_steps(lines: int) -> Search:
    """Ask about every line 1..`lines` (T); m* is the last one accepted, wherever earlier ones were rejected.

    The control for the binary search: T questions, and the only strategy that can see answers that are not monotone.
    """
    last = 0
    for line in range(1, lines + 1):
        if (yield line):
            last = line
    return last


STRATEGIES: Mapping[str, Callable[[int], Search]] = MappingProxyType(
    {"binary-search": binary_search_steps, "linear-scan": linear_scan_steps}
)
"""Every label strategy by its name in a recipe (`labels.strategy`)."""


def drive(search: Search, solvable: Callable[[int], bool]) -> int:
    """Run a search to its end with an oracle and return m*."""
    try:
        line = next(search)
        while True:
            line = search.send(solvable(line))
    except StopIteration as stop:
        result: int = stop.value
        return result


def binary_search(lines: int, solvable: Callable[[int], bool]) -> int:
    """m* of a program of `lines` lines by binary search; 0 when no line was accepted."""
    return drive(binary_search_steps(lines), solvable)


def linear_scan(lines: int, solvable: Callable[[int], bool]) -> int:
    """m* of a program of `lines` lines, every line asked; 0 when no line was accepted."""
    return drive(linear_scan_steps(lines), solvable)


def last_solvable_line(solvable_code_lines: int, neutral: Sequence[bool]) -> int:
    """m* in lines, from the number of leading non-neutral lines that the search found solvable.

    Neutral lines that follow the last solvable one belong to the solvable prefix; with nothing solvable m* is 0, even
    when the program begins with comments.

    Example: neutral = (code, comment, code), 1 code line solvable -> m* = 2.
    """
    if solvable_code_lines == 0:
        return 0
    seen = 0
    for line, flag in enumerate(neutral):
        if not flag:
            seen += 1
            if seen > solvable_code_lines:
                return line
    return len(neutral)


def line_labels(last_solvable: int, neutral: Sequence[bool], neutral_labels: bool = True) -> tuple[float, ...]:
    """l_m = +1 for m <= m*, -1 after; 0 on neutral lines (PSGPO's neutral labelling).

    Args:
        last_solvable: m*, from 0 to T.
        neutral: per line, whether it is neutral. Length T.
        neutral_labels: off, neutral lines carry the label of their prefix, as code lines do.
    """
    assert 0 <= last_solvable <= len(neutral)
    return tuple(
        0.0 if flag and neutral_labels else (1.0 if line <= last_solvable else -1.0)
        for line, flag in enumerate(neutral, start=1)
    )
