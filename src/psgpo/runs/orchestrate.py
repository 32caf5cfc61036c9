"""Carry out a recipe: every stage in a process of its own, as many side by side as the recipe allows.

Stages are forked from one server process that has loaded PyTorch and transformers: loading them takes seconds of CPU,
and a run has some twenty stages. Processes that a launcher started carry it out in another way
(`psgpo.runs.together`).
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from rich.console import Console
from rich.progress import TaskID

from psgpo.errors import UserError, reported
from psgpo.parallel.launch import launched
from psgpo.runs.directory import RunDirectory
from psgpo.runs.labelled import check_labelled
from psgpo.runs.progress import StageProgress, bars, read_progress
from psgpo.runs.stages import Stage, run_stage, stage_graph, startable, wanted_stages
from psgpo.runs.tracking import check_trackers

LEAST_FREE_BYTES = 1 << 20
"""A stage that dies with less room than this on the run's disk died of that, whatever its libraries called it."""


class StageError(RuntimeError):
    """A stage ended with an error; the message holds the end of its log."""


@dataclass(kw_only=True)
class _Running:
    stage: Stage
    process: ForkServerProcess
    started: float
    task: TaskID
    heard: float


def run_stages(run: RunDirectory, targets: list[str] | None = None) -> None:
    """Run the stages that are not done yet, each after those it needs. `targets`: only these and what they need.

    Progress goes to standard error: bars on a terminal, else a line per start, end and quarter minute.

    Raises:
        UserError: a stage refused its input (its own message), or a target is no stage of the recipe.
        StageError: a stage crashed; the others in progress are stopped. Running again resumes.
    """
    check_trackers(run.recipe)
    if launched():
        from psgpo.runs.together import run_together  # loads torch

        run_together(run, targets)
        return
    todo = stages_to_do(run, targets)
    running: list[_Running] = []
    console = Console(stderr=True, highlight=False, markup=False)
    try:
        with bars() as display:
            while todo or running:
                for stage in startable(run, todo.values())[: max(0, run.recipe.processes - len(running))]:
                    del todo[stage.name]
                    process = _start(run, stage)
                    task = display.add_task(stage.name, total=None)
                    now = time.monotonic()
                    running.append(_Running(stage=stage, process=process, started=now, task=task, heard=now))
                    if not console.is_terminal:
                        console.print(f"  {stage.name}: started")
                time.sleep(0.2)
                for item in list(running):
                    status = read_progress(run.path, item.stage.name)
                    if status:
                        display.update(item.task, completed=status[0], total=status[1])
                    code = item.process.exitcode
                    if code is not None:
                        running.remove(item)
                        display.remove_task(item.task)
                        if code != 0:
                            _raise_for(run, item.stage, code)
                        console.print(f"  {item.stage.name}: done in {time.monotonic() - item.started:.0f} s")
                    elif not console.is_terminal and status and time.monotonic() - item.heard > 15:
                        item.heard = time.monotonic()
                        console.print(_line(item, *status))
    except KeyboardInterrupt:
        console.print("psgpo: interrupted; run the same command again to go on")
        raise
    finally:
        for item in running:
            item.process.terminate()
        for item in running:
            item.process.join()


def stages_to_do(run: RunDirectory, targets: list[str] | None) -> dict[str, Stage]:
    """Stages that are not done and are wanted, in order; see `run_stages`.

    Raises:
        UserError: a target is no stage, or responses of a policy that is not there are to be labelled.
    """
    graph = stage_graph(run.recipe)
    wanted = wanted_stages(graph, targets)
    todo = {name: stage for name, stage in wanted.items() if not run.stage_done(name)}
    if any(name.split("-")[0] in ("responses", "labels") for name in todo):
        check_labelled(run.recipe)
    if todo and targets is None:
        # A report is of everything that is there, so anything new makes a new one.
        run.outdate_report()
        todo["report"] = graph["report"]
    return todo


def _start(run: RunDirectory, stage: Stage) -> ForkServerProcess:
    log = run.path / "logs" / f"{stage.name}.log"
    log.parent.mkdir(exist_ok=True)
    (run.path / "progress" / f"{stage.name}.json").unlink(missing_ok=True)
    # Stages share the cores by running side by side: one thread each wastes none of them on waiting. Read by the
    # server when it starts, before PyTorch does.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["psgpo.runs.work"])
    process = context.Process(target=_stage_process, args=(run, stage.name, log))
    process.start()
    return process


def _stage_process(run: RunDirectory, name: str, log: Path) -> None:
    """Body of a stage's process: output goes to its log, errors end as exit codes (see `psgpo.errors.reported`)."""
    with log.open("ab", buffering=0) as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with reported():
        run_stage(run, name, StageProgress(run.path, name))


def _end_with_parent() -> None:
    """A stage whose command was killed would train on, hold its lock and its GPU, and nobody would know its name."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _raise_for(run: RunDirectory, stage: Stage, code: int) -> None:
    log = run.path / "logs" / f"{stage.name}.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if code == 2 and lines:
        raise UserError(f"{stage.name}: {lines[-1].removeprefix('psgpo: ')}")
    if shutil.disk_usage(run.path).free < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, "no space left", str(run.path))
    reason = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
    tail = "\n".join(f"    {line}" for line in lines[-12:])
    raise StageError(f"stage {stage.name} {reason}; the whole log is {log}. Run the same command to go on.\n{tail}")


def _line(item: _Running, done: int, total: int) -> str:
    elapsed = time.monotonic() - item.started
    left = f", about {elapsed / done * (total - done):.0f} s left" if done else ""
    return f"  {item.stage.name}: {done}/{total} in {elapsed:.0f} s{left}"
