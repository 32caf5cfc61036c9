"""`psgpo run` in processes of a launcher: who works on what, how it ends, and the whole of it once (slow)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from metrics_world import without_times
from parallel_world import free_port, server, together
from psgpo.cli import main as command_line
from psgpo.config import Recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.parallel import launch
from psgpo.parallel.team import current_team
from psgpo.runs import orchestrate
from psgpo.runs import together as module
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import Stage

ROOT = Path(__file__).parent.parent.parent
NEEDS = {"problems": [], "train": ["problems"], "a": ["problems"], "b": ["problems"], "c": ["train"]}
NEEDS |= {"report": ["a", "c"]}


def fake_stages(out: Path) -> dict[str, Stage]:
    """Stages that note which process worked on them when; `train` is everybody's."""

    def work(name: str) -> Any:
        def note(_run: RunDirectory, progress: Any) -> None:
            team = current_team()
            if name == "train":
                team.wait()
            print(f"{name} of {team.rank}")
            (out / f"{name}-{team.rank}").write_text(str(time.monotonic()))
            progress(1, 1)

        return note

    return {
        name: Stage(name=name, needs=tuple(needs), reads=(), writes=(), work=work(name), together=name == "train")
        for name, needs in NEEDS.items()
    }


def run_fakes(recipe: Recipe, out: Path) -> list[str]:
    def graph(_: Recipe) -> dict[str, Stage]:
        return fake_stages(out)

    from psgpo.runs import stages

    for place in (module, orchestrate, stages):
        place.stage_graph = graph
    run = current_team().on_main(lambda: RunDirectory.create(recipe))
    orchestrate.run_stages(run)
    return sorted(path.name for path in out.iterdir())


def test_trainings_are_everybodys_and_other_stages_are_dealt(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe.model_copy(update={"out": tmp_path / "run"})
    (tmp_path / "notes").mkdir()
    seen, again = together(run_fakes, 2, tmp_path / "answers", recipe, tmp_path / "notes")
    assert seen == again == ["a-0", "b-1", "c-0", "problems-0", "report-0", "train-0", "train-1"]
    when = {path.name: float(path.read_text()) for path in (tmp_path / "notes").iterdir()}
    assert when["problems-0"] < when["train-1"] < when["a-0"]  # a waits until nothing is left to train
    run = RunDirectory.open(tmp_path / "run")
    assert all(run.stage_done(name) for name in NEEDS)
    assert not list((tmp_path / "run" / "stages").glob("*.lock"))
    log = (tmp_path / "run" / "logs" / "train.log").read_text()
    # Both write to one file: text and line ends of two processes may come in any order.
    assert sorted(re.findall(r"train of \d", log)) == ["train of 0", "train of 1"]


def run_raced(recipe: Recipe, out: Path) -> list[str]:
    """As `run_fakes`, while another command finishes the training between this one's look and its lock."""
    untouched = RunDirectory.stage

    @contextmanager
    def stage(run: RunDirectory, name: str, **options: Any) -> Iterator[None]:
        with untouched(run, name, **options):
            if name == "train":
                (run.path / "stages" / "train.json").write_text("{}")
            yield

    RunDirectory.stage = stage
    return run_fakes(recipe, out)


def test_a_training_that_another_command_finished_is_nobodys(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe.model_copy(update={"out": tmp_path / "run"})
    (tmp_path / "notes").mkdir()
    seen, again = together(run_raced, 2, tmp_path / "answers", recipe, tmp_path / "notes")
    assert seen == again == ["a-0", "b-1", "c-0", "problems-0", "report-0"]


def failing(kind: str) -> None:
    with launch.ended_together():
        team = current_team()
        if team.rank == 1:
            if kind == "user":
                raise UserError("labels.jsonl: a line is wrong")
            raise ZeroDivisionError("of one process")
        team.wait()


def member(rank: int, port: int, kind: str, errors: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with errors.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 2)
    failing(kind)


@pytest.mark.parametrize(
    ("kind", "code", "said"), [("user", 2, "psgpo: labels.jsonl: a line is wrong\n"), ("crash", 1, "ZeroDivisionError")]
)
def test_an_error_of_one_process_ends_all_and_is_said_once(kind: str, code: int, said: str, tmp_path: Path) -> None:
    port, errors = free_port(), tmp_path / "errors"
    processes = [server().Process(target=member, args=(rank, port, kind, errors)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [1, code]
    text = errors.read_text()
    assert said in text
    # The other's lost connection is not worth a word.
    assert text == said if kind == "user" else text.count("Traceback") == 1


def test_commands_of_one_process_are_refused_under_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    command_line.app(["problems", "--count", "1"], standalone_mode=False)  # left over from a scheduler, no launcher
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="psgpo problems is the work of one process; start it without a launcher"):
        command_line.app(["problems"], standalone_mode=False)


def test_a_launcher_says_where_its_processes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="RANK, LOCAL_RANK and WORLD_SIZE are set, MASTER_PORT not: start psgpo by"):
        launch.join()


WORKER = "from psgpo.parallel.launch import *; end_with_launcher(); print('ready', flush=True); time.sleep(60)"
LAUNCHER = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {WORKER!r}]); time.sleep(60)"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_no_process_outlives_its_launcher() -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "ready\n"
    launcher.kill()
    launcher.communicate(timeout=30)  # the worker holds the other end of the pipe for as long as it lives


