"""`psgpo run --reuse`: stages that would be the same are taken over, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from own_recipe import own_recipe
from typer.testing import CliRunner

from psgpo.cli.main import app
from psgpo.config import Recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.report.build import build_report
from psgpo.report.load import load_run
from psgpo.runs import links
from psgpo.runs.directory import RunDirectory
from psgpo.runs.dry import dry_run
from psgpo.runs.inputs import file_prints
from psgpo.runs.reuse import reusable, take_over
from psgpo.runs.stages import run_stage, stage_graph

TABLES: dict[str, Any] = {
    "rl": {"steps": 1, "checkpoints": 1, "prompts_per_step": 2, "minibatches": 1},
    "arms": {"baseline": {}, "a": {"rl": {"kl_beta": 0.1}}},
    "evaluation": {"samples": 1},
    "sft": {"examples": 0},
}
DONE = ("problems", "sft", "rl-baseline", "rl-a", "evaluate-sft", "evaluate-a")


def test_what_reads_problems_waits_for_them_though_the_stage_before_it_was_taken_over() -> None:
    table = {"name": "r", "out": "runs/r", "problems": {"kind": "opchain"}, "prm": {"sign": {"target": "sign"}}}
    graph = stage_graph(parse_recipe(table | {"arms": {"baseline": {}}}, origin="r"))
    assert [name for name, stage in graph.items() if "problems" not in stage.needs] == ["problems", "sft"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run in which everything but the evaluation of the baseline is done."""
    run = RunDirectory.create(parse_recipe(own_recipe(tmp_path_factory.mktemp("first")) | TABLES, origin="r"))
    for stage in DONE:
        run_stage(run, stage, lambda done, total: None)
    return run


def another(first: RunDirectory, out: Path, **tables: Any) -> RunDirectory:
    """A new run of the recipe, with some tables changed."""
    return RunDirectory.create(changed(first, out, **tables))


def changed(first: RunDirectory, out: Path, **tables: Any) -> Recipe:
    table = first.recipe.model_dump(mode="json", exclude_none=True) | {"out": str(out)}
    for name, values in tables.items():
        table[name] = table[name] | values if isinstance(values, dict) else values
    return parse_recipe(table, origin="r")


