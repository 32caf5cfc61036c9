"""Several workers on units: the labels of one, whoever dies."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import labeling_world as world
import pytest

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling import Labelling, merge_usage
from psgpo.labeling.engine import LabelEngine, OpenEngine, gpu_of, visible_gpus
from psgpo.labeling.fanout import WorkerError, label_with_workers
from psgpo.labeling.journal import MEASURES
from psgpo.labeling.units import Board, Task, make_units

PROBLEMS, RESPONSES = world.random_responses(72, seed=3, checkpoints=("one", "two"))
SETTINGS = LabelSettings(k=6, draw=2, in_flight=8, fill=False, unit=20)
SAMPLING = SamplingSettings(max_new_tokens=200)
TASK = Task(settings=SETTINGS, sampling=SAMPLING, seed=7)


def fan_out(folder: Path, engine: Any = None, workers: int = 2, **changes: Any) -> Labelling:
    settings = SETTINGS.model_copy(update=changes.pop("settings", {}))
    responses, problems = changes.pop("responses", RESPONSES), changes.pop("problems", PROBLEMS)
    engine = engine or world.WorldEngine()
    return label_with_workers(responses, problems, engine, settings, SAMPLING, 7, folder, workers, **changes)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Labelling:
    """Every unit in turn, in this process."""
    folder = tmp_path_factory.mktemp("alone")
    board = Board(make_units(RESPONSES, PROBLEMS, ("one", "two"), SETTINGS), folder, None)
    with world.WorldEngine().open() as opened:
        while board.waiting:
            unit = board.take()
            board.finish(unit, TASK.label(unit, opened, board.journal(unit)))
    return board.result()


def counts(labelling: Labelling) -> Any:
    return dataclasses.replace(labelling.usage, **dict.fromkeys(MEASURES, 0))


def test_units_are_whole_problems_in_order() -> None:
    units = make_units(RESPONSES, PROBLEMS, ("one", "two"), SETTINGS)
    assert [unit.number for unit in units] == [1, 2, 3, 4]
    assert [len(unit.responses) for unit in units] == [20, 20, 20, 12]
    assert sorted(place for unit in units for place in unit.places) == list(range(72))
    assert all(unit.responses == tuple(RESPONSES[place] for place in unit.places) for unit in units)
    names = [{response.problem_id for response in unit.responses} for unit in units]
    assert [{problem.id for problem in unit.problems} for unit in units] == names
    assert sum(map(len, names)) == len(set.union(*names))
    assert "unit 1 (20 responses to 5 problems from 'p0' on)" in str(units[0])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, alone: Labelling, workers: int) -> None:
    seen: list[tuple[int, int]] = []
    found = fan_out(tmp_path, workers=workers, progress=lambda *pair: seen.append(pair))
    assert found.labels == alone.labels
    assert [label.response for label in found.labels] == RESPONSES
    assert counts(found) == counts(alone)
    assert seen[-1] == (72, 72)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    whole = world.label(PROBLEMS, RESPONSES, tmp_path / "whole", dict_of_samplers(), fill=False)
    assert [label.labels for label in whole.labels] == [label.labels for label in found.labels]
    assert not multiprocessing.active_children()


def dict_of_samplers() -> dict[str, Any]:
    with world.WorldEngine().open() as opened:
        return dict(opened.samplers)


def test_a_worker_that_dies_costs_its_running_rounds_only(tmp_path: Path, alone: Labelling) -> None:
    lives = tmp_path / "lives"
    lives.write_text("die\ndie")
    # A problem in the middle of a unit: rounds are done before it comes up.
    of = next(problem for problem in PROBLEMS if problem.id == "p13")
    engine = world.WorldEngine(deadly=of.prompt, lives=str(lives))
    found = fan_out(tmp_path / "labels", engine, workers=2)
    assert lives.read_text() == ""
    assert found.labels == alone.labels
    assert counts(found) == counts(alone)


def test_a_unit_that_ends_every_worker_is_named(tmp_path: Path) -> None:
    engine = world.WorldEngine(deadly=PROBLEMS[7].prompt)
    with pytest.raises(UserError, match=r"unit 2 .*3 workers in a row died .*killed by signal 9"):
        fan_out(tmp_path, engine, workers=2)
    assert not multiprocessing.active_children()
    assert fan_out(tmp_path).labels, "with the cause gone it goes on"


def test_deaths_count_only_without_a_round_in_between(tmp_path: Path) -> None:
    (unit, *_) = units = make_units(RESPONSES, PROBLEMS, ("one", "two"), SETTINGS)
    board = Board(units, tmp_path, None)
    for number in range(6):
        assert board.take() == unit
        with board.journal(unit).open("a") as journal:
            journal.write("header\nround\n" if number == 0 else "round\n")
        board.lost(unit, "power")
    board.take()
    board.lost(unit, "power")
    board.take()
    with pytest.raises(UserError, match="power"):
        board.lost(unit, "power")


class RefusingEngine(world.WorldEngine):
    def open(self) -> Any:
        raise UserError("no such model")


class BrokenEngine(world.WorldEngine):
    def open(self) -> Any:
        raise ZeroDivisionError("a defect")


@dataclasses.dataclass(frozen=True)
class SeatedEngine(world.WorldEngine):
    """Every worker writes down which GPUs it sees."""

    seen: str = ""

    def environment(self, worker: int) -> dict[str, str]:
        gpu = gpu_of(worker, ["0", "2", "5"])
        assert gpu is not None
        return {"CUDA_VISIBLE_DEVICES": gpu}

    def open(self) -> Any:
        (Path(self.seen) / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        return super().open()


def test_workers_see_a_gpu_each_and_who_follows_a_dead_one_sees_its(tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "lives").write_text("die")
    lives = {"deadly": PROBLEMS[7].prompt, "lives": str(tmp_path / "lives")}
    fan_out(tmp_path / "labels", SeatedEngine(seen=str(tmp_path / "seen"), **lives), workers=2)
    seen = [path.read_text() for path in (tmp_path / "seen").iterdir()]
    assert (len(seen), set(seen)) == (3, {"0", "2"})
    assert "5" not in seen


def test_which_gpu_a_worker_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [gpu_of(worker, ["a", "b", "c"]) for worker in range(5)] == ["a", "b", "c", "a", "b"]
    assert gpu_of(1, []) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f1e")
    assert visible_gpus() == ["3", "GPU-8f1e"]
    engine = LabelEngine(samplers={"one": "hf:one"}, device="cuda")
    assert [engine.environment(worker)["CUDA_VISIBLE_DEVICES"] for worker in range(3)] == ["3", "GPU-8f1e", "3"]
    assert dataclasses.replace(engine, device="cuda:1").environment(0) == {}, "as it was asked for"
    assert dataclasses.replace(engine, device="cpu").environment(0) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert engine.environment(0) == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [engine.environment(worker)["CUDA_VISIBLE_DEVICES"] for worker in range(3)] == ["0", "1", "0"]


def test_what_workers_refuse_and_what_breaks_in_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model"):
        fan_out(tmp_path, RefusingEngine())
    with pytest.raises(WorkerError, match="ZeroDivisionError: a defect"):
        fan_out(tmp_path, BrokenEngine())
    with pytest.raises(UserError, match="workers = 0"):
        fan_out(tmp_path, workers=0)
    with pytest.raises(UserError, match="its problem is not among"):
        fan_out(tmp_path, problems=[])
    assert isinstance(world.WorldEngine().open().__enter__(), OpenEngine)


def test_a_journal_of_other_settings_is_refused_by_the_worker(tmp_path: Path) -> None:
    few = RESPONSES[:8]
    fan_out(tmp_path, responses=few, workers=1)
    with pytest.raises(UserError, match=r"units/1.jsonl: the journal belongs to another labelling: labels.k was 6"):
        fan_out(tmp_path, responses=few, workers=1, settings={"k": 7})


def test_no_responses(tmp_path: Path) -> None:
    found = fan_out(tmp_path, responses=[], workers=3)
    assert found.labels == []
    assert found.usage == merge_usage([found.usage])


def test_one_labeller_per_folder_and_orphans_end(tmp_path: Path, alone: Labelling) -> None:
    code = (
        "import test_fanout as t, pathlib, sys, labeling_world as w\n"
        "if __name__ == '__main__':\n"
        "    t.fan_out(pathlib.Path(sys.argv[1]), w.WorldEngine(pause=0.02))\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    folder = tmp_path / "labels"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    driver = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment, start_new_session=True)
    journals = [folder / "units" / f"{number}.jsonl" for number in (1, 2)]
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.read_bytes().count(b"\n") > 3 for path in journals):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(UserError, match="another process is labelling here"):
        fan_out(folder)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert fan_out(folder).labels == alone.labels
    lines = [path.read_bytes().splitlines() for path in journals]
    assert all(len(set(rounds)) == len(rounds) for rounds in lines), "two writers"
