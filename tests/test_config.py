"""Recipes: what is refused, and that the message names the key and the way out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psgpo.config import load_recipe, parse_recipe
from psgpo.errors import UserError

ROOT = Path(__file__).parent.parent
Table = dict[str, Any]
BASE: Table = {"name": "t", "out": "runs/t", "problems": {"kind": "opchain"}, "arms": {"baseline": {}}}


def changed(change: Callable[[Table], object]) -> Table:
    table = copy.deepcopy(BASE)
    change(table)
    return table


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_loads(path: Path) -> None:
    assert load_recipe(path).arms


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(rll={}), ["'rll'", "did you mean 'rl'", "allowed here"]),
        (lambda t: t.update(rl={"stepz": 1}), ["rl.stepz", "did you mean 'steps'"]),
        (lambda t: t.update(rl={"steps": "many"}), ["rl.steps", '"many"', "integer"]),
        (lambda t: t.update(rl={"steps": 0}), ["rl.steps", "greater than 0"]),
        (lambda t: t["problems"].update(trian=1), ["problems.trian", "did you mean 'train'"]),
        (lambda t: t["arms"].update(a={"lamda": 1}), ["arms.a.lamda", "lambda_pass"]),
        (lambda t: t["arms"].update(a={"line_reward": "sun", "prm": "s"}), ["arms.a.line_reward", "'sum'"]),
        (lambda t: t["arms"].update(a={"line_reward": "sum", "prm": "s"}), ["arms.a.prm", "allowed: ['oracle']"]),
        (lambda t: t["arms"].update(a={"line_reward": "sum"}), ["arms.a", "go together"]),
        (lambda t: t["arms"].pop("baseline"), ["arms.baseline"]),
        (lambda t: t.pop("name"), ["missing key 'name'"]),
        (lambda t: t.update(rl={"minibatches": 3}), ["rl.minibatches", "divide"]),
        (lambda t: t["arms"].update(a={"rl": {"kl_betta": 1}}), ["arms.a.rl.kl_betta", "did you mean 'kl_beta'"]),
        (lambda t: t["arms"].update(a={"rl": {"kl_beta": -1}}), ["arms.a.rl.kl_beta", "greater than or equal to 0"]),
        (lambda t: t["arms"].update(a={"rl": {"minibatches": 3}}), ["arms.a.rl.minibatches", "divide"]),
        (lambda t: t["arms"].update(a={"rl": {"steps": 3}}), ["arms.a.rl.checkpoints cannot exceed arms.a.rl.steps"]),
        (lambda t: t["arms"].update(baseline={"rl": {"kl_beta": 0.02}}), ["arms.baseline", "without settings"]),
        (lambda t: t.update(sft={"examples": 0}), ["sft.examples"]),
        (lambda t: t.update(prompt_template="no slot"), ["{prompt}"]),
        (lambda t: t["problems"].update(kind="csv"), ["problems", "'opchain'", "'jsonl'"]),
    ],
)
def test_refusals_name_the_key_and_what_is_allowed(change: Callable[[Table], object], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe(changed(change), origin="r.toml")
    message = str(caught.value)
    assert message.startswith("r.toml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


NGRAMS = {"kind": "ngrams", "target": "sign"}
DENSE = {"line_reward": "sum", "prm": "oracle"}
ORM = {"prm": {"o": NGRAMS | {"scope": "program"}}}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"prm": {"n": NGRAMS | {"optimizer": "muon"}}},
            "prm.n: optimizer = 'muon', microbatch_tokens and layers are for kind",
        ),
        ({"prm": {"e": NGRAMS | {"kind": "encoder", "init": "x", "microbatch_tokens": 8}}}, "not 'encoder'"),
        ({"prm": {"n": {"target": "sign", "layers": 9}}}, "prm.n.layers = 9: the policy has model.layers = 3"),
        ({"labels": {"halving": True}}, "halving is how splicing searches: set strategy = 'splice'"),
        (
            {"prm": {"p": {"target": "progress", "twins": True}}},
            "prm.p.twins: their endings are those of splices; set labels.strategy = 'splice'",
        ),
        (
            {"prm": {"p": {"target": "progress", "twins": True, "labels": "oracle"}}},
            "twins are made of the run's own labels",
        ),
        (
            {"labels": {"source": "mutation"}, "prm": {"p": {"target": "sign", "twins": True}}},
            "prm.p.twins: their endings are those of splices",
        ),
        ({"prm": {"n": NGRAMS | {"twins": True}}}, "twins = True needs a PRM of lines that starts from the policy"),
        (
            ORM | {"arms": {"a": {"line_reward": "program", "prm": "o", "length_norm": False}}},
            "'program' has one score",
        ),
        (ORM | {"arms": {"a": {"line_reward": "program", "prm": "o", "neutral_lines": False}}}, "are about lines"),
        (ORM | {"arms": {"a": {"line_reward": "program", "prm": "o"}}}, "gives logits: none is the worst"),
        ({"arms": {"a": {"value_map": "identity"}}}, "arms.a.value_map = 'identity' maps a PRM's scores"),
        ({"rl": {"steps": 5, "critic_warmup": 5}, "arms": {}}, "leaves the policy no step to learn in"),
        ({"arms": {"a": {"line_reward": "program"}}}, "'sum', 'progress' or another of docs/reward-shapes.md"),
        ({"mutation": {"generated": 3}}, "the table mutation makes mutants; set labels.source = 'mutation'"),
        ({"prompt_template": "{prompt}{prompt|trim}"}, "prompt_template holds both {prompt} and {prompt|trim}"),
        (
            {"arms": {"a": DENSE | {"lambda_fail": 0, "lambda_pass": 0, "unit_test_reward": 0}}},
            "leaves nothing to learn from",
        ),
        (
            {"prm": {"p": {"target": "sign", "init": "x"}}, "arms": {"a": {"value_init": "p"}}},
            "arms.a.value_init: prm.p.init is of no new model's tokenizer",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(table: Table, words: str) -> None:
    table = BASE | table
    with pytest.raises(UserError) as caught:
        parse_recipe(table | {"arms": {"baseline": {}} | table["arms"]}, origin="r")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_an_earlier_version_may_have_settings_without_effect(tmp_path: Path) -> None:
    recipe = parse_recipe(BASE, origin="r").model_dump(mode="json")
    recipe["rl"] |= {"steps": 5, "critic_warmup": 9}
    recipe["arms"]["a"] = recipe["arms"]["baseline"] | {"value_map": "identity"}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    assert load_recipe(path).rl.critic_warmup == 9
    with pytest.raises(UserError, match="maps a PRM's scores"):
        parse_recipe(recipe, origin="r")


def test_a_resolved_recipe_loads_again() -> None:
    """With every key written out, those of unused tables too."""
    resolved = parse_recipe(BASE, origin="r").model_dump(mode="json")
    assert parse_recipe(resolved, origin="r").model_dump(mode="json") == resolved


def test_the_recipe_of_a_run_directory_is_a_recipe_too(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "demo.toml", ["seed=3"])
    file = tmp_path / "recipe.json"
    file.write_text(recipe.model_dump_json(), encoding="utf-8")
    assert load_recipe(file) == recipe
    assert load_recipe(file, ["seed=4", "arms.dense.lambda_fail=0.5"]).arms["dense"].lambda_fail == 0.5
    for text, words in (("{", r"recipe\.json: not valid JSON"), ("[]", "expected a JSON object")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=words):
            load_recipe(file)


def test_an_arm_has_settings_of_its_own_for_what_it_names_and_the_recipes_for_the_rest() -> None:
    own = {"kl_beta": 0.0, "steps": 7, "clip": 0.2}
    table = changed(lambda t: t.update(rl={"kl_beta": 0.5, "gae_lambda": 0.8, "clip": 0.3}))
    table["arms"]["a"] = {"rl": own}
    recipe = parse_recipe(table, origin="r")
    assert recipe.rl_of("baseline") == recipe.rl
    merged = recipe.rl_of("a")
    # clip is named with what the default is too: it still counts, over the recipe's.
    assert (merged.kl_beta, merged.steps, merged.clip, merged.gae_lambda) == (0.0, 7, 0.2, 0.8)
    # The resolved recipe keeps what was written and no more, so that the rest still follows the table rl.
    resolved = recipe.model_dump(mode="json")
    assert resolved["arms"]["a"]["rl"] == own
    again = parse_recipe(resolved | {"rl": resolved["rl"] | {"gae_lambda": 0.5}}, origin="r")
    assert (again.rl_of("a").gae_lambda, again.rl_of("a").kl_beta) == (0.5, 0.0)


def test_a_reward_form_needs_the_prm_it_was_made_for() -> None:
    table = changed(lambda t: t.update(prm={"sign": {"target": "sign"}}))
    table["arms"]["a"] = {"line_reward": "progress", "prm": "sign"}
    with pytest.raises(UserError, match="needs a PRM of target 'progress'"):
        parse_recipe(table, origin="r")


def test_failing_never_pays_more_than_passing() -> None:
    table = changed(lambda t: t["arms"].update(a={"partial_credit": 0.5, "unit_test_reward": 0.5}))
    assert parse_recipe(table, origin="r").arms["a"].partial_credit == 0.5
    for full in (0, 0.25):
        table["arms"]["a"]["unit_test_reward"] = full
        with pytest.raises(UserError, match=rf"partial_credit = 0\.5 is more than unit_test_reward = {full:g}: "):
            parse_recipe(table, origin="r")


def soft(**tables: Any) -> Table:
    return BASE | {"labels": {"strategy": "soft"}, "prm": {"rate": {"target": "soft"}}} | tables


def test_a_difference_starts_where_its_prm_does() -> None:
    arms = {
        "baseline": {},
        "sign": {"line_reward": "difference", "prm": "sign"},
        "exact": {"line_reward": "difference", "prm": "oracle"},
        "pav": {"line_reward": "difference", "prm": "rate"},
        "own": {"line_reward": "difference", "prm": "rate", "start_score": 0.25},
    }
    recipe = parse_recipe(soft(arms=arms, prm={"rate": {"target": "soft"}, "sign": {"target": "sign"}}), origin="r")
    starts = {name: arm.start_score for name, arm in recipe.arms.items()}
    assert starts == {"baseline": 1.0, "sign": 1.0, "exact": 1.0, "pav": 0.0, "own": 0.25}
    assert parse_recipe(recipe.model_dump(mode="json"), origin="again") == recipe


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (soft(labels={}), "prm.rate.target = 'soft' needs the rates of labels.strategy = 'soft'"),
        (soft(prm={"rate": {"target": "soft", "labels": "oracle"}}), "leave labels and neutral_labels out"),
        (soft(arms={"a": {"line_reward": "sum", "prm": "rate"}}), "'sum' needs a PRM of target 'sign'"),
        (soft(arms={"a": {"line_reward": "first-error", "prm": "rate"}}), "'first-error' needs a PRM of target 'sign'"),
        (
            soft(arms={"a": {"line_reward": "min-form", "prm": "rate", "line_score": "signed"}}),
            "line_score = 'signed' needs a PRM of target 'sign'",
        ),
        (soft(arms={"a": {"line_reward": "sum", "prm": "oracle", "start_score": 0}}), "start_score is of line_reward"),
    ],
)
def test_line_rewards_and_targets_that_do_not_fit(table: Table, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe(table | {"arms": {"baseline": {}} | table["arms"]}, origin="r")
    assert words in str(caught.value)


def test_overrides(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "demo.toml", ["rl.steps=7", "out=runs/other", "rl.whiten_advantages=false"])
    assert (recipe.rl.steps, str(recipe.out), recipe.rl.whiten_advantages) == (7, "runs/other", False)
    with pytest.raises(UserError, match=r"key\.path=value"):
        load_recipe(ROOT / "recipes" / "demo.toml", ["rl.steps"])
    with pytest.raises(UserError, match="no such recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = \n")
    with pytest.raises(UserError, match=r"bad\.toml: not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(model={"hidden_size": 65}), ["model", "even multiple"]),
        (lambda t: t.update(model={"path": "m"}), ["sft.optimizer", "adamw"]),
        (lambda t: t["problems"].update(train_operations=[9, 6]), ["train_operations", "[fewest, most]"]),
        (lambda t: t.update(rl={"clip": float("inf")}), ["rl.clip", "finite"]),
        (lambda t: t.update(sandbox={"memory_mb": 8}), ["sandbox.memory_mb", "64"]),
        (lambda t: t.update(sft={"lora": True}), ["sft.lora", "model.lora.rank"]),
        (lambda t: t.update(sft={"lora": True, "examples": 0}, model={"lora": {}}), ["sft.lora", "sft.examples"]),
        (lambda t: t.update(sampling={"engine_options": {"seed": 1}}), ["sampling.engine_options", "vllm"]),
    ],
)
def test_recipes_that_could_not_run_do_not_load(change: Callable[[Table], object], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe(changed(change), origin="r.toml")
    for word in words:
        assert word in str(caught.value)
