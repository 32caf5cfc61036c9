"""Progress of a stage: one small file that anybody can watch, and bars for those in front of a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="dim")


class StageProgress:
    """Callable as `progress(done, total)`: writes `progress/<stage>.json` a few times a second and draws a bar."""

    def __init__(self, run: Path, stage: str, *, draw: Progress | None = None) -> None:
        self.path = run / "progress" / f"{stage}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._draw = draw
        self._task: TaskID | None = draw.add_task(stage, total=None) if draw else None
        self._written = 0.0

    def __call__(self, done: int, total: int) -> None:
        if self._draw and self._task is not None:
            self._draw.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if done >= total or now - self._written > 0.25:
            self._written = now
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps({"done": done, "total": total}), encoding="utf-8")
            temporary.replace(self.path)


def read_progress(run: Path, stage: str) -> tuple[int, int] | None:
    """(done, total) that the stage last reported; None when it has not reported yet."""
    try:
        record = json.loads((run / "progress" / f"{stage}.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return int(record["done"]), int(record["total"])


@contextmanager
def bars() -> Iterator[Progress]:
    """Bars with count, rate, elapsed and remaining time, on standard error. Silent when that is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        yield progress


def drawn_on(display: Progress) -> Callable[[str, int, int], None]:
    """A bar for each thing that is going on, made when it is first reported: progress(what, done, total)."""
    tasks: dict[str, TaskID] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = display.add_task(what, total=total)
        display.update(tasks[what], completed=done, total=total)

    return progress