def test_several_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="16 processes, 8 of them on this machine: psgpo trains on one machine"):
        launch.join()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("USE_FSDP", "true", "--use_fsdp: here the recipe says it; set parallel.strategy = 'fsdp'"),
        ("USE_DEEPSPEED", "true", "--use_deepspeed: not used here"),
        ("MIXED_PRECISION", "bf16", "--mixed_precision bf16: here the recipe says it, and has model.dtype = 'float32'"),
    ],
)
def test_what_the_launcher_was_told_is_not_ignored(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    module.check_launcher(tiny_recipe)
    monkeypatch.setenv(f"ACCELERATE_{key}", value)
    with pytest.raises(UserError, match=said):
        module.check_launcher(tiny_recipe)
    agreed = {"parallel": {"strategy": "fsdp"}, "model": {"dtype": "bfloat16"}, "sft": {"optimizer": "adamw"}}
    if key != "USE_DEEPSPEED":
        module.check_launcher(parse_recipe(tiny_recipe.model_dump(mode="json") | agreed, origin="recipe.toml"))


def test_matrices_for_muon_are_not_sharded(tiny_recipe: Recipe) -> None:
    table = tiny_recipe.model_dump(mode="json") | {"parallel": {"strategy": "fsdp"}}
    with pytest.raises(UserError, match=r"sft\.optimizer = 'muon' needs whole matrices"):
        parse_recipe(table, origin="recipe.toml")


def test_the_strategy_may_change_within_a_run(tiny_recipe: Recipe, tmp_path: Path) -> None:
    changes = {"out": tmp_path / "run", "sft": tiny_recipe.sft.model_copy(update={"optimizer": "adamw"})}
    table = tiny_recipe.model_copy(update=changes).model_dump(mode="json")
    RunDirectory.create(parse_recipe(table, origin="a"))
    again = RunDirectory.create(parse_recipe(table | {"parallel": {"strategy": "fsdp"}}, origin="b"))
    assert again.recipe.parallel.strategy == "fsdp"


def launched(recipe: Recipe, *stages: str) -> subprocess.Popen[bytes]:
    """`accelerate launch -m psgpo run` of a run that is there, in two processes."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    file = recipe.out.with_suffix(".toml")
    overrides = [f"--set={override}" for override in json.loads(file.with_suffix(".json").read_text())]
    until = [f"--until={stage}" for stage in stages]
    demo = str(ROOT / "recipes" / "demo.toml")
    command = [*accelerate, "--main_process_port", "0", "-m", "psgpo", "run", demo, *overrides, *until]
    return subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture(scope="module")
def whole_run(tiny_recipe: Recipe, tiny_overrides: list[str]) -> Recipe:
    """The tiny recipe, run by two processes to its end."""
    recipe = tiny_recipe.model_copy(update={"out": tiny_recipe.out.parent / "together"})
    recipe.out.with_suffix(".json").write_text(json.dumps([*tiny_overrides, "prm.sign.epochs=3", f"out={recipe.out}"]))
    process = launched(recipe)
    text = process.communicate(timeout=280)[0].decode()
    assert process.returncode == 0, text[-3000:]
    return recipe


@pytest.mark.slow
def test_a_whole_run_of_two_processes(whole_run: Recipe) -> None:
    run = RunDirectory.open(whole_run.out)
    assert all(run.stage_done(name) for name in module.stage_graph(run.recipe))
    assert (run.path / "report" / "index.html").is_file()
    for arm in run.recipe.arms:
        assert [row["step"] for row in without_times(run.path / "rl" / arm)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_with_sharded_networks(whole_run: Recipe, tmp_path: Path) -> None:
    """To an arm with PRM and ValueInit. Its numbers are compared where nothing amplifies rounding (tests/rl)."""
    overrides = json.loads(whole_run.out.with_suffix(".json").read_text())[:-1]
    recipe = whole_run.model_copy(update={"out": tmp_path / "run"})
    overrides += ["sft.optimizer=adamw", "parallel.strategy=fsdp", f"out={recipe.out}"]
    recipe.out.with_suffix(".json").write_text(json.dumps(overrides))
    process = launched(recipe, "rl-both")
    text = process.communicate(timeout=200)[0].decode()
    assert process.returncode == 0, text[-3000:]
    rows = without_times(recipe.out / "rl" / "both")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["tokens_per_response"] > 5
    assert all(row["grad_norm_policy"] > 0 for row in rows)
    want = (whole_run.out / "rl" / "both" / "model" / "model.safetensors").stat().st_size
    assert (recipe.out / "rl" / "both" / "model" / "model.safetensors").stat().st_size == want


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "rl-dense", "prm-sign"])
def test_killed_in_two_processes_ends_where_an_uninterrupted_run_ends(
    whole_run: Recipe, tmp_path: Path, stage: str
) -> None:
    """`kill -9` of one process in the middle of a training; then the same command again."""
    kind, _, name = stage.partition("-")
    place = Path(kind) / name
    twin = whole_run.model_copy(update={"out": tmp_path / "run"})
    shutil.copytree(whole_run.out, twin.out)
    shutil.rmtree(twin.out / place)
    (twin.out / "stages" / f"{stage}.json").unlink()
    overrides = json.loads(whole_run.out.with_suffix(".json").read_text())
    twin.out.with_suffix(".json").write_text(json.dumps([*overrides[:-1], f"out={twin.out}"]))
    process = launched(twin, stage)
    state = twin.out / place / "state.pt"
    ends = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.005)
    assert state.exists(), "it ended before its first state: nothing is tested"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (twin.out / "stages" / f"{stage}.json").exists()
    again = launched(twin, stage)
    text = again.communicate(timeout=200)[0].decode()
    assert again.returncode == 0, text[-3000:]
    ours, theirs = twin.out / place, whole_run.out / place
    assert without_times(ours) == without_times(theirs)
    weights = "model/model.safetensors"
    assert (ours / weights).read_bytes() == (theirs / weights).read_bytes()
