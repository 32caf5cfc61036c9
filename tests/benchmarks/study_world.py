"""A small study with made-up results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psgpo.jsonl import write_json
from study.cells import Study
from study.results import pack_lengths

ROOT = Path(__file__).parents[2]

P, SAMPLES = 16, 8
OPERATIONS = [1 + number % 8 for number in range(P)]
RECIPE = """
name = "small"
out = "runs/small"
[problems]
kind = "opchain"
test = 16
[prm.sign]
target = "sign"
[arms.baseline]
[arms.dense]
line_reward = "sum"
prm = "sign"
[arms.value]
value_init = "sign"
"""
STUDY = """
runs = "{folder}/runs"
[seconds]
problems = 10
sft = 1
rl = 10
responses = 1
label = 50
merge = 1
linear = 1
prm = 1
evaluate = 2
[groups.main]
title = "Main"
question = "Does it help?"
recipe = "small.toml"
seeds = [0, 1, 2]
[groups.more]
title = "More"
question = "And here?"
recipe = "small.toml"
seeds = [0, 1]
[cells.main]
group = "main"
title = "first"
curve_arms = ["dense"]
[cells.warm]
group = "more"
title = "warmer"
base = "main"
overrides = ["sampling.temperature=1.2"]
arms = ["dense"]
against = {{dense = ["main/dense"]}}
"""


def small_study(folder: Path, text: str = STUDY) -> Study:
    """The study of `text` in a folder of its own."""
    (folder / "recipes").mkdir(parents=True, exist_ok=True)
    (folder / "recipes" / "small.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "study.toml").write_text(text.format(folder=folder), encoding="utf-8")
    return Study.load(folder / "study.toml")


def policy(passes: Sequence[int]) -> dict[str, Any]:
    """A policy of a result; its n-th problem takes n tokens more than the first; half the passes make a greedy one."""
    passed = [[sample < count for sample in range(SAMPLES)] for count in passes]
    tokens = [[10 + number] * SAMPLES for number in range(len(passes))]
    greedy = [int(2 * count >= SAMPLES) for count in passes]
    return {"samples": SAMPLES, "passes": list(passes), "greedy": greedy, "lengths": pack_lengths(tokens, passed)}


def made_result(
    study: Study, cell: str, seed: int, passes: Mapping[str, Sequence[int]] | None = None, **other: Any
) -> dict[str, Any]:
    """Write a result; `passes` of policies in place of 2 of 8 everywhere, `other` top-level keys in place of these."""
    recipe = study.recipe(cell, seed)
    data: dict[str, Any] = {
        "cell": cell,
        "seed": seed,
        "recipe": recipe.model_dump(mode="json"),
        "manifest": {},
        "stages": {"rl-dense": {"cpu_seconds": 100.0}},
        "sft_sha256": f"sft of {seed}",
        "problems": f"problems of {seed}",
        "operations": OPERATIONS,
        "policies": {name: policy((passes or {}).get(name, [2] * P)) for name in ("sft", *recipe.arms)},
        "training": {arm: {"step": [1, 2], "pass_rate": [0.1, 0.2]} for arm in recipe.arms},
        "curves": {"dense": [[30, 0.125], [60, 0.5]]},
        "best_of": {},
        "prm": {name: {"exact": prm_measure(0.9 + seed / 100)} for name in recipe.prm},
        "labels": {
            "responses": 8,
            "failed_responses": 6,
            "per_failed_response": {"completions": 40.0, "executions": 30.0, "cpu_seconds": 10.0},
        }
        | {"agreement": 0.9, "majority": 0.6, "labelled": 1.0, "precision_negative": 0.8},
    }
    data |= other
    write_json(study.result_path(cell, seed), data)
    return data


def prm_measure(auroc: float) -> dict[str, Any]:
    first = {"responses": 4, "exact": 0.5, "within_one": 0.75}
    return {"auroc": auroc, "accuracy": 0.8, "majority": 0.6, "first_error": first, "f1": 0.5, "ece": 0.1}
