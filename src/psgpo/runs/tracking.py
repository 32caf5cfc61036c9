"""Metrics of a run in TensorBoard, W&B, trackio or MLflow, through accelerate's trackers.

`metrics.jsonl` of a stage stays the record: a tracker follows it and is sent every row once. How far it has come is
written in `tracking/<stage>.json`, and which run of a tracker it is in `tracking/<stage>.<tracker>`, so a stage that is
killed and goes on repeats nothing there. A stage that begins anew is a new run of the tracker. What a tracker cannot do
(a server that is down) never ends a training: it is said once, and the file has the rows.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.runs.directory import RunDirectory

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

    from psgpo.runs.work.shared import Progress

MODULES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
"""Tracker to the module it needs, named as its package is."""


def check_trackers(recipe: Recipe) -> None:
    """Refuse trackers that are not installed, before anything runs.

    Raises:
        UserError: with the command that installs what is missing.
    """
    missing = [MODULES[name] for name in recipe.tracking.to if importlib.util.find_spec(MODULES[name]) is None]
    if missing:
        raise UserError(f"tracking.to: {', '.join(missing)} not installed; run: pip install {' '.join(missing)}")


def metrics_file(run: Path, stage: str) -> Path | None:
    """Where a stage writes its metrics; None for one that trains nothing."""
    kind, _, name = stage.partition("-")
    folder = {"sft": run / "sft", "rl": run / "rl" / name, "prm": run / "prm" / name}.get(kind)
    return None if folder is None else folder / "metrics.jsonl"


@contextmanager
def followed(run: RunDirectory, stage: str, progress: Progress) -> Iterator[Progress]:
    """A progress callback that also sends the rows which the stage has written since; the rest when the body ends."""
    path = metrics_file(run.path, stage)
    if path is None or not run.recipe.tracking.to:
        yield progress
        return
    if not path.is_file():
        _forget(run, stage)
    follower = MetricsFollower(path, run.path / "tracking" / f"{stage}.json", lambda: open_trackers(run, stage))

    def report(done: int, total: int) -> None:
        follower.poll()
        progress(done, total)

    try:
        yield report
    finally:
        follower.poll()
        follower.close()


def _forget(run: RunDirectory, stage: str) -> None:
    """What was sent of this stage was sent of results that are gone: it begins anew, at its first step."""
    for file in (run.path / "tracking").glob(f"{stage}.*"):
        file.unlink()


def open_trackers(run: RunDirectory, stage: str) -> list[GeneralTracker]:
    """One started tracker for every name of the recipe. A stage is a run of the tracker, the recipe its project.

    Other runs of this recipe, here or on another machine, are other runs there too: W&B and trackio go on with a run by
    an id or a name, so it has a random part, which is kept. MLflow chooses its ids.
    """
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # accelerate's trackers ask it which process they are in
    recipe = run.recipe
    project = recipe.tracking.project or recipe.name
    folder = run.path / "tracking"
    kept = {name: folder / f"{stage}.{name}" for name in ("wandb", "trackio", "mlflow")}
    title = f"{run.path.resolve().name}-{stage}"
    # What an earlier try of a stage that begins anew has left there is not shown.
    anew = {} if (folder / f"{stage}.json").is_file() else {"purge_step": 0}
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "tensorboard": ((stage, folder / "tensorboard"), anew),
        "wandb": ((project,), {"name": title, "resume": "allow"}),
        "trackio": ((project,), {"resume": "allow"}),
        "mlflow": ((project,), {"run_name": title}),
    }
    if "wandb" in recipe.tracking.to:
        arguments["wandb"][1]["id"] = _once(kept["wandb"], secrets.token_hex(6))
    if "trackio" in recipe.tracking.to:
        arguments["trackio"][1]["name"] = _once(kept["trackio"], f"{title}-{secrets.token_hex(3)}")
    if kept["mlflow"].is_file():
        arguments["mlflow"][1]["run_id"] = kept["mlflow"].read_text(encoding="utf-8")
    trackers = []
    for name in recipe.tracking.to:
        positional, named = arguments[name]
        tracker = LOGGER_TYPE_TO_CLASS[name](*positional, **named)
        tracker.main_process_only = False  # whichever process has the stage opens it, and no other
        tracker.start()
        if name == "mlflow":
            _once(kept[name], tracker.tracker.info.run_id)
        if name != "tensorboard":  # hyperparameters are an empty second run there
            tracker.store_init_configuration(flat(recipe.model_dump(mode="json")))
        trackers.append(tracker)
    return trackers


def _once(file: Path, value: str) -> str:
    """What the file holds; `value`, written to it now, where there is none."""
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f"{file.name}.tmp")
        temporary.write_text(value, encoding="utf-8")
        temporary.replace(file)
    return file.read_text(encoding="utf-8")


class MetricsFollower:
    """Sends the rows of a metrics file on as they appear, each step once.

    Args:
        metrics: JSON Lines with a `step` each; may be cut back when a stage resumes.
        place: remembers the last step sent.
        opened: makes the trackers, once there is something to send.
    """

    def __init__(self, metrics: Path, place: Path, opened: Callable[[], list[GeneralTracker]]) -> None:
        self._metrics, self._place, self._open = metrics, place, opened
        self._trackers: list[GeneralTracker] | None = None
        self._broken = False
        self._read = 0
        """Bytes of the file that have been read."""
        self._file: int | None = None
        """Which file that was: a stage that resumes replaces it."""
        try:
            self._sent = int(json.loads(place.read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError):
            self._sent = -1

    def poll(self) -> None:
        """Send what is new."""
        if self._broken or not self._metrics.is_file():
            return
        try:
            new = [row for row in self._rows() if row["step"] > self._sent]
            if new and self._trackers is None:
                self._trackers = self._open()
            for row in new:
                assert self._trackers is not None
                values = {key: value for key, value in row.items() if key != "step" and value is not None}
                for tracker in self._trackers:
                    tracker.log(values, step=row["step"])
        except Exception as error:  # a tracker may fail in any way; training goes on
            self._broken = True
            print(f"psgpo: tracking ends ({type(error).__name__}: {error}); {self._metrics} has all", file=sys.stderr)
            return
        if new:
            self._sent = new[-1]["step"]
            write_json(self._place, {"step": self._sent})

    def _rows(self) -> list[dict[str, Any]]:
        found = self._metrics.stat()
        if found.st_ino != self._file or found.st_size < self._read:
            self._file, self._read = found.st_ino, 0
        if found.st_size == self._read:
            return []
        with self._metrics.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]  # the last row may be half written
        self._read += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.split(b"\n")] if whole else []

    def close(self) -> None:
        """Flush and end the tracker's runs."""
        for tracker in self._trackers or []:
            try:
                tracker.finish()
            except Exception as error:  # as above
                print(f"psgpo: tracking ends ({type(error).__name__}: {error})", file=sys.stderr)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str | float | int | bool | None]:
    """Nested settings as one level of dotted keys; lists as text.

    >>> flat({"rl": {"steps": 2, "mix": [1, 2]}})
    {'rl.steps': 2, 'rl.mix': '[1, 2]'}
    """
    found: dict[str, str | float | int | bool | None] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return found