def test_a_twin_takes_all_that_is_done_and_can_go_on(
    first: RunDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = another(first, tmp_path / "run")
    said = dry_run(run.recipe, [first.path])
    assert f"  rl-a               taken from {first.path}\n" in said
    assert "  evaluate-baseline  to do\n" in said  # what it waits for would be there
    assert set(take_over(run, [first.path])) == set(DONE)
    assert f"  rl-a: taken from {first.path}\n" in capfd.readouterr().err
    for name in ("sft/model/model.safetensors", "rl/a/model/model.safetensors", "rl/a/checkpoints/step-1/config.json"):
        assert (run.path / name).samefile(first.path / name)  # one file: no room taken
    receipt = run.receipt("rl-a")
    assert receipt == first.receipt("rl-a") | {"taken_from": str(first.path)}
    assert json.loads((run.path / "manifest.json").read_text())["taken"] == dict.fromkeys(DONE, str(first.path))
    assert not (run.path / "taking").exists()
    assert not list((run.path / "stages").glob("*.lock"))
    run_stage(run, "evaluate-baseline", lambda done, total: None)
    assert take_over(run, [first.path]) == {}  # nothing is left


def test_only_what_reads_a_changed_key_is_run_again(first: RunDirectory, tmp_path: Path) -> None:
    def taken(**tables: Any) -> set[str]:
        run = another(first, tmp_path / str(len([*tmp_path.iterdir()])), **tables)
        return set(take_over(run, [first.path]))

    policies = {"problems", "sft", "rl-baseline", "rl-a"}
    assert taken(evaluation={"samples": 2}) == policies
    assert taken(arms={"a": {"rl": {"kl_beta": 0.2}}}) == {*DONE} - {"rl-a", "evaluate-a"}
    assert taken(rl={"clip": 0.3}) == {"problems", "sft", "evaluate-sft"}
    assert taken(sampling={"temperature": 0.9}) == {"problems", "sft"}
    assert taken(processes=1, tracking={"to": []}, name="other", sandbox={"workers": 3}) == {*DONE}
    assert taken(sandbox={"test_timeout_seconds": 1.0}) == {"problems", "sft"}
    # A model of other contents in another folder: all but the problems hang on it.
    moved = tmp_path / "moved"
    shutil.copytree(first.recipe.model.path, moved)  # type: ignore[arg-type]
    assert taken(model={"path": str(moved)}) == {*DONE}
    (moved / "tokenizer_config.json").write_text("{}")
    assert taken(model={"path": str(moved)}) == {"problems"}


def test_a_split_that_a_stage_does_not_read_may_differ(first: RunDirectory, tmp_path: Path) -> None:
    lines = (first.path.parent / "test.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "test.jsonl").write_text(lines[0])
    run = another(first, tmp_path / "run", problems={"test": str(tmp_path / "test.jsonl")})
    assert set(take_over(run, [first.path])) == {"sft", "rl-baseline", "rl-a"}


def test_a_stage_is_taken_with_the_very_stages_it_rests_on(first: RunDirectory, tmp_path: Path) -> None:
    """Two runs of one recipe agree but for the last bits: their stages must not be mixed."""
    second = another(first, tmp_path / "second")
    for stage in ("problems", "sft", "evaluate-sft"):
        run_stage(second, stage, lambda done, total: None)
    take_over(second, [first.path])
    assert second.stage_done("sft")
    assert not second.stage_done("rl-baseline")  # first's rests on first's SFT
    third = another(first, tmp_path / "third")
    taken = take_over(third, [second.path, first.path])
    assert taken == dict.fromkeys(("problems", "sft", "evaluate-sft"), second.path)
    # Through another run it is still the same stage.
    fourth = another(first, tmp_path / "fourth")
    take_over(fourth, [first.path], ["sft"])
    assert set(take_over(another(first, tmp_path / "fifth"), [fourth.path, first.path])) == {*DONE}
    assert fourth.receipt("sft")["taken_from"] == str(first.path)


def test_running_a_stage_again_leaves_the_other_run_alone(first: RunDirectory, tmp_path: Path) -> None:
    run = another(first, tmp_path / "run")
    take_over(run, [first.path])
    weights = first.path / "rl" / "a" / "model" / "model.safetensors"
    metrics = first.path / "rl" / "a" / "metrics.jsonl"
    before = weights.read_bytes(), metrics.read_text()
    (run.path / "stages" / "rl-a.json").unlink()
    run_stage(run, "rl-a", lambda done, total: None)
    assert (weights.read_bytes(), metrics.read_text()) == before
    assert not (run.path / "rl" / "a" / "model" / "model.safetensors").samefile(weights)
    assert "taken_from" not in run.receipt("rl-a")


def test_without_links_there_are_copies(first: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(links.os, "link", refused)
    run = another(first, tmp_path / "run")
    take_over(run, [first.path], ["sft"])
    ours, theirs = (one.path / "sft" / "model" / "model.safetensors" for one in (run, first))
    assert not ours.samefile(theirs)
    assert ours.read_bytes() == theirs.read_bytes()


def test_results_that_were_removed_or_are_begun_here_are_not_taken(first: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(first.path, source)
    (source / "rl" / "a" / "checkpoints" / "step-1" / "model.safetensors").unlink()
    run = another(first, tmp_path / "run")
    (run.path / "evaluation" / "sft").mkdir(parents=True)
    assert set(take_over(run, [source])) == {"problems", "sft", "rl-baseline"}


def test_what_counts_is_what_the_problems_were_made_of(first: RunDirectory, tmp_path: Path) -> None:
    """A problem file that is edited while a run goes on is not what its later stages were computed from."""
    train = tmp_path / "train.jsonl"
    lines = (first.path.parent / "train.jsonl").read_text().splitlines(keepends=True)
    train.write_text("".join(lines))
    edited = another(first, tmp_path / "edited", problems={"train": str(train)})
    run_stage(edited, "problems", lambda done, total: None)
    train.write_text("".join(lines[:-1]))
    for stage in ("sft", "rl-baseline"):  # on the problems as they were
        run_stage(edited, stage, lambda done, total: None)
    new = another(first, tmp_path / "new", problems={"train": str(train)})
    assert not {"problems", "sft", "rl-baseline"} & reusable(new, [edited.path]).taken.keys()
    # The other way round: what this run has copied, not what lies there now.
    late = another(first, tmp_path / "late", problems={"train": str(train)})
    run_stage(late, "problems", lambda done, total: None)
    train.write_text("".join(lines))
    assert not {"sft", "rl-baseline"} & reusable(late, [edited.path]).taken.keys()


def test_what_cannot_be_reused_is_said_in_one_line(
    first: RunDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = another(first, tmp_path / "run", seed=7)
    assert take_over(run, [first.path]) == {}
    assert capfd.readouterr().err == f"psgpo: {first.path}: nothing of it is reused: seed: 0 there, 7 here\n"
    empty = another(first, tmp_path / "empty")
    take_over(run, [empty.path])
    assert "nothing of it is reused: it has finished no stage that is to do here\n" in capfd.readouterr().err
    own = another(first, tmp_path / "own")
    for stage in ("problems", "sft"):
        run_stage(own, stage, lambda done, total: None)
    assert take_over(own, [first.path], ["rl-baseline"]) == {}
    assert "nothing of it is reused: rl-baseline: it rests on another sft than this run's\n" in capfd.readouterr().err
    source = tmp_path / "source"
    shutil.copytree(first.path, source)
    (source / "sft" / "model" / "model.safetensors").unlink()
    (source / "stages" / "problems.json").unlink()
    assert take_over(another(first, tmp_path / "bare"), [source], ["sft"]) == {}
    assert "nothing of it is reused: sft: its results are no longer all there\n" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"--reuse .*photos: no run directory"):
        take_over(run, [tmp_path / "photos"])
    with pytest.raises(UserError, match="that is this run"):
        take_over(run, [run.path])


def test_a_run_of_other_software_is_named(first: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(first.path, source)
    manifest = json.loads((source / "manifest.json").read_text())
    write_json(source / "manifest.json", manifest | {"torch": "1.0"})
    said = dry_run(changed(first, tmp_path / "run"), [source])
    assert f"{source}: made by other software (torch 1.0 there, " in said


def test_the_command_takes_over_before_it_runs(first: RunDirectory, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    table = json.loads((first.path / "recipe.json").read_text())
    problems, model = table["problems"], table["model"]["path"]
    recipe.write_text(
        f"""
name = "own"
out = "{tmp_path / "run"}"
problems = {{kind = "jsonl", train = "{problems["train"]}", test = "{problems["test"]}"}}
model.path = "{model}"
sft.examples = 0
sampling.max_new_tokens = 64
rl = {{steps = 1, checkpoints = 1, prompts_per_step = 2, minibatches = 1}}
evaluation.samples = 1
arms.baseline = {{}}
arms.a.rl.kl_beta = 0.1
"""
    )
    options = ["--reuse", str(first.path), "--until", "sft"]
    assert CliRunner().invoke(app, ["run", str(recipe), "--dry-run", *options]).exit_code == 0
    assert not (tmp_path / "run").exists()
    refused = CliRunner().invoke(app, ["run", str(recipe), "--reuse", str(tmp_path / "nowhere")])
    assert "no run directory" in str(refused.exception)
    assert not (tmp_path / "run").exists()  # a mistake binds no folder
    done = CliRunner().invoke(app, ["run", str(recipe), *options])
    assert done.exit_code == 0, done.output
    run = RunDirectory.open(tmp_path / "run")
    assert run.receipt("sft")["taken_from"] == str(first.path)
    assert not run.stage_done("rl-baseline")


def test_the_report_does_not_count_what_others_computed(first: RunDirectory, tmp_path: Path) -> None:
    run = another(first, tmp_path / "run")
    take_over(run, [first.path])
    run_stage(run, "evaluate-baseline", lambda done, total: None)
    page = build_report([run.path], run.path / "report").read_text()
    assert f"6 stages were taken over from {first.path} and are not in these sums" in page
    summary = json.loads((run.path / "report" / "summary.json").read_text())
    assert set(summary["seconds_per_stage"]) == {"evaluate-baseline"}
    assert summary["taken_from"] == dict.fromkeys(sorted(DONE), str(first.path))
    assert load_run(run.path).stages["sft"].taken_from == str(first.path)
    assert load_run(first.path).stages["sft"].taken_from == ""


EVALUATED = {"evaluate-sft", "evaluate-baseline", "evaluate-both"}
LABELS = {"labels-1", "labels-2", "labels-linear", "labels"}
TRAINED = {"prm-sign", "rl-both", "evaluate-both"}


@pytest.mark.parametrize(
    ("table", "key", "value", "again"),
    [
        ("problems", "label", 99, {"problems", "responses"} | LABELS | TRAINED),
        ("problems", "train", 99, {"problems", "rl-baseline", "responses", *LABELS, *TRAINED, "evaluate-baseline"}),
        ("problems", "test_operations", [3, 4], {"problems"} | EVALUATED),
        ("labels", "k", 99, LABELS | TRAINED),
        ("labels", "holdout", 0.5, LABELS | TRAINED),
        ("labels", "responses_per_problem", 3, {"responses"} | LABELS | TRAINED),
        ("critic", "path", "some/where", {"rl-baseline", "evaluate-baseline", "responses"} | LABELS | TRAINED),
        ("mutation", "generated", 200, set()),
    ],
)
def test_what_a_key_costs_on_the_embedded_benchmark(
    tmp_path: Path, table: str, key: str, value: Any, again: set[str]
) -> None:
    """With made-up results: which stages are run again when one key changes."""
    base: dict[str, Any] = {
        "name": "e",
        "out": str(tmp_path / "first"),
        "problems": {"kind": "opchain"},
        "model": {"path": str(tmp_path / "m")},
        "sft": {"optimizer": "adamw"},
        "prm": {"sign": {"target": "sign"}},
        "arms": {"baseline": {}, "both": {"line_reward": "sum", "prm": "sign", "value_init": "sign"}},
    }
    (tmp_path / "m").mkdir()
    finished = RunDirectory.create(parse_recipe(base, origin="r"))
    graph = stage_graph(finished.recipe)
    for name, stage in graph.items():
        for pattern in stage.writes:
            write_json(finished.path / pattern.replace("*", "jsonl") / "model" / "model.safetensors", {})
        with finished.stage(name, files=file_prints(finished.recipe, stage.reads)):
            pass
    other = base | {"out": str(tmp_path / "second"), table: base.get(table, {}) | {key: value}}
    run = RunDirectory(tmp_path / "second", parse_recipe(other, origin="r"))
    found = reusable(run, [finished.path])
    assert set(graph) - set(found.taken) - {"report"} == again
    assert found.notes == ()
