"""`prm.<name>.twins`: the stage that makes them, and what is learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from own_recipe import own_recipe

from psgpo.config import parse_recipe
from psgpo.labeling import response_behind
from psgpo.prm.data import PrmExample
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import run_stage, stage_graph
from psgpo.runs.work import reward_model
from psgpo.runs.work.shared import read_labels

TABLES = {
    "rl": {"steps": 2, "checkpoints": 2, "prompts_per_step": 2, "minibatches": 1},
    "labels": {"strategy": "splice", "references": True, "shards": 1, "compare_linear": 0, "hunt": 0, "holdout": 0.3},
    "prm": {"plain": {"target": "progress", "epochs": 1}, "twins": {"target": "progress", "epochs": 1, "twins": True}},
    "arms": {"baseline": {}, "a": {"line_reward": "progress", "prm": "twins"}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    table = own_recipe(tmp_path_factory.mktemp("twins"), trained=24) | TABLES
    run = RunDirectory.create(parse_recipe(table, origin="r"))
    for stage in ("problems", "sft", "rl-baseline", "responses", "labels-1", "labels", "twins"):
        run_stage(run, stage, lambda done, total: None)
    return run


def test_only_prms_that_learn_from_twins_wait_for_them(run: RunDirectory) -> None:
    graph = stage_graph(run.recipe)
    assert "twins" in graph["prm-twins"].needs
    assert "twins" not in graph["prm-plain"].needs
    kept = {"prm": {"plain": run.recipe.prm["plain"]}, "arms": {"baseline": run.recipe.arms["baseline"]}}
    assert "twins" not in stage_graph(run.recipe.model_copy(update=kept))


def test_twins_of_the_responses_that_are_learned_from_are_learned_from(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, tuple[list[PrmExample], list[PrmExample]]] = {}
    real = reward_model.train_prm

    def watched(start: Path, train: Sequence[PrmExample], choosing: Sequence[PrmExample], *args: Any, **kw: Any) -> Any:
        asked[Path(args[1]).name] = (list(train), list(choosing))
        return real(start, train, choosing, *args, **kw)

    monkeypatch.setattr(reward_model, "train_prm", watched)
    for name in ("plain", "twins"):
        run_stage(run, f"prm-{name}", lambda done, total: None)

    made = read_labels(run.path / "labels" / "twins.jsonl")
    assert made
    plain, choosing = asked["plain"]
    learned = {example.key for example in plain}
    wanted = [twin.response for twin in made if response_behind(twin.response) in learned]
    assert 0 < len(wanted) < len(made)
    assert asked["twins"][0][: len(plain)] == plain
    added = asked["twins"][0][len(plain) :]
    assert [example.key for example in added] == [(r.problem_id, r.index, r.checkpoint) for r in wanted]
    assert asked["twins"][1] == choosing


def test_the_same_twins_are_made_again(run: RunDirectory) -> None:
    file = run.path / "labels" / "twins.jsonl"
    before = read_labels(file)
    file.unlink()
    stage_graph(run.recipe)["twins"].work(run, lambda done, total: None)
    after = read_labels(file)
    assert [(twin.response.token_ids, twin.labels) for twin in after] == [
        (twin.response.token_ids, twin.labels) for twin in before
    ]
