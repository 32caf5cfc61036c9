"""Units of labelling: whole problems, labelled apart, each with a journal of its own; and what becomes of them.

A unit is what one worker holds at a time. How the responses fall into units depends on the responses and one number,
never on the workers, so the labels do not depend on these either. On the units they do where `splice` labels by its
prior, which is fitted on one unit.
"""

from __future__ import annotations

import fcntl
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling.collect import Progress
from psgpo.labeling.costs import merge_usage
from psgpo.labeling.engine import OpenEngine
from psgpo.labeling.request import check_request
from psgpo.labeling.scheduler import Labelling, label_responses
from psgpo.records import LineLabels, Problem, Response

DEATHS = 3
"""Workers that a unit may lose without having finished a round in between."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Responses of a few problems."""

    number: int
    places: tuple[int, ...]
    """Positions of the responses in the whole list."""
    responses: tuple[Response, ...]
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        names = dict.fromkeys(response.problem_id for response in self.responses)
        return f"unit {self.number} ({len(self.responses)} responses to {len(names)} problems from {min(names)!r} on)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What all units have in common."""

    settings: LabelSettings
    sampling: SamplingSettings
    seed: int

    def label(self, unit: Unit, opened: OpenEngine, journal: Path, progress: Progress | None = None) -> Labelling:
        """Label one unit in this process."""
        return label_responses(
            unit.responses,
            unit.problems,
            samplers=opened.samplers,
            tokenizer=opened.tokenizer,
            sandbox=opened.sandbox,
            surprise=opened.surprise,
            settings=self.settings,
            sampling=self.sampling,
            seed=self.seed,
            journal=journal,
            progress=progress,
        )


def make_units(
    responses: Sequence[Response], problems: Iterable[Problem], names: Sequence[str], settings: LabelSettings
) -> list[Unit]:
    """Problems in the order of their first response, until a unit has `labels.unit` responses.

    Raises:
        UserError: a response cannot be labelled with what was given.
    """
    by_id = {problem.id: problem for problem in problems}
    check_request(responses, by_id, names, settings)
    members: dict[str, list[int]] = {}
    for place, response in enumerate(responses):
        members.setdefault(response.problem_id, []).append(place)
    chunks: list[list[str]] = [[]]
    for problem_id in members:
        if sum(len(members[name]) for name in chunks[-1]) >= settings.unit:
            chunks.append([])
        chunks[-1].append(problem_id)
    units = []
    for number, chunk in enumerate(chunks, start=1):
        places = tuple(sorted(place for name in chunk for place in members[name]))
        units.append(Unit(number, places, tuple(responses[p] for p in places), tuple(by_id[name] for name in chunk)))
    return units


@contextmanager
def only_labeller(folder: Path) -> Iterator[None]:
    """Make the folder and hold it.

    Raises:
        UserError: another process labels here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is labelling here; wait for it or choose a folder") from None
        yield


class Board:
    """Who does what: units that wait, what was lost, what is done."""

    def __init__(self, units: Sequence[Unit], folder: Path, progress: Progress | None) -> None:
        self._units, self._progress = units, progress
        self._folder = folder / "units"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._waiting = deque(units)
        self._deaths: dict[int, int] = {}
        self._rounds: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._results: dict[int, Labelling] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def left(self) -> int:
        return len(self._units) - len(self._results)

    def journal(self, unit: Unit) -> Path:
        return self._folder / f"{unit.number}.jsonl"

    def take(self) -> Unit:
        """The next unit that waits."""
        unit = self._waiting.popleft()
        self._rounds[unit.number] = self._recorded(unit)
        return unit

    def report(self, unit: Unit, done: int) -> None:
        """So many of the unit's responses are labelled."""
        self._done[unit.number] = max(done, self._done.get(unit.number, 0))
        if self._progress is not None:
            self._progress(sum(self._done.values()), sum(len(unit.responses) for unit in self._units))

    def finish(self, unit: Unit, labelling: Labelling) -> None:
        self._results[unit.number] = labelling
        self.report(unit, len(unit.responses))

    def lost(self, unit: Unit, reason: str) -> None:
        """The unit's worker is gone: the unit is next, and its rounds are kept.

        Raises:
            UserError: it happened too often without a round in between; the unit itself may be what ends workers.
        """
        went_on = self._recorded(unit) > self._rounds[unit.number]
        self._deaths[unit.number] = 1 if went_on else self._deaths.get(unit.number, 0) + 1
        if self._deaths[unit.number] >= DEATHS:
            raise UserError(
                f"{unit}: {DEATHS} workers in a row died before they finished a round of it ({reason}); look at memory "
                f"and at its responses. What was done is in {self.journal(unit)}"
            )
        self._waiting.appendleft(unit)

    def result(self) -> Labelling:
        """Labels in the order of the responses."""
        labels: dict[int, LineLabels] = {}
        for unit in self._units:
            labels |= zip(unit.places, self._results[unit.number].labels, strict=True)
        usages = [self._results[unit.number].usage for unit in self._units]
        return Labelling(labels=[labels[place] for place in range(len(labels))], usage=merge_usage(usages))

    def _recorded(self, unit: Unit) -> int:
        path = self.journal(unit)
        return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0
