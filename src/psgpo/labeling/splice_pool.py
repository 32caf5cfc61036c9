"""A first passing program for problems that no response solves: failed programs joined, then completions drawn.

    cross   programs that begin like one failed program and end like another
    hunt    completions of prefixes of the failed programs, drawn where the chance to pass looks best, a few a round;
            what is drawn joins the failed programs and is crossed with them

Where to draw: a prefix of m lines of T is right with P(m* >= m) (`psgpo.labeling.prior`), and every line that is left
to write is one more to get wrong, so the prefixes with the largest P(m* >= m) exp(-DECAY (T - m)) come first. A
failure multiplies the chance of its prefix and of the longer ones of that response by AGAIN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.labeling.collect import sample_proved
from psgpo.labeling.prefixes import CutResponse
from psgpo.labeling.suffixes import Reader, crossed_programs
from psgpo.lines import TokenText, code_lines, extract_code
from psgpo.records import Problem
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # the sampler's package loads torch; nothing here needs it
    from psgpo.sampling import Sampler

Judge = Callable[[Sequence[tuple[str, str]]], list[bool]]
"""From (program, problem id) to whether it passes."""

HUNT_ROUND = 4
"""Completions drawn at once for a problem."""
CROSS_BATCH = 32
"""Joined programs judged at once for a problem."""
DECAY = 0.1
AGAIN = 0.7


@dataclass(slots=True)
class Attempt:
    """One problem without a passing response."""

    name: str
    numbers: list[int]
    """Positions of its failed responses."""
    texts: list[str]
    """Distinct failed programs, drawn ones included."""
    pool: list[str] = field(default_factory=list)
    """Programs found to pass."""
    crossed: int = 0
    """Of `texts`, how many have been joined with each other."""
    joins: int = 0
    """Joined programs judged."""
    completions: int = 0
    tokens: int = 0
    executions: int = 0
    refused: int = 0
    """Completions whose ids could not be proved."""
    failures: dict[int, dict[int, int]] = field(default_factory=dict)
    """Per response and line, the completions that failed."""


@dataclass(frozen=True, slots=True)
class _Draw:
    attempt: Attempt
    number: int
    line: int
    prefix: tuple[int, ...]
    draw: int


class PoolSearch:
    """Searches for many problems side by side.

    Args:
        cuts: all responses, by position.
        judge: says which programs pass.
    """

    def __init__(
        self,
        cuts: Sequence[CutResponse],
        problems: Mapping[str, Problem],
        samplers: Mapping[str, Sampler],
        text: TokenText,
        settings: LabelSettings,
        sampling: SamplingSettings,
        seed: int,
        judge: Judge,
    ) -> None:
        self._cuts, self._problems, self._samplers, self._text = cuts, problems, samplers, text
        self._settings, self._sampling, self._seed, self._judge = settings, sampling, seed, judge
        self.proved: dict[int, int] = {}
        """Per response, a line behind which a drawn completion passed and needed it."""

    def attempt(self, name: str, numbers: Sequence[int]) -> Attempt:
        texts = dict.fromkeys(extract_code(self._cuts[n].response.text) for n in numbers)
        return Attempt(name, list(numbers), list(texts))

    def cross(self, attempts: Sequence[Attempt], budget: int) -> None:
        """Join the failed programs of every problem, at most `budget` joins each, until one passes.

        Calls that come later share what is left of `labels.crossover`.
        """
        sources = {}
        for attempt in attempts:
            lines = [[line.text for line in code_lines(text)] for text in attempt.texts]
            reader = Reader.of(self._problems[attempt.name], attempt.texts)
            joined = (program for program in crossed_programs(lines, attempt.crossed) if reader.readable(program))
            left = self._settings.crossover - attempt.joins
            sources[attempt.name] = itertools.islice(joined, min(budget, left))
            attempt.crossed = len(attempt.texts)
        waiting = list(attempts)
        while waiting:
            batches = [list(itertools.islice(sources[attempt.name], CROSS_BATCH)) for attempt in waiting]
            items = [(attempt, program) for attempt, batch in zip(waiting, batches, strict=True) for program in batch]
            passed = self._judge([(program, attempt.name) for attempt, program in items])
            for (attempt, program), is_right in zip(items, passed, strict=True):
                attempt.executions += 1
                attempt.joins += 1
                if is_right:
                    attempt.pool.append(program)
            waiting = [one for one, batch in zip(waiting, batches, strict=True) if batch and not one.pool]

    def hunt(self, attempts: Sequence[Attempt], chances: Mapping[int, Sequence[float]]) -> None:
        """Draw completions, at most `labels.hunt` for a problem, and cross what fails, until a program passes.

        Args:
            chances: per response, P(first wrong code line = l); missing: every line is as likely.
        """
        rounds = math.ceil(self._settings.hunt / HUNT_ROUND)
        waiting = list(attempts)
        for _ in range(rounds):
            self._draw(waiting, chances)
            waiting = [attempt for attempt in waiting if not attempt.pool]
            self.cross(waiting, self._settings.crossover // rounds)
            waiting = [attempt for attempt in waiting if not attempt.pool]

    def _draw(self, attempts: Sequence[Attempt], chances: Mapping[int, Sequence[float]]) -> None:
        rows: list[_Draw] = []
        for attempt in attempts:
            for draw in range(attempt.completions, min(attempt.completions + HUNT_ROUND, self._settings.hunt)):
                number, line = self._place(attempt, chances)
                tried = attempt.failures.setdefault(number, {})
                tried[line] = tried.get(line, 0) + 1
                prefix = self._cuts[number].prefix(line) if line else ()
                rows.append(_Draw(attempt, number, line, prefix, draw))
        drawn = self._complete(rows)
        for row in rows:
            row.attempt.completions += 1
        found = [(row, ids) for row, ids in zip(rows, drawn, strict=True) if ids is not None]
        programs = [extract_code(self._text.decode((*row.prefix, *ids))) for row, ids in found]
        passed = self._judge([(program, row.attempt.name) for (row, _), program in zip(found, programs, strict=True)])
        for (row, ids), program, is_right in zip(found, programs, passed, strict=True):
            row.attempt.tokens += len(ids)
            row.attempt.executions += 1
            known = row.attempt.pool if is_right else row.attempt.texts
            if program not in known:
                known.append(program)
            if is_right and self._needed(row, program):
                self.proved[row.number] = max(self.proved.get(row.number, 0), row.line)

    def _place(self, attempt: Attempt, chances: Mapping[int, Sequence[float]]) -> tuple[int, int]:
        """The response and the line (0: from scratch) where the next completion is drawn, of those that leave room."""
        best, place = -1.0, (attempt.numbers[0], 0)
        for number in attempt.numbers:
            code = self._cuts[number].code
            wrong = chances.get(number) or [1 / len(code)] * len(code) if code else []
            tried, right = attempt.failures.get(number, {}), 1.0
            for done, line in enumerate([0, *code]):
                if line and len(self._cuts[number].prefix(line)) >= self._sampling.max_new_tokens:
                    break  # nor does any longer prefix leave room
                right -= wrong[done - 1] if done else 0.0
                failed = sum(count for at, count in tried.items() if at <= line)
                score = right * math.exp(-DECAY * (len(code) - done)) * AGAIN**failed
                if score > best:
                    best, place = score, (number, line)
        return place

    def _needed(self, row: _Draw, program: str) -> bool:
        """Whether a program that passes needs the prefix it was drawn behind."""
        if not row.line:
            return True
        lines = [line.text for line in code_lines(program)]
        reader = Reader.of(self._problems[row.attempt.name], [program])
        exempt = reader.unused([line.text for line in self._cuts[row.number].lines])
        without = reader.reductions("".join(f"{line}\n" for line in lines), range(1, row.line + 1), exempt)
        if without is None:
            return False
        row.attempt.executions += len(without)
        return not any(self._judge([(one, row.attempt.name) for one in without]))

    def _complete(self, rows: Sequence[_Draw]) -> list[tuple[int, ...] | None]:
        """Ids of one completion per row, one batch per checkpoint; None where they cannot be proved: what splicing
        claims rests on programs that were found, not on those that were not."""
        names = list(self._samplers)
        by_name: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            own = self._cuts[row.number].response.checkpoint
            chosen = {"own": own, "last": names[-1], "mixture": names[row.draw % len(names)]}[self._settings.completer]
            by_name.setdefault(chosen, []).append(index)
        completions: dict[int, tuple[int, ...]] = {}
        for name, members in by_name.items():
            chosen_rows = [rows[index] for index in members]
            drawn, refused = sample_proved(
                self._samplers[name],
                [self._cuts[row.number].response.prompt_ids + row.prefix for row in chosen_rows],
                seeds=[
                    derive_seed(self._seed, "hunt", row.attempt.name, name, row.prefix, row.draw) for row in chosen_rows
                ],
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                max_new_tokens=[self._sampling.max_new_tokens - len(row.prefix) for row in chosen_rows],
            )
            completions |= {index: tuple(item.token_ids) for index, item in zip(members, drawn, strict=True) if item}
            for place in refused:
                chosen_rows[place].attempt.refused += 1
        return [completions.get(index) for index in range(len(rows))]
