"""Ways to spend a budget of sampled tokens on one problem: each a generator that asks, and knows no model.

    best-of-n   whole programs, one after the other
    beam        line by line: `width * expansions` first lines; then each of the `width` best prefixes is gone on with
                `expansions` times, until those kept are all finished; then anew
    rejection   a whole program; the first line whose score falls more than `delta` below the highest before it is
                thrown away with all behind it and written again, up to `tries` times; then anew

What comes of each is the list of programs that were finished within the budget; who takes which of them is not their
business, so they differ in nothing but in how they come by programs. Best-of-n never asks the PRM. With width 1 and one
expansion, and with `delta` infinite, beam and rejection are best-of-n.

A step of `beam` ends with the token that holds a newline, and goes on while it has added nothing but blank lines and
comments, which have no score. Every sampled token counts, also of lines that are thrown away. The budget is never
exceeded: what is cut off by it is no program. A response also ends with the fence that closes its code, whose block
is all that is judged, and one that goes on with a function's head ends with the function: what the model would write
behind it is neither kept nor counted, but for the tokens that show that the function is over. Seeds of rows are
numbered within a problem, so they do not depend on other problems or on batches. No torch.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psgpo.lines import CodeLine, TokenText, code_lines, code_span, line_end_tokens
from psgpo.records import Completion
from psgpo.syntax import begins_statement

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """Go on with each of some prefixes. The answer: one `Completion` for each."""

    prefixes: Sequence[Ids]
    """Sampled ids of the response so far, the prompt left out."""
    limits: Sequence[int]
    """Most tokens of each."""
    numbers: Sequence[int]
    """Of the rows within the problem: what their seeds are made from."""
    whole: bool
    """To the end of the response; else to the end of a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Read the PRM at the last line of some texts. The answer: a number for each."""

    texts: Sequence[str]


Question = Draw | Score
Asking = Generator[Question, Any, Any]
"""Sent the answer to each question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is written of a response."""

    ids: Ids = ()
    logprobs: tuple[float, ...] = ()
    """Shape: as `ids`."""
    finished: bool = False
    """`ids` ends with an end-of-sequence token, with the line that closes the fenced block, or with the function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A finished program."""

    row: Row
    tokens: int
    """Sampled for the problem when it was finished, all rows together."""


@dataclass(kw_only=True, slots=True)
class Attempt:
    """The work on one problem: what it may spend, what it has spent, what it has found."""

    budget: int
    """Sampled tokens."""
    max_new_tokens: int
    """Longest response."""
    text: TokenText
    """Of the policy's tokenizer."""
    stops: frozenset[int]
    """Ids that end a response."""
    fences: bool = False
    """The policy may talk before its code, so text without a fence is no code yet unless it begins like a program."""
    ends_at: Callable[[str], int | None] = lambda text: None
    """Characters after which a response is over, or None while it may go on; see `problems.programs.end_of_answer`."""
    spent: int = 0
    drawn: int = 0
    """Rows so far."""
    candidates: list[Candidate] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    """Of every text that the PRM was asked about; NaN where it could not read it."""

    @property
    def left(self) -> int:
        return self.budget - self.spent

    @property
    def unread(self) -> int:
        """Texts that the PRM could not read."""
        return sum(map(math.isnan, self.scores.values()))

    def extend(self, rows: Sequence[Row], *, whole: bool) -> Asking:
        """One draw for each row; returns the longer rows. The budget that is left is shared equally."""
        share = self.left // len(rows)
        limits = [min(self.max_new_tokens - len(row.ids), share) for row in rows]
        numbers = range(self.drawn, self.drawn + len(rows))
        self.drawn += len(rows)
        answer: Sequence[Completion] = yield Draw(
            prefixes=[row.ids for row in rows], limits=limits, numbers=numbers, whole=whole
        )
        longer = [self._longer(row, completion) for row, completion in zip(rows, answer, strict=True)]
        self.spent += sum(cost for _, cost in longer)
        return [after for after, _ in longer]

    def _longer(self, row: Row, completion: Completion) -> tuple[Row, int]:
        """(the row with what was drawn for it, up to the end of its fenced block or function; what that costs)."""
        ids, logprobs = row.ids + completion.token_ids, row.logprobs + completion.logprobs
        text, ends = self.text.decode_with_ends(ids)
        newline = text.find("\n", code_span(text)[1])  # a fence without a newline may become a longer one
        function = self.ends_at(text)
        if newline < 0 and function is None:
            return Row(ids=ids, logprobs=logprobs, finished=ids[-1] in self.stops), len(completion.token_ids)
        if function is None or 0 <= newline < function:
            length = seen = bisect_left(ends, newline + 1) + 1
        else:  # which is known only from what stands behind
            length = bisect_left(ends, function) + 1
            seen = next(n for n in range(length, len(ids) + 1) if self.ends_at(text[: ends[n - 1]]) is not None)
        return Row(ids=ids[:length], logprobs=logprobs[:length], finished=True), seen - len(row.ids)

    def whole(self, row: Row) -> Asking:
        """The row to its end; None where budget or length ended it before."""
        if self.left < 1 or len(row.ids) >= self.max_new_tokens:
            return None
        (longer,) = yield from self.extend([row], whole=True)
        return longer if longer.finished else None

    def next_lines(self, rows: Sequence[Row]) -> Asking:
        """Each row with one more line that is not neutral, or finished; rows that budget or length ended are gone."""
        done: list[Row] = []
        going = [(self.reading(row), row) for row in rows]
        while True:
            going = [(before, row) for before, row in going if len(row.ids) < self.max_new_tokens]
            if not going or self.left < len(going):
                return done
            longer = yield from self.extend([row for _, row in going], whole=False)
            pairs = [(before, row) for (before, _), row in zip(going, longer, strict=True)]
            done += [row for before, row in pairs if row.finished or self.reading(row) not in ("", before)]
            going = [(before, row) for before, row in pairs if not row.finished and self.reading(row) in ("", before)]

    def prefixes(self, row: Row) -> list[str]:
        """The text up to each complete line that is not neutral. Of a finished row all lines are complete.

        A prefix ends with the token that holds the newline, so with the indentation of the next line where the token
        holds that too: the PRM reads the ids that were sampled, and a bare newline would look like the program's end.
        """
        text, ends = self.text.decode_with_ends(row.ids)
        lines = code_lines(text)
        if self.fences and not row.finished and code_span(text)[0] == 0 and not _begins_program(lines):
            return []
        found = []
        for line, token in zip(lines, line_end_tokens(ends, lines), strict=True):
            if not line.neutral and (row.finished or text[line.end - 1] == "\n"):
                rest = text[line.end : ends[token]]
                found.append(text[: line.end] + (rest if rest.isspace() else ""))
        return found

    def reading(self, row: Row) -> str:
        """The longest of `prefixes`; empty without one."""
        return next(reversed(self.prefixes(row)), "")

    def score(self, texts: Sequence[str]) -> Asking:
        """The PRM's score of each text, each asked for once; NaN for an empty one and one that it cannot read. Returns
        a list."""
        unknown = [text for text in dict.fromkeys(texts) if text and text not in self.scores]
        if unknown:
            answer = yield Score(texts=unknown)
            self.scores |= dict(zip(unknown, map(float, answer), strict=True))
        return [self.scores.get(text, math.nan) for text in texts]

    def enter(self, row: Row) -> None:
        """Keep a finished program."""
        self.candidates.append(Candidate(row=row, tokens=self.spent))


