"""`[arms.<name>.rl]`: an arm trained, planned and exported with settings of its own."""

from __future__ import annotations

import json

import pytest
from own_recipe import own_recipe

from psgpo.config import Recipe, parse_recipe
from psgpo.engines.verl.overrides import Cluster, check_arm, overrides
from psgpo.errors import UserError
from psgpo.report.html import flatten
from psgpo.runs.directory import RunDirectory
from psgpo.runs.networks import arm_networks
from psgpo.runs.plan.make import planner_of, remedy
from psgpo.runs.plan.work import Assumed, stages_work
from psgpo.runs.stages import run_stage

RL = {"steps": 2, "checkpoints": 1, "prompts_per_step": 4, "minibatches": 1, "kl_beta": 0.5, "microbatch_tokens": 256}
OWN = {"steps": 3, "prompts_per_step": 2, "kl_beta": 0.0, "microbatch_tokens": 512}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    table = own_recipe(tmp_path_factory.mktemp("own")) | {"rl": RL, "arms": {"baseline": {}, "a": {"rl": OWN}}}
    return parse_recipe(table, origin="r")


def test_an_arm_is_trained_with_its_own_settings(recipe: Recipe) -> None:
    run = RunDirectory.create(recipe)
    rows = {}
    for stage in ("problems", "sft", "rl-baseline", "rl-a"):
        run_stage(run, stage, lambda done, total: None)
    for arm in recipe.arms:
        lines = (run.path / "rl" / arm / "metrics.jsonl").read_text().splitlines()
        rows[arm] = [json.loads(line) for line in lines]
    assert [len(rows["baseline"]), len(rows["a"])] == [2, 3]
    assert rows["baseline"][1]["kl"] != 0
    assert rows["baseline"][1]["kl_penalty"] != 0
    assert [row["kl_penalty"] for row in rows["a"]] == [0, 0, 0]
    assert all("kl" not in row for row in rows["a"])
    assert [arm_networks(run, arm)[1] is None for arm in recipe.arms] == [False, True]
    with pytest.raises(UserError, match=r"another recipe \(arms\.a\.rl\.steps: 3 -> 4\)"):
        RunDirectory.create(changed(recipe, steps=4))
    assert RunDirectory.open(run.path).recipe == recipe


def test_the_report_shows_what_the_arm_has_and_no_more(recipe: Recipe) -> None:
    shown = {key: value for key, value in flatten(recipe.model_dump(mode="json")) if key.startswith("arms.a.rl.")}
    assert shown == {f"arms.a.rl.{key}": str(value) for key, value in OWN.items()}


def test_it_is_planned_with_its_own_settings(recipe: Recipe) -> None:
    assumed = Assumed(
        prompt_tokens=9, response_tokens=64, line_tokens=8, pass_rate=0.5, problems={"train": 4, "label": 4, "test": 2}
    )
    work = {one.stage: one for one in stages_work(recipe, assumed)}
    assert (work["rl-baseline"].judged, work["rl-a"].judged) == (2 * 4, 3 * 2)
    stages = {stage.stage: stage for stage in planner_of(recipe, 20).stages()}
    assert stages["rl-a"].parts["batch"] == stages["rl-baseline"].parts["batch"] / 2
    assert ("reference" in stages["rl-baseline"].parts, "reference" in stages["rl-a"].parts) == (True, False)
    with_kl = {one.stage: one for one in stages_work(changed(recipe, kl_beta=0.1), assumed)}
    assert with_kl["rl-a"].passes - work["rl-a"].passes == 3 * 2 * (9 + 64)  # a pass of the reference over each token
    assert "rl.microbatch_tokens = 84, arms.a.rl.microbatch_tokens = 84" in remedy(recipe, 20, 1)


def test_verl_gets_its_own_settings_and_refuses_them_by_their_key(recipe: Recipe) -> None:
    lines = overrides(recipe, "a", Cluster(gpus=1), prompt_tokens=20)
    assert "trainer.total_training_steps=3" in lines
    assert "algorithm.use_kl_in_reward=false" in lines
    assert "trainer.total_training_steps=2" in overrides(recipe, "baseline", Cluster(gpus=1), prompt_tokens=20)
    assert "actor_rollout_ref.actor.loss_agg_mode=token-mean" in lines
    lines = overrides(changed(recipe, clip_high=0.28, loss_mean="responses"), "a", Cluster(gpus=1), prompt_tokens=20)
    assert "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean" in lines
    assert {"actor_rollout_ref.actor.clip_ratio_low=0.2", "actor_rollout_ref.actor.clip_ratio_high=0.28"} < {*lines}
    with pytest.raises(UserError, match=r"arms\.a\.rl\.truncated = 'mask': verl learns from"):
        check_arm(changed(recipe, truncated="mask"), "a", Cluster(gpus=1), problems=4)
    linear = changed(recipe, schedule="linear")
    check_arm(linear, "baseline", Cluster(gpus=1), problems=4)
    with pytest.raises(UserError, match=r"arms\.a\.rl\.schedule = 'linear': verl has"):
        check_arm(linear, "a", Cluster(gpus=1), problems=4)


def changed(recipe: Recipe, **own: object) -> Recipe:
    """With other settings of the arm `a`."""
    return parse_recipe(recipe.model_dump(mode="json") | {"arms": {"baseline": {}, "a": {"rl": OWN | own}}}, origin="r")
