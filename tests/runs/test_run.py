"""A whole run, small: every stage for real, then resuming, refusing and reporting on it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metrics_world import without_times
from psgpo.config import Recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import StageError, run_stages
from psgpo.runs.progress import StageProgress
from psgpo.runs.stages import run_stage, stage_graph

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def finished(tiny_recipe: Recipe) -> RunDirectory:
    run = RunDirectory.create(tiny_recipe)
    run_stages(run, ["problems", "sft"])  # as the command does: processes side by side
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # a stage's result must not depend on what its process was set to
    try:
        for name in stage_graph(run.recipe):  # the rest here, to load PyTorch once
            run_stage(run, name, StageProgress(run.path, name))
    finally:
        torch.set_num_threads(threads)
    return run


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_stage_leaves_its_record(finished: RunDirectory) -> None:
    for name in stage_graph(finished.recipe):
        receipt = json.loads((finished.path / "stages" / f"{name}.json").read_text())
        assert receipt["seconds"] > 0
    assert not list((finished.path / "stages").glob("*.lock"))
    for arm in finished.recipe.arms:
        steps = [row["step"] for row in rows(finished.path / "rl" / arm / "metrics.jsonl")]
        assert steps == [1, 2, 3, 4]
        assert not (finished.path / "rl" / arm / "state.pt").exists()
    assert sorted(p.name for p in (finished.path / "rl" / "baseline" / "checkpoints").iterdir()) == ["step-2", "step-4"]
    summary = json.loads((finished.path / "report" / "summary.json").read_text())
    assert set(summary["pass_at_1"]) == {"sft", *finished.recipe.arms}
    assert (finished.path / "report" / "index.html").stat().st_size > 10_000


def test_labels_cost_and_quality_are_part_of_the_output(finished: RunDirectory) -> None:
    summary = json.loads((finished.path / "labels" / "summary.json").read_text())
    assert summary["cost"]["responses"] == 2 * 16
    assert 0 <= summary["quality"]["agreement"] <= 1
    assert summary["linear_scan"]["cost"]["failed_responses"] > 0
    labels = rows(finished.path / "labels" / "labels.jsonl")
    assert {row["strategy"] for row in labels} == {"binary-search"}
    assert {row["response"]["checkpoint"] for row in labels} == {"baseline/step-2", "baseline/step-4"}


def test_the_first_step_is_the_same_for_every_arm(finished: RunDirectory) -> None:
    # Same SFT policy, same prompts, same seeds: arms differ only in what they learn from.
    first = [rows(finished.path / "rl" / arm / "metrics.jsonl")[0] for arm in finished.recipe.arms]
    for key in ("pass_rate", "tokens_per_response", "kl"):
        assert len({row[key] for row in first}) == 1, key
    assert first[1]["reward_lines"] != 0  # and dense rewards do arrive


def test_running_again_does_nothing(finished: RunDirectory) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*") if path.is_file()}
    run_stages(finished)
    after = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*") if path.is_file()}
    assert before == after


def test_another_recipe_is_refused_and_more_arms_are_welcome(finished: RunDirectory) -> None:
    recipe = finished.recipe
    with pytest.raises(UserError, match=r"another recipe \(seed: 0 -> 1\)"):
        RunDirectory.create(recipe.model_copy(update={"seed": 1}))
    more = recipe.model_copy(update={"arms": recipe.arms | {"again": recipe.arms["dense"]}, "processes": 1})
    reopened = RunDirectory.create(more)
    assert reopened.stage_done("rl-dense")
    assert not reopened.stage_done("rl-again")
    # An arm left out stays part of the run, so that it cannot come back with other settings and the old results.
    assert set(RunDirectory.create(recipe).recipe.arms) == set(recipe.arms)
    changed = recipe.arms["dense"].model_copy(update={"lambda_fail": 9.0})
    with pytest.raises(UserError, match=r"arms\.again\.lambda_fail: 0\.25 -> 9\.0"):
        RunDirectory.create(recipe.model_copy(update={"arms": recipe.arms | {"again": changed}}))


def test_folders_that_are_no_run(tmp_path: Path, tiny_recipe: Recipe) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.png").write_bytes(b"")
    with pytest.raises(UserError, match="is no run directory"):
        RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "photos"}))
    with pytest.raises(UserError, match=r"no recipe\.json"):
        RunDirectory.open(tmp_path / "photos")


def test_a_run_killed_at_its_first_write_starts_again(tmp_path: Path, tiny_recipe: Recipe) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.json.tmp").write_text('{"name": "de')
    RunDirectory.create(tiny_recipe.model_copy(update={"out": out}))
    assert {file.name for file in out.iterdir()} == {"recipe.json", "manifest.json"}


def test_a_lost_recipe_is_not_made_up(tmp_path: Path, tiny_recipe: Recipe) -> None:
    recipe = tiny_recipe.model_copy(update={"out": tmp_path / "run"})
    RunDirectory.create(recipe)
    (tmp_path / "run" / "recipe.json").write_text("{")
    with pytest.raises(
        UserError, match=r"recipe\.json: not valid JSON .*; put a copy of it back, or make the run anew"
    ):
        RunDirectory.create(recipe)


def test_a_stage_wants_those_before_it(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run"}))
    with pytest.raises(
        UserError, match="rl-baseline needs problems, sft first; run: psgpo run RECIPE --until rl-baseline"
    ):
        run_stage(run, "rl-baseline", lambda done, total: None)
    with pytest.raises(UserError, match="'nonsense' is no stage"):
        run_stages(run, ["nonsense"])


def test_a_stage_is_run_by_one_process_at_a_time(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run"}))
    with run.stage("sft"), pytest.raises(UserError, match="being run by another process"), run.stage("sft"):
        pass


def test_ppo_killed_midway_ends_where_an_uninterrupted_run_ends(finished: RunDirectory, tmp_path: Path) -> None:
    """`kill -9` after a few steps; then the same command again. Metrics and weights must be equal to the bit."""
    twin = tmp_path / "run"
    shutil.copytree(finished.path, twin)
    shutil.rmtree(twin / "rl" / "dense")
    (twin / "stages" / "rl-dense.json").unlink()
    command = [sys.executable, "-m", "psgpo", "stage", "rl-dense", str(twin)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = twin / "rl" / "dense" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists(), "killed before the first state or after the end: nothing was tested"
    subprocess.run(command, env=environment, check=True, capture_output=True)
    ours, theirs = (run / "rl" / "dense" for run in (twin, finished.path))
    assert without_times(ours) == without_times(theirs)
    weights = "model/model.safetensors"
    assert (ours / weights).read_bytes() == (theirs / weights).read_bytes()


def test_a_stage_ends_with_its_killed_command(finished: RunDirectory, tmp_path: Path) -> None:
    twin = tmp_path / "run"
    shutil.copytree(finished.path, twin)
    shutil.rmtree(twin / "rl" / "dense")
    (twin / "stages" / "rl-dense.json").unlink()
    code = (
        "import sys; from pathlib import Path; from psgpo.runs.directory import RunDirectory; "
        "from psgpo.runs.orchestrate import run_stages; run_stages(RunDirectory.open(Path(sys.argv[1])), ['rl-dense'])"
    )
    command = subprocess.Popen([sys.executable, "-c", code, str(twin)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (twin / "rl" / "dense" / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    command.send_signal(signal.SIGKILL)
    command.wait()
    run = RunDirectory.open(twin)
    assert not run.stage_done("rl-dense"), "killed after the end: nothing was tested"
    with (twin / "stages" / "rl-dense.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held by the stage's process as long as it lives
    assert not run.stage_done("rl-dense"), "the stage outlived the command that started it"


def test_a_crashing_stage_shows_the_end_of_its_log(finished: RunDirectory, tmp_path: Path) -> None:
    twin = tmp_path / "run"
    shutil.copytree(finished.path, twin)
    (twin / "stages" / "evaluate-sft.json").unlink()
    shutil.rmtree(twin / "evaluation" / "sft")
    broken = RunDirectory.open(twin)
    (twin / "problems" / "test.jsonl").write_text("{]\n")
    with pytest.raises(UserError, match=r"evaluate-sft: .*test\.jsonl:1: not valid JSON"):
        run_stages(broken, ["evaluate-sft"])
    (twin / "problems" / "test.jsonl").unlink()
    (twin / "problems" / "test.jsonl").mkdir()
    with pytest.raises((UserError, StageError), match=r"test\.jsonl"):
        run_stages(broken, ["evaluate-sft"])


def test_own_problems_and_any_causal_lm_folder(finished: RunDirectory, tmp_path: Path) -> None:
    """The JSONL source with a model folder: everything but the embedded benchmark's oracle."""
    source = {"kind": "jsonl"} | {
        name: finished.path / "problems" / f"{name}.jsonl" for name in ("train", "test", "label")
    }
    table = finished.recipe.model_dump(mode="json")
    table |= {"out": str(tmp_path / "run"), "problems": {k: str(v) for k, v in source.items()}}
    table["problems"]["validation"] = table["problems"]["test"]
    table["model"] = {"path": str(finished.path / "sft" / "model")}
    table["sft"] = {"examples": 0}
    run = RunDirectory.create(parse_recipe(table, origin="test"))
    for name in stage_graph(run.recipe):
        if name not in ("rl-value", "rl-both", "rl-progress", "report") and not name.startswith("evaluate"):
            run_stage(run, name, StageProgress(run.path, name))
    assert json.loads((run.path / "labels" / "summary.json").read_text())["quality"] is None
    assert not (run.path / "labels" / "exact.jsonl").exists()


def test_problems_that_are_trained_on_are_no_test(finished: RunDirectory, tmp_path: Path) -> None:
    same = str(finished.path / "problems" / "train.jsonl")
    table = finished.recipe.model_dump(mode="json") | {"out": str(tmp_path / "run")}
    table |= {"problems": {"kind": "jsonl", "train": same, "test": same}}
    run = RunDirectory.create(parse_recipe(table, origin="test"))
    with pytest.raises(UserError, match="test on problems that nothing is trained on"):
        run_stage(run, "problems", StageProgress(run.path, "problems"))


def test_a_report_follows_new_results(finished: RunDirectory, tmp_path: Path) -> None:
    twin = tmp_path / "run"
    shutil.copytree(finished.path, twin)
    (twin / "stages" / "evaluate-sft.json").unlink()
    (twin / "report" / "index.html").unlink()
    run_stages(RunDirectory(twin, finished.recipe))
    assert (twin / "report" / "index.html").is_file()