def best_of_n(attempt: Attempt) -> Asking:
    """Whole programs until the budget is spent."""
    while attempt.left:
        row = yield from attempt.whole(Row())
        if row is not None:
            attempt.enter(row)


def beam(attempt: Attempt, *, width: int, expansions: int) -> Asking:
    """Line-level beam search, anew until the budget is spent."""
    while attempt.left >= width * expansions:
        rows, kept = [Row()] * width, list[tuple[float, Row]]()
        while rows:
            fan = [row for row in rows for _ in range(expansions)]
            longer = list({row.ids: row for row in (yield from attempt.next_lines(fan))}.values())
            scores = yield from attempt.score([attempt.reading(row) for row in longer])
            for row in longer:
                if row.finished:
                    attempt.enter(row)
            finished = [(score, row) for score, row in kept if row.finished]
            ranked = [*finished, *zip(scores, longer, strict=True)]
            kept = sorted(ranked, key=lambda item: -_or_lowest(item[0]))[:width]
            rows = [row for _, row in kept if not row.finished]


def rejection(attempt: Attempt, *, delta: float, tries: int) -> Asking:
    """Programs whose first falling line is written again."""
    while attempt.left:
        row: Row | None = Row()
        for _ in range(1 + tries):
            assert row is not None
            row = yield from attempt.whole(row)
            if row is None:
                break
            attempt.enter(row)
            row = yield from _before_the_fall(attempt, row, delta)
            if row is None:
                break


def _before_the_fall(attempt: Attempt, row: Row, delta: float) -> Asking:
    """What stands before the first falling line of a finished program; None where no line falls."""
    text, ends = attempt.text.decode_with_ends(row.ids)
    lines = code_lines(text)
    where = [i for i, line in enumerate(lines) if not line.neutral]
    scores = yield from attempt.score(attempt.prefixes(row))
    highest = -math.inf
    for i, score in zip(where, scores, strict=True):
        if score < highest - delta:
            cut = line_end_tokens(ends, lines)[i - 1] + 1
            return replace(row, ids=row.ids[:cut], logprobs=row.logprobs[:cut], finished=False)
        highest = max(highest, score)
    return None


def _begins_program(lines: Sequence[CodeLine]) -> bool:
    first = next((line.text for line in lines if not line.neutral), "")
    return begins_statement(first)


def _or_lowest(score: float) -> float:
    return -math.inf if math.isnan(score) else score


Strategy = Callable[[Attempt], Asking]
