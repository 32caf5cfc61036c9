"""Labelling by workers on a Ray cluster: several machines, no shared disk.

Actors pull units. What a worker has finished comes to the driver round by round, and the driver writes the unit's
journal; a worker that is lost costs the rounds it was at, and the next one is handed the journal. Journals, labels and
counts are those of `psgpo.labeling.fanout`. Needs `pip install 'psgpo[ray]'`.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.jsonl import JsonlAppender
from psgpo.labeling.collect import Progress
from psgpo.labeling.engine import Engine, OpenEngine
from psgpo.labeling.scheduler import Labelling
from psgpo.labeling.units import Board, Task, Unit, make_units, only_labeller
from psgpo.records import Problem, Response


@dataclass(frozen=True, slots=True)
class News:
    """What a worker has to tell about its unit."""

    done: int = 0
    """Responses labelled."""
    recorded: bytes = b""
    """Lines that its journal gained."""
    labelling: Labelling | None = None
    """Comes last."""
    refused: str = ""
    """Message of a `UserError`."""


def label_on_ray(
    responses: Sequence[Response],
    problems: Iterable[Problem],
    engine: Engine,
    settings: LabelSettings,
    sampling: SamplingSettings,
    seed: int,
    folder: Path | str,
    workers: int,
    progress: Progress | None = None,
    *,
    address: str | None = None,
) -> Labelling:
    """`label_with_workers` by actors of a Ray cluster.

    Args:
        engine: opened by every actor, so its folders must lie at the same places on every machine. An actor takes one
            CPU and `engine.gpus` GPUs.
        folder: of the driver; holds the units' journals.
        workers: actors, at most.
        address: of the cluster, such as `auto` or `ray://HOST:10001`; None: the one this process is connected to, else
            a new one on this machine.

    Raises:
        UserError: as `label_with_workers`; Ray is not installed; no machine of the cluster has room for a worker.
        ray.exceptions.RayError: a worker met a defect of this program.
    """
    if workers < 1:
        raise UserError(f"workers = {workers}: at least one has to do the work")
    try:
        import ray
    except ImportError:
        raise UserError("labelling on a cluster needs Ray: pip install 'psgpo[ray]'") from None
    folder = Path(folder)
    units = make_units(responses, problems, engine.names, settings)
    task = Task(settings=settings, sampling=sampling, seed=seed)
    own = not ray.is_initialized()
    if own:
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise UserError(
                f"no Ray cluster at {address!r} ({' '.join(str(error).split())[:200]}); start one: ray start --head"
            ) from None
    try:
        _check_room(ray, engine)
        with only_labeller(folder):
            board = Board(units, folder, progress)
            _Crew(board, engine, task, workers).play()
            return board.result()
    finally:
        if own:
            ray.shutdown()


def _check_room(ray: Any, engine: Engine) -> None:
    needs = {"CPU": 1.0} | ({"GPU": engine.gpus} if engine.gpus else {})
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= amount for name, amount in needs.items()) for node in nodes):
        raise UserError(f"no machine of the Ray cluster has {needs}; start one that has (`ray start`)")


def stream_unit(task: Task, unit: Unit, opened: OpenEngine, recorded: bytes) -> Iterator[News]:
    """Label a unit that may have begun elsewhere; the journal's new lines come out as soon as they are written.

    Args:
        recorded: the journal so far, whole lines.
    """
    news: queue.SimpleQueue[News | BaseException] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="psgpo-unit-") as scratch:
        journal = Path(scratch) / "journal.jsonl"
        journal.write_bytes(recorded)
        told = len(recorded)

        def added() -> bytes:
            nonlocal told
            with journal.open("rb") as stream:
                stream.seek(told)
                lines = stream.read()
            told += len(lines)
            return lines

        def work() -> None:
            try:
                labelling = task.label(unit, opened, journal, lambda done, _: news.put(News(done, added())))
                news.put(News(len(unit.responses), added(), labelling))
            except UserError as error:
                news.put(News(refused=str(error)))
            except BaseException as error:
                news.put(error)

        worker = threading.Thread(target=work, name="psgpo-unit", daemon=True)
        worker.start()
        while True:
            item = news.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if item.labelling is not None or item.refused:
                worker.join()
                return


class Worker:
    """Body of an actor: holds an open engine."""

    def __init__(self, engine: Engine, task: Task) -> None:
        self._task = task
        self._refused = ""
        self._open = ExitStack()  # kept as long as the actor: a context that nobody holds is closed, its sandbox too
        try:
            self._opened = self._open.enter_context(engine.open())
        except UserError as error:
            self._refused = str(error)

    def label(self, unit: Unit, recorded: bytes) -> Iterator[News]:
        """See `stream_unit`."""
        if self._refused:
            yield News(refused=self._refused)
        else:
            yield from stream_unit(self._task, unit, self._opened, recorded)


@dataclass(slots=True)
class _Hand:
    actor: Any
    unit: Unit
    stream: Any
    """Ray's generator of references to `News`."""


class _Crew:
    """The actors and what they are at."""

    def __init__(self, board: Board, engine: Engine, task: Task, workers: int) -> None:
        import ray

        self._ray: Any = ray
        self._board, self._workers = board, workers
        remote: Any = ray.remote  # its types depend on what is installed
        kind = remote(num_cpus=1, num_gpus=engine.gpus, max_restarts=0)(Worker)
        self._hire: Callable[[], Any] = lambda: kind.remote(engine, task)
        self._hands: list[_Hand] = []

    def play(self) -> None:
        """Until every unit is done."""
        try:
            while self._board.left:
                while self._board.waiting and len(self._hands) < self._workers:
                    self._hands.append(self._give(self._hire(), self._board.take()))
                streams = [hand.stream for hand in self._hands]
                ready, _ = self._ray.wait(streams, num_returns=1, fetch_local=False)
                for hand in [hand for hand in self._hands if hand.stream in ready]:
                    self._hear(hand)
        finally:
            for hand in self._hands:
                self._ray.kill(hand.actor)

    def _give(self, actor: Any, unit: Unit) -> _Hand:
        journal = self._board.journal(unit)
        JsonlAppender(journal).close()  # cuts a torn last line off
        stream = actor.label.options(num_returns="streaming").remote(unit, journal.read_bytes())
        return _Hand(actor, unit, stream)

    def _hear(self, hand: _Hand) -> None:
        """Take one piece of news."""
        errors = self._ray.exceptions
        try:
            news: News = self._ray.get(next(hand.stream))
        except errors.RayTaskError:
            raise  # a defect, not a lost worker
        except (errors.RayError, StopIteration) as error:
            self._hands.remove(hand)
            self._ray.kill(hand.actor)
            self._board.lost(hand.unit, type(error).__name__)
            return
        if news.refused:
            raise UserError(news.refused)
        with self._board.journal(hand.unit).open("ab") as journal:
            journal.write(news.recorded)
        self._board.report(hand.unit, news.done)
        if news.labelling is None:
            return
        self._board.finish(hand.unit, news.labelling)
        self._hands.remove(hand)
        if self._board.waiting:
            self._hands.append(self._give(hand.actor, self._board.take()))
        else:
            self._ray.kill(hand.actor)
