"""`labels.of`: labels of responses that another run's policy wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from own_recipe import own_recipe

from psgpo.config import parse_recipe
from psgpo.errors import UserError
from psgpo.models import train_tokenizer
from psgpo.runs.directory import RunDirectory
from psgpo.runs.dry import dry_run
from psgpo.runs.orchestrate import stages_to_do
from psgpo.runs.plan import Wanted, make_plan
from psgpo.runs.stages import run_stage, stage_graph

TABLES = {
    "rl": {"steps": 2, "checkpoints": 2, "prompts_per_step": 2, "minibatches": 1},
    "labels": {"k": 1, "draw": 1, "shards": 1, "compare_linear": 0},
    "prm": {"p": {"target": "sign"}},
    "arms": {"baseline": {}, "both": {"line_reward": "sum", "prm": "p"}},
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose arm `both` is trained (as if without a PRM: what matters are its checkpoints)."""
    table = own_recipe(tmp_path_factory.mktemp("first")) | TABLES | {"prm": {}, "arms": {"baseline": {}, "both": {}}}
    run = RunDirectory.create(parse_recipe(table, origin="r"))
    for stage in ("problems", "sft", "rl-both"):
        run_stage(run, stage, lambda done, total: None)
    return run


def second(first: RunDirectory, out: Path, of: Path) -> RunDirectory:
    table = first.recipe.model_dump(mode="json", exclude_none=True) | TABLES
    table |= {"out": str(out), "labels": TABLES["labels"] | {"of": str(of)}}
    return RunDirectory(out, parse_recipe(table, origin="r"))


def test_responses_and_completions_are_the_other_policys(first: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory.create(second(first, tmp_path / "run", first.path / "rl" / "both").recipe)
    assert stage_graph(run.recipe)["responses"].needs == ("problems", "sft")
    assert f"labels: responses of {first.path / 'rl' / 'both'}, step-1, step-2\n" in dry_run(run.recipe)
    for stage in ("problems", "sft", "responses", "labels-1", "labels"):
        run_stage(run, stage, lambda done, total: None)
    labels = [json.loads(line) for line in (run.path / "labels" / "labels.jsonl").read_text().splitlines()]
    assert {label["response"]["checkpoint"] for label in labels} == {"both/step-1", "both/step-2"}
    assert len(labels) == 2 * 4
    assert any(label["probes"] for label in labels)  # prefixes were completed, by the one policy that was there
    assert not (run.path / "rl").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda arm: shutil.rmtree(arm), r"labels\.of = '.*both': no such folder; give the folder of an RL arm"),
        (lambda arm: shutil.rmtree(arm / "checkpoints"), r"no checkpoints/step-N in it"),
        (lambda arm: shutil.rmtree(arm / "model"), r"no model in it, so more checkpoints may follow"),
        (
            lambda arm: train_tokenizer(["y = 2"], 300).save_pretrained(arm / "checkpoints" / "step-1"),
            "its tokenizer is not that of this run's policy",
        ),
    ],
)
def test_what_cannot_be_labelled_is_refused(first: RunDirectory, tmp_path: Path, spoil, words: str) -> None:
    arm = tmp_path / "both"
    shutil.copytree(first.path / "rl" / "both", arm)
    run = second(first, tmp_path / "run", arm)
    dry_run(run.recipe)
    spoil(arm)
    with pytest.raises(UserError, match=words):
        dry_run(run.recipe)
    RunDirectory.create(run.recipe)
    for stage in ("problems", "sft"):
        run_stage(run, stage, lambda done, total: None)
    with pytest.raises(UserError, match=words):
        run_stage(run, "responses", lambda done, total: None)


def test_a_run_that_lacks_it_is_refused_before_anything_is_trained(first: RunDirectory, tmp_path: Path) -> None:
    run = second(first, tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"labels\.of = '.*nowhere': no such folder"):
        stages_to_do(run, None)
    assert "rl-baseline" in stages_to_do(run, ["rl-baseline"])  # which needs no labels


def test_a_plan_counts_the_checkpoints_that_are_there(first: RunDirectory, tmp_path: Path) -> None:
    def responses(of: Path) -> tuple[int, list[str]]:
        plan = make_plan(second(first, tmp_path, of).recipe, Wanted(device="cpu", pass_rate=1.0))
        return next(work.judged for work in plan.work if work.stage == "labels"), plan.notes

    arm = tmp_path / "arm"
    shutil.copytree(first.path / "rl" / "both", arm)
    shutil.rmtree(arm / "checkpoints" / "step-1")
    assert responses(arm) == (4, [])
    assert responses(tmp_path / "nowhere") == (
        8,
        [f"labels.of: {tmp_path / 'nowhere'} is not here, 2 checkpoints assumed"],
    )


def test_mutants_are_nobodys_responses(first: RunDirectory, tmp_path: Path) -> None:
    table = first.recipe.model_dump(mode="json", exclude_none=True)
    with pytest.raises(UserError, match=r"labels: of says whose responses are searched"):
        parse_recipe(table | {"labels": {"source": "mutation", "of": "x"}}, origin="r")
