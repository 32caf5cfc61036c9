"""benchmarks/study: the study's own recipes load, and a tiny cell is run for real."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from study_world import ROOT

from psgpo.config import load_recipe
from psgpo.errors import UserError
from psgpo.runs.stages import stage_graph
from study import carry
from study.cells import FOLDER, Study
from study.cost import lent
from study.plan import costs
from study.results import Result, load_all, unfinished

STUDY = Study.load()


@pytest.mark.parametrize("path", sorted((FOLDER / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_alone(path: Path) -> None:
    assert "baseline" in load_recipe(path).arms


@pytest.mark.parametrize("cell", STUDY.cells)
def test_every_cell_is_a_recipe_with_the_arms_that_its_tables_show(cell: str) -> None:
    recipe = STUDY.recipe(cell, STUDY.seeds(cell)[0])
    chosen = STUDY.cells[cell]
    policies = {"sft", *recipe.arms}
    assert {*STUDY.arms(cell), *chosen.curve_arms, *chosen.best_of} <= policies
    assert set(chosen.gain_of) <= set(recipe.arms)
    for bound in itertools.chain(*chosen.gain_of.values()):
        other, _, arm = bound.rpartition("/")
        assert arm in STUDY.recipe(other or cell, 0).arms
    assert chosen.best_of_prm is None or chosen.best_of_prm in recipe.prm
    for arm in STUDY.arms(cell):
        for other, reference in STUDY.references(cell, arm):
            assert reference in {"sft", *STUDY.recipe(other, STUDY.seeds(other)[0]).arms}


@pytest.mark.parametrize("cell", ["budget-3200", "labels-search"])
def test_the_cell_that_changes_nothing_is_all_lent(cell: str) -> None:
    """So the recipe behind it says of everything else what main.toml says."""
    assert lent(STUDY, cell, 0) == set(stage_graph(STUDY.recipe(cell, 0))) - {"report"}


def test_the_middle_of_the_map_is_lent_but_for_one_arm() -> None:
    left = set(stage_graph(STUDY.recipe("map-middle", 10))) - lent(STUDY, "map-middle", 10)
    assert left == {"rl-both", "evaluate-both", "report"}


def test_without_the_bases_run_a_cell_that_stands_alone_runs_all_and_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(carry, "run_stages", lambda run, stages: asked.extend(stages))
    monkeypatch.setattr(carry, "run_posts", lambda *_, **__: False)
    study = Study.load(into=tmp_path)
    assert not carry.run_one(study, "map-many", 10, processes=1, go_on=lambda: True)
    assert "kl-10 is not on this machine: what it would lend is run here" in capsys.readouterr().err
    assert {"problems", "sft", "rl-baseline", "labels"} <= set(asked)
    with pytest.raises(UserError, match="kl-10: the run of base kl is not on this machine, though its result is"):
        carry.run_one(study, "k-5", 10, processes=1, go_on=lambda: True)


def test_the_plan_counts_what_no_base_is_there_to_lend(tmp_path: Path) -> None:
    shutil.copytree(STUDY.results / "kl", tmp_path / "results" / "kl")  # done once, elsewhere
    study = dataclasses.replace(STUDY, runs=tmp_path, results=tmp_path / "results")
    (alone,) = costs(study, ["map-many"], [13])
    assert alone.shared == ()
    (tmp_path / "kl-13").mkdir()
    (tmp_path / "kl-13" / "recipe.json").write_text("{}")
    (beside,) = costs(study, ["map-many"], [13])
    assert beside.shared
    assert set(alone.stages) == {*beside.stages, *beside.shared}


SAME_PRM = ("shapes", "credit", "critic", "safeguards", "selection", "lambda-fail-0_5", "prm-kinds")


@pytest.mark.parametrize("cell", SAME_PRM)
def test_the_prm_is_mains(cell: str) -> None:
    assert {"rl-baseline", "labels", "prm-sign", "evaluate-baseline"} <= lent(STUDY, cell, 0)


@pytest.mark.parametrize("cell", [name for name, cell in STUDY.cells.items() if cell.base])
def test_every_base_lends_something(cell: str) -> None:
    assert lent(STUDY, cell, 0)


@pytest.mark.slow
def test_a_tiny_cell_for_real(tmp_path: Path, tiny_overrides: list[str]) -> None:
    (tmp_path / "recipes").symlink_to(FOLDER / "recipes")
    kept = [override for override in tiny_overrides if not override.startswith("prm.progress")]
    overrides = [*kept, "rl.value_fit_responses=16", "prm.exact.epochs=1", "device=cpu"]
    (tmp_path / "study.toml").write_text(
        f"""
runs = "{tmp_path}/runs"
[seconds]
rl = 1
[groups.main]
title = "tiny"
question = "Does it run?"
recipe = "main.toml"
seeds = [0]
[cells.main]
group = "main"
title = "tiny"
overrides = {json.dumps(overrides)}
curve_arms = ["dense"]
best_of = ["baseline"]
best_of_prm = "sign"
best_of_samples = 3
[cells.bolder]
group = "main"
title = "bolder"
base = "main"
overrides = {json.dumps([*overrides, "arms.dense.lambda_fail=0.5"])}
arms = ["dense"]
against = {{dense = ["baseline", "main/dense"]}}
""",
        encoding="utf-8",
    )

    def study(*arguments: str) -> str:
        command = [sys.executable, ROOT / "benchmarks" / "study", *arguments, "--study", tmp_path / "study.toml"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = study("run")
    assert "rl-dense: done" in said
    assert "2 done, 0 failed, 0 left" in said
    assert said.count("rl-baseline: started") == 1
    loaded = Study.load(tmp_path / "study.toml")
    for cell in ("main", "bolder"):
        assert unfinished(loaded, load_all(loaded), cell, 0) == []
    taken = {stage for stage, of in load_all(loaded)["bolder", 0].data["stages"].items() if "taken_from" in of}
    assert taken == lent(loaded, "bolder", 0) >= {"sft", "labels", "prm-sign"}
    result = Result.load(loaded.result_path("main", 0))
    assert result is not None
    assert loaded.result_path("main", 0).stat().st_size < 60_000
    # Evaluations of the run and of the study say the same of the same policy.
    summary = json.loads((tmp_path / "runs/main-0/evaluation/dense/summary.json").read_text())
    assert result.pass_rates("dense").mean() == pytest.approx(summary["pass_at_1"]["value"])
    assert result.data["curves"]["dense"][-1][1] == pytest.approx(summary["pass_at_1"]["value"])
    assert len(result.data["best_of"]["baseline"]["chosen"]["sign-mean"]) == 3
    assert result.lengths("dense")[1].mean() == pytest.approx(summary["pass_at_1"]["value"])
    assert "0 runs to go" in study("run")
    study("table", "--out", str(tmp_path / "out"))
    page = (tmp_path / "out" / "main.md").read_text()
    assert "| tiny | dense | 1 |" in page
    assert "| main/dense | 1 |" in page
