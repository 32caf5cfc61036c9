"""Searches over the lines of a program, as pure functions: no model, no sandbox, no file.

A search asks `Question`s ("complete the first m lines; how many completions pass?"), is sent `Answer`s and returns a
`Finding`. Lines are numbered 1..T. One protocol serves them all, so that one scheduler runs them all:

    binary search    [low, high] = [1, T];  m = floor((low + high) / 2)
                     some completion passes: low = m + 1;  otherwise high = m - 1;  until low > high;  m* = high
    linear scan      every line; m* is the last one with a completion that passes
    soft             every line, K completions whatever they give; label 2 (share that passes) - 1
    noisy            `psgpo.labeling.noisy`

Binary search: PSGPO (arXiv 2410.17621), section "collecting labels" and Figure 2: T = 5, m = 3 accepted, [4, 5], m = 4
rejected, m* = 3: lines 1-3 are +1, lines 4-5 are -1. Soft: Math-Shepherd (arXiv 2312.08935), "soft estimation", scaled
to [-1, 1]. m = 0 is never asked. m* = 0 means that no prefix was found solvable, not that the empty one is.

What differs from the paper: a neutral line (comment, blank, docstring) is never asked about, because the prefix that
ends in it can be completed exactly when the prefix before it can. A search runs over the other lines, renumbered, and
`last_solvable_line` and `spread_labels` carry its finding back. This saves probes and changes no label.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """How do completions of the first `line` lines fare?"""

    line: int
    """m, from 1."""
    draws: int
    """How many completions the answer rests on, those already drawn for this line included; 0: is it known without?"""
    until_pass: bool = True
    """One that passes is enough; off, all `draws` are wanted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question."""

    passed: int
    drawn: int
    certain: bool = False
    """Known without drawing: a program that passes begins so (passed = 1), or no token is left after it (0)."""

    @property
    def solvable(self) -> bool:
        return self.passed > 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search found out about lines 1..T."""

    last: int
    """m*: the last line found solvable."""
    labels: tuple[float, ...] | None = None
    """Per line; None: +1 up to m*, -1 after."""


Search = Generator[Question, Answer, Finding]
"""Yields a question, is sent its answer, returns the finding."""


def binary_search_steps(lines: int, draws: int) -> Search:
    """Binary search over lines 1..`lines` (T) with `draws` (K) completions each; at most floor(log2 T) + 1 questions.

    Right when being solvable is monotone (true up to m*, false after). Otherwise m* is a line whose successor on the
    search path was rejected, and some later line may still be solvable.
    """
    low, high = 1, lines
    while low <= high:
        middle = (low + high) // 2
        answer = yield Question(middle, draws)
        if answer.solvable:
            low = middle + 1
        else:
            high = middle - 1
    return Finding(high)


def linear_scan_steps(lines: int, draws: int) -> Search:
    """Ask about every line 1..`lines` (T); m* is the last one accepted, wherever earlier ones were rejected.

    The control for the binary search: T questions, and it can see answers that are not monotone.
    """
    last = 0
    for line in range(1, lines + 1):
        answer = yield Question(line, draws)
        if answer.solvable:
            last = line
    return Finding(last)


def soft_steps(lines: int, draws: int) -> Search:
    """l_m = 2 (passed / K) - 1 of K = `draws` completions at every line; m* as in the linear scan."""
    last = 0
    labels: list[float] = []
    for line in range(1, lines + 1):
        answer = yield Question(line, draws, until_pass=False)
        if answer.solvable:
            last = line
        labels.append(2 * answer.passed / answer.drawn - 1 if answer.drawn else -1.0)
    return Finding(last, tuple(labels))


def drive(search: Search, answer: Callable[[Question], Answer]) -> Finding:
    """Run a search to its end with an oracle and return what it found."""
    try:
        question = next(search)
        while True:
            question = search.send(answer(question))
    except StopIteration as stop:
        found: Finding = stop.value
        return found


def binary_search(lines: int, solvable: Callable[[int], bool]) -> int:
    """m* of a program of `lines` lines by binary search; 0 when no line was accepted."""
    return drive(binary_search_steps(lines, 1), lambda question: Answer(int(solvable(question.line)), 1)).last


def linear_scan(lines: int, solvable: Callable[[int], bool]) -> int:
    """m* of a program of `lines` lines, every line asked; 0 when no line was accepted."""
    return drive(linear_scan_steps(lines, 1), lambda question: Answer(int(solvable(question.line)), 1)).last


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


def spread_labels(labels: Sequence[float], neutral: Sequence[bool]) -> tuple[float, ...]:
    """Labels of the lines that are not neutral, put in their places; 0 on neutral lines.

    Example: labels = (.5, -1), neutral = (code, comment, code) -> (.5, 0, -1).
    """
    values = iter(labels)
    return tuple(0.0 if flag else float(next(values)) for flag in neutral)
