"""What a run's directory records of its stages, with made-up work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import psgpo
from psgpo.cli.main import app
from psgpo.cli.stages import load_run_recipe
from psgpo.config import Recipe
from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.runs import directory
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import stages_to_do
from psgpo.runs.reuse import take_over
from psgpo.runs.stages import stage_graph


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Recipe) -> RunDirectory:
    return RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run"}))


def finish(run: RunDirectory, *stages: str) -> None:
    for name in stages or stage_graph(run.recipe):
        with run.stage(name):
            pass


def test_a_report_is_written_again_when_another_command_finished_a_stage(run: RunDirectory) -> None:
    finish(run)
    assert stages_to_do(run, None) == {}
    (run.path / "stages" / "evaluate-sft.json").unlink()
    finish(run, "evaluate-sft")  # as `psgpo evaluate` does
    assert list(stages_to_do(run, None)) == ["report"]
    finish(run, "report")
    assert stages_to_do(run, None) == {}


def test_a_report_is_written_again_when_a_stage_was_taken_over(run: RunDirectory, tmp_path: Path) -> None:
    finish(run)
    (run.path / "stages" / "evaluate-sft.json").unlink()
    other = RunDirectory.create(run.recipe.model_copy(update={"out": tmp_path / "other"}))
    shutil.copytree(run.path / "stages", other.path / "stages", dirs_exist_ok=True)
    finish(other, "evaluate-sft")
    write_json(other.path / "evaluation" / "sft" / "summary.json", {})
    assert list(take_over(run, [other.path])) == ["evaluate-sft"]
    assert list(stages_to_do(run, None)) == ["report"]


def test_cpu_seconds_are_those_of_the_stage(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process that has done other stages before."""
    clock = iter([100.0, 103.0, 103.5, 104.0])
    monkeypatch.setattr(directory, "_cpu_seconds", lambda: next(clock))
    with pytest.raises(ZeroDivisionError), run.stage("sft"):
        raise ZeroDivisionError
    finish(run, "sft")
    assert run.receipt("sft")["cpu_seconds"] == 3.0 + 0.5


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", 17, r"another recipe \(seed: 0 -> 17\); to make a new run that takes over"),
        ("rl", {"microbatch_tokens": 64}, r"rl\.microbatch_tokens bounds memory, but moves results in their last bits"),
    ],
)
def test_an_edited_recipe_is_shown_the_way_that_keeps_the_work(
    run: RunDirectory, key: str, value: object, words: str
) -> None:
    old = getattr(run.recipe, key)
    changed = old.model_copy(update=value) if isinstance(value, dict) else value
    with pytest.raises(UserError, match=words) as refused:
        RunDirectory.create(run.recipe.model_copy(update={key: changed}))
    assert str(refused.value).endswith(f"psgpo run RECIPE --set out=NEW --reuse {run.path}")
    assert "delete" not in str(refused.value)


def test_the_commit_is_psgpos_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in the checkout of another project: that one's commit says nothing about psgpo."""
    installed = tmp_path / "venv" / "psgpo" / "__init__.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    (tmp_path / "theirs.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "theirs.py"], ["commit", "-q", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(psgpo, "__file__", str(installed))
    assert directory.manifest()["commit"] is None
    for words in (["add", "venv"], ["commit", "-q", "-m", "psgpo"]):
        subprocess.run([*git, *words], check=True)
    assert re.fullmatch(r"[0-9a-f]{40}", directory.manifest()["commit"])


def test_a_run_that_was_moved_says_where_it_would_go_on(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(run, "problems")
    assert load_run_recipe(run.path / "recipe.json", None).out == run.path
    moved = tmp_path / "moved here"
    shutil.copytree(run.path, moved)
    with pytest.raises(UserError, match="not the folder it lies in") as refused:
        load_run_recipe(moved / "recipe.json", ["rl.steps=4"])
    assert f"to go on with the run here: --set 'out={moved}'; with the other: --set out={run.path}" in str(
        refused.value
    )
    for command in (["run", "--dry-run"], ["sft"], ["verl", "export", "--out", str(tmp_path / "e")]):
        done = CliRunner().invoke(app, [*command, str(moved / "recipe.json")])
        assert "not the folder it lies in" in str(done.exception)
    assert load_run_recipe(moved / "recipe.json", [f"out={moved}"]).out == moved
    assert load_run_recipe(moved / "recipe.json", [f"out={tmp_path / 'third'}"]).out == tmp_path / "third"
    monkeypatch.chdir(tmp_path)
    assert load_run_recipe(Path("run/recipe.json"), None).out == run.path


def test_the_names_of_folders_are_no_markup(
    run: RunDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = RunDirectory.create(run.recipe.model_copy(update={"out": tmp_path / "exp[lr=1e-5][" / "b]", "seed": 7}))
    assert take_over(run, [odd.path]) == {}
    assert f"{odd.path}: nothing of it is reused" in capfd.readouterr().err
    exported = tmp_path / "[/red].jsonl"
    done = CliRunner().invoke(app, ["problems", "--count", "1", "--out", str(exported)], catch_exceptions=False)
    assert f"problems: {exported}" in done.output


def test_the_command_names_a_report_that_is_up_to_date(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(run)
    monkeypatch.setattr("psgpo.cli.main.run_stages", lambda run, targets: None)
    command = ["run", str(run.path / "recipe.json"), "--until", "sft"]
    said = CliRunner().invoke(app, command, catch_exceptions=False).output
    assert f"report: {run.path / 'report' / 'index.html'}\n" in said
    finish(run, "sft")  # done again
    assert "report: " not in CliRunner().invoke(app, command, catch_exceptions=False).output
