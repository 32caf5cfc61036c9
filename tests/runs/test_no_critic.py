"""`rl.advantage`: an arm without a critic is trained, planned and shown without one, and not exported."""

from __future__ import annotations

import json

import pytest
from own_recipe import own_recipe

from psgpo.config import Recipe, parse_recipe
from psgpo.engines.verl.overrides import Cluster, check_arm
from psgpo.errors import UserError
from psgpo.runs.directory import RunDirectory
from psgpo.runs.plan.make import planner_of
from psgpo.runs.plan.work import Assumed, stages_work
from psgpo.runs.stages import run_stage

RL = {"steps": 1, "checkpoints": 1, "prompts_per_step": 2, "responses_per_prompt": 2, "minibatches": 1}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    arms = {"baseline": {}, "groups": {"rl": {"advantage": "rloo"}}}
    return parse_recipe(own_recipe(tmp_path_factory.mktemp("own")) | {"rl": RL, "arms": arms}, origin="r")


def test_it_is_trained_without_a_critic(recipe: Recipe) -> None:
    run, found = RunDirectory.create(recipe), {}
    for stage in ("problems", "sft", "rl-baseline", "rl-groups"):
        run_stage(run, stage, lambda done, total: None)
    for arm in recipe.arms:
        found[arm] = json.loads((run.path / "rl" / arm / "metrics.jsonl").read_text())
    assert "value_loss" in found["baseline"]
    assert "value_loss" not in found["groups"]
    same = {"pass_rate", "reward_lines", "tokens_per_response"}  # the same problems, responses and random numbers
    assert all(found["baseline"][name] == found["groups"][name] for name in same)


def test_it_is_planned_without_a_critic(recipe: Recipe) -> None:
    assumed = Assumed(
        prompt_tokens=9, response_tokens=64, line_tokens=8, pass_rate=0.5, problems={"train": 4, "label": 4, "test": 2}
    )
    work = {one.stage: one for one in stages_work(recipe, assumed)}
    # Reference and critic read, policy and critic learn: the critic is half of it.
    assert work["rl-groups"].passes == work["rl-baseline"].passes / 2
    parts = {stage.stage: stage.parts for stage in planner_of(recipe, 20).stages()}
    assert "critic" in parts["rl-baseline"]
    assert "critic" not in parts["rl-groups"]


def test_it_is_not_exported(recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"arms\.groups\.rl\.advantage = 'rloo': the export trains with a critic"):
        check_arm(recipe, "groups", Cluster(gpus=1), problems=8)
