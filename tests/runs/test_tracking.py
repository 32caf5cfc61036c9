"""Metrics reach their trackers: every row once, whatever is killed or breaks on the way."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate.tracking
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.jsonl import JsonlAppender, write_jsonl
from psgpo.runs import tracking
from psgpo.runs.directory import RunDirectory
from psgpo.runs.tracking import MetricsFollower, check_trackers, followed


class Recorder:
    """A tracker that keeps what it is sent."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.finished = False
        self._fail_at = fail_at

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if step == self._fail_at:
            raise ConnectionError("the server is gone")
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished = True


def follow(folder: Path, recorder: Recorder) -> MetricsFollower:
    return MetricsFollower(folder / "metrics.jsonl", folder / "tracking" / "sft.json", lambda: [recorder])  # type: ignore[list-item]


def test_rows_are_sent_as_they_appear_and_empty_values_left_out(tmp_path: Path) -> None:
    recorder = Recorder()
    follower = follow(tmp_path, recorder)
    follower.poll()  # nothing is written yet
    log = JsonlAppender(tmp_path / "metrics.jsonl")
    log.append({"step": 0, "loss": 2.0, "train_loss": None})
    follower.poll()
    log.append({"step": 1, "loss": 1.0})
    log.append({"step": 2, "loss": 0.5})
    follower.poll()
    follower.poll()
    follower.close()
    assert recorder.rows == [(0, {"loss": 2.0}), (1, {"loss": 1.0}), (2, {"loss": 0.5})]
    assert recorder.finished


def test_half_a_row_waits_for_its_end(tmp_path: Path) -> None:
    recorder = Recorder()
    follower = follow(tmp_path, recorder)
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    follower.poll()
    with file.open("a") as stream:
        stream.write('ss": 0.5}\n')
    follower.poll()
    assert recorder.rows == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]


def test_a_stage_that_goes_on_after_a_kill_sends_no_step_twice(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 6)]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    follow(tmp_path, first).poll()  # killed at step 5 ...
    after = follow(tmp_path, second)
    write_jsonl(tmp_path / "metrics.jsonl", rows[:3])  # ... and resumed from the state of step 3
    after.poll()
    write_jsonl(tmp_path / "metrics.jsonl", [*rows, {"step": 6, "loss": 0.1}])
    after.poll()
    assert [step for step, _ in first.rows] == [1, 2, 3, 4, 5]
    assert [step for step, _ in second.rows] == [6]


def test_a_tracker_that_fails_ends_the_tracking_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(fail_at=2)
    follower = follow(tmp_path, recorder)
    write_jsonl(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
    follower.poll()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3}\n')
    follower.poll()
    assert [step for step, _ in recorder.rows] == [1]
    said = capsys.readouterr().err
    assert said.count("tracking ends (ConnectionError: the server is gone)") == 1
    assert "metrics.jsonl has all" in said


