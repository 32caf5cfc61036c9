"""Labelling by several processes of this machine: workers pull units, a lost worker costs its running probes only.

    folder/units/<n>.jsonl     the journal of unit n

The labels and counts are those of one worker, or of `label_responses` on every unit in turn. Several machines:
`psgpo.labeling.on_ray`, which shares the journals: what one of the two began, the other goes on with.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling.collect import Progress
from psgpo.labeling.engine import Engine, LabelEngine, OpenEngine
from psgpo.labeling.scheduler import Labelling
from psgpo.labeling.units import Board, Task, Unit, make_units, only_labeller
from psgpo.records import Problem, Response

__all__ = ["LabelEngine", "OpenEngine", "WorkerError", "label_with_workers"]

PATIENCE = 10.0
"""Seconds a worker may take to end after its last unit."""


class WorkerError(RuntimeError):
    """A worker met a defect of this program; the message is its traceback."""


@dataclass(slots=True)
class _Worker:
    place: int
    """Number among the workers that are there at a time, from 0."""
    process: SpawnProcess
    line: Connection
    unit: Unit


def label_with_workers(
    responses: Sequence[Response],
    problems: Iterable[Problem],
    engine: Engine,
    settings: LabelSettings,
    sampling: SamplingSettings,
    seed: int,
    folder: Path | str,
    workers: int,
    progress: Progress | None = None,
) -> Labelling:
    """`label_responses`, by `workers` processes that open the engine each.

    Args:
        folder: holds the units' journals; the same call goes on where an earlier one ended.
        workers: processes; more than there are units are not started.
        progress: called with (responses labelled, responses in all).

    Raises:
        UserError: as `label_responses`; another process labels in the folder; a unit ended three workers in a row.
        WorkerError: a worker failed.
    """
    if workers < 1:
        raise UserError(f"workers = {workers}: at least one has to do the work")
    folder = Path(folder)
    units = make_units(responses, problems, engine.names, settings)
    task = Task(settings=settings, sampling=sampling, seed=seed)
    with only_labeller(folder):
        board = Board(units, folder, progress)
        _play(board, engine, task, workers)
        return board.result()


def _play(board: Board, engine: Engine, task: Task, workers: int) -> None:
    pool: list[_Worker] = []
    try:
        while board.left:
            while board.waiting and len(pool) < workers:
                taken = {worker.place for worker in pool}
                place = next(number for number in range(workers) if number not in taken)
                pool.append(_hire(board, engine, task, place))
            ready = wait([worker.line for worker in pool])
            for worker in [worker for worker in pool if worker.line in ready]:
                if not _hear(worker, board):
                    pool.remove(worker)
    finally:
        for worker in pool:
            worker.process.kill()
            worker.process.join()


def _hire(board: Board, engine: Engine, task: Task, place: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, engine, task, engine.environment(place)), name="psgpo-labels")
    process.start()
    there.close()  # so that the line ends with the worker
    worker = _Worker(place, process, here, board.take())
    _send(worker, board)
    return worker


def _send(worker: _Worker, board: Board) -> None:
    with contextlib.suppress(OSError):  # it is gone, which the next `_hear` finds out
        worker.line.send((worker.unit, board.journal(worker.unit)))


def _hear(worker: _Worker, board: Board) -> bool:
    """Take one message; False when the worker has nothing more to do, or is no more."""
    try:
        kind, value = worker.line.recv()
    except (EOFError, OSError):
        worker.process.join()
        board.lost(worker.unit, _end(worker.process.exitcode))
        return False
    if kind == "user":
        raise UserError(value)
    if kind == "defect":
        raise WorkerError(value)
    if kind == "progress":
        board.report(worker.unit, value)
        return True
    board.finish(worker.unit, value)
    if board.waiting:
        worker.unit = board.take()
        _send(worker, board)
        return True
    worker.line.close()  # the worker ends by itself
    worker.process.join(PATIENCE)
    worker.process.kill()
    worker.process.join()
    return False


def _end(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def _work(line: Connection, engine: Engine, task: Task, environment: Mapping[str, str]) -> None:
    """Body of a worker: open the engine, label the units that come down the line until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    _end_with_parent()
    try:
        os.environ.update(environment)  # before CUDA starts, which reads it once
        with engine.open() as opened:
            while True:
                unit, journal = line.recv()
                labelling = task.label(unit, opened, journal, lambda done, _: line.send(("progress", done)))
                line.send(("done", labelling))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        line.send(("user", str(error)))
    except Exception:
        line.send(("defect", traceback.format_exc()))


def _end_with_parent() -> None:
    """A worker whose parent was killed writes to no journal any more."""
    parent: Any = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="psgpo-parent", daemon=True).start()
