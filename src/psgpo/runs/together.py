"""Carry out a recipe in processes that a launcher started, one for each GPU: no process is made here.

A training is worked on by all of them, one training after the other. Every other stage is one process's; those that
can start are dealt out, so that shards are labelled and policies evaluated on as many GPUs as there are.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console

from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.parallel.team import Team, current_team
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import stages_to_do
from psgpo.runs.progress import StageProgress
from psgpo.runs.stages import Stage, run_stage, stage_graph, startable

SPOKEN_EVERY = 15.0
"""Seconds between two lines about one stage."""


def run_together(run: RunDirectory, targets: list[str] | None) -> None:
    """As `psgpo.runs.orchestrate.run_stages`; called by all processes.

    Raises:
        UserError: the launcher was told what the recipe does not say, or the recipe wants vLLM.
    """
    check_launcher(run.recipe)
    team = current_team()
    todo = team.on_main(lambda: list(stages_to_do(run, targets)))
    graph = stage_graph(run.recipe)
    while todo:
        # Whatever this process sees on the disk, all start the same.
        ready = team.on_main(partial(_ready, run, [graph[name] for name in todo]))
        # Trainings first: the other stages gather meanwhile, and more of them can be dealt out at once.
        now = [name for name in ready if graph[name].together][:1]
        if now:
            _work_along(run, graph[now[0]], team)
        else:
            now = ready
            for name in now[team.rank :: team.size]:
                _work(run, name)
        team.wait()
        todo = [name for name in todo if name not in now]


def check_launcher(recipe: Recipe) -> None:
    """Refuse what would be left undone without a word.

    Raises:
        UserError: options of `accelerate launch` that differ from the recipe; vLLM, which makes processes of its own.
    """
    if recipe.sampling.engine != "transformers":
        raise UserError("sampling.engine = 'vllm' draws for one process; under a launcher set 'transformers'")
    told = {key: os.environ.get(f"ACCELERATE_{key}", "").lower() for key in ("USE_FSDP", "USE_DEEPSPEED")}
    if told["USE_DEEPSPEED"] == "true":
        raise UserError("accelerate launch --use_deepspeed: not used here; launch with --multi_gpu")
    if told["USE_FSDP"] == "true" and recipe.parallel.strategy != "fsdp":
        raise UserError("accelerate launch --use_fsdp: here the recipe says it; set parallel.strategy = 'fsdp'")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and (precision, recipe.model.dtype) != ("bf16", "bfloat16"):
        raise UserError(
            f"accelerate launch --mixed_precision {precision}: here the recipe says it, and has "
            f"model.dtype = '{recipe.model.dtype}' ('bfloat16' is bf16); change one of them"
        )


def _ready(run: RunDirectory, todo: list[Stage]) -> list[str]:
    ready = [stage.name for stage in startable(run, todo)]
    assert ready, f"none of {todo} can start"
    return ready


def _work(run: RunDirectory, name: str, announce: Callable[[bool], object] | None = None) -> None:
    with _logged(run.path / "logs" / f"{name}.log") as terminal:
        spoken = _Spoken(run, name, terminal)
        run_stage(run, name, spoken, announce=announce)
        spoken.say(f"done in {time.monotonic() - spoken.started:.0f} s")


def _work_along(run: RunDirectory, stage: Stage, team: Team) -> None:
    """A training. The main process holds its lock, and says whether another command has not finished it meanwhile."""

    if team.is_main:
        _work(run, stage.name, announce=lambda left: team.on_main(lambda: left))
    elif team.on_main(lambda: False):  # what the main process announces
        with _logged(run.path / "logs" / f"{stage.name}.log"):
            stage.work(run, lambda done, total: None)


@contextmanager
def _logged(log: Path) -> Iterator[TextIO]:
    """What the body and its processes print goes to the log; the standard error from before."""
    log.parent.mkdir(exist_ok=True)
    sys.stdout.flush()
    before = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with log.open("ab", buffering=0) as stream:
            for descriptor in (1, 2):
                os.dup2(stream.fileno(), descriptor)
        with os.fdopen(os.dup(before[1]), "w") as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        for descriptor, old in zip((1, 2), before, strict=True):
            os.dup2(old, descriptor)
            os.close(old)


class _Spoken:
    """Progress of a stage: its file, and now and then a line on standard error."""

    def __init__(self, run: RunDirectory, name: str, terminal: TextIO) -> None:
        self._name = name
        self._file = StageProgress(run.path, name)
        self._console = Console(file=terminal, highlight=False, markup=False)
        self.started = self._heard = time.monotonic()
        self.say("started")

    def __call__(self, done: int, total: int) -> None:
        self._file(done, total)
        if time.monotonic() - self._heard > SPOKEN_EVERY:
            self._heard = time.monotonic()
            self.say(f"{done}/{total} in {self._heard - self.started:.0f} s")

    def say(self, what: str) -> None:
        self._console.print(f"  {self._name}: {what}")