def test_tensorboard_gets_a_run_per_stage(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run"}))
    seen: list[int] = []
    with followed(run, "rl-baseline", lambda done, _: seen.append(done)) as progress:
        (run.path / "rl" / "baseline").mkdir(parents=True)
        log = JsonlAppender(run.path / "rl" / "baseline" / "metrics.jsonl")
        for step in (1, 2):
            log.append({"step": step, "pass_rate": step / 4, "kl": None})
            progress(step, 2)
        log.append({"step": 3, "pass_rate": 0.75, "kl": 0.5})  # after the last progress
    events = EventAccumulator(str(run.path / "tracking" / "tensorboard" / "rl-baseline")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("pass_rate")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert [(e.step, e.value) for e in events.Scalars("kl")] == [(3, 0.5)]
    assert seen == [1, 2]
    assert json.loads((run.path / "tracking" / "rl-baseline.json").read_text()) == {"step": 3}


def test_nothing_is_written_where_nothing_is_tracked(tmp_path: Path, tiny_recipe: Recipe) -> None:
    off = tiny_recipe.tracking.model_copy(update={"to": ()})
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run", "tracking": off}))
    write_jsonl(run.path / "sft" / "metrics.jsonl", [{"step": 1, "loss": 1.0}])
    with followed(run, "sft", lambda done, total: None) as progress:
        progress(1, 1)
    assert not (run.path / "tracking").exists()


def test_a_tracker_that_is_not_installed_is_refused_with_its_command(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tracking.MODULES, "mlflow", "a_module_that_nobody_has")
    chosen = tiny_recipe.tracking.model_copy(update={"to": ("tensorboard", "mlflow")})
    with pytest.raises(UserError, match="pip install a_module_that_nobody_has"):
        check_trackers(tiny_recipe.model_copy(update={"tracking": chosen}))


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_the_real_tracker_takes_the_rows_and_goes_on_after_a_kill(
    name: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    pytest.importorskip(name, reason=f"pip install {name}")  # reads its environment now
    chosen = tiny_recipe.tracking.model_copy(update={"to": (name,)})
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run", "tracking": chosen}))
    log = JsonlAppender(run.path / "sft" / "metrics.jsonl")
    for step in (1, 2):  # two processes of one stage
        log.append({"step": step, "loss": 1.0 / step, "empty": None})
        with followed(run, "sft", lambda done, total: None):
            pass
    assert json.loads((run.path / "tracking" / "sft.json").read_text()) == {"step": 2}
    if name == "mlflow":
        (losses,) = tmp_path.glob("mlruns/*/*/metrics/loss")
        assert [row.split()[1:] for row in losses.read_text().splitlines()] == [["1.0", "1"], ["0.5", "2"]]
    else:
        assert list(tmp_path.glob("wandb/offline-run-*/*.wandb" if name == "wandb" else "trackio/*.db"))


def test_rows_without_a_step_end_the_tracking_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n')
    follower = follow(tmp_path, Recorder())
    follower.poll()
    follower.poll()
    assert capsys.readouterr().err.count("tracking ends (KeyError: 'step')") == 1


class Named(Recorder):
    """Also keeps what it was made with; as a class, one per tracker."""

    main_process_only = False

    def __init__(self, made: list[dict[str, Any]], *positional: Any, **named: Any) -> None:
        super().__init__()
        made.append({"positional": positional} | named)
        self.tracker = SimpleNamespace(info=SimpleNamespace(run_id=f"chosen-{len(made)}"))

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(("name", "key"), [("wandb", "id"), ("trackio", "name"), ("mlflow", "run_id")])
def test_a_trackers_run_belongs_to_one_stage_of_one_run(
    name: str, key: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill goes on with it; another run of the recipe, and a stage that begins anew, do not."""
    made: list[dict[str, Any]] = []
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, name, partial(Named, made))
    chosen = tiny_recipe.tracking.model_copy(update={"to": (name,)})

    def track(folder: str, *, anew: bool = False) -> dict[str, Any]:
        run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / folder, "tracking": chosen}))
        metrics = run.path / "sft" / "metrics.jsonl"
        if anew:
            metrics.unlink()
        with followed(run, "sft", lambda done, total: None):
            done = len(metrics.read_text().splitlines()) if metrics.is_file() else 0
            JsonlAppender(metrics).append({"step": done, "loss": 1.0})
        assert json.loads((run.path / "tracking" / "sft.json").read_text()) == {"step": done}
        return made[-1]

    first, second = track("one"), track("one")
    other, anew = track("two"), track("one", anew=True)
    identities = [one.get(key) for one in (first, second, other, anew)]
    if name == "mlflow":  # it chooses; psgpo names what it chose
        assert identities == [None, "chosen-1", None, None]
    else:
        assert identities[0] == identities[1]
        assert len(set(identities)) == 3
    assert "one-sft" in str(first)
    assert "two-sft" in str(other)


def test_tensorboard_shows_a_stage_that_began_anew_alone(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run"}))
    metrics = run.path / "sft" / "metrics.jsonl"
    for losses in ([4.0, 3.0, 2.0], [5.0, 1.0]):
        metrics.unlink(missing_ok=True)
        with followed(run, "sft", lambda done, total: None):
            write_jsonl(metrics, [{"step": step, "loss": loss} for step, loss in enumerate(losses)])
    events = EventAccumulator(str(run.path / "tracking" / "tensorboard" / "sft")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(0, 5.0), (1, 1.0)]
