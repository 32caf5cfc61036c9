"""A dry run refuses what a run would refuse, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from own_recipe import own_problems, own_recipe

from psgpo.config import Recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.models import create_policy, train_tokenizer
from psgpo.problems import load_problems_jsonl, save_problems_jsonl
from psgpo.runs.directory import RunDirectory
from psgpo.runs.dry import dry_run
from psgpo.runs.stages import run_stage


@pytest.fixture
def own(tmp_path: Path) -> dict:
    return own_recipe(tmp_path)


def tried(recipe: dict) -> str:
    return dry_run(parse_recipe(recipe, origin="recipe"))


def test_the_stages_are_listed_and_nothing_is_written(own: dict, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = tried(own)
    assert "own: " in said
    assert "(new)" in said
    assert "problems: 4 train, 4 label, 2 test" in said
    assert "ShiftForCausalLM, " in said
    assert "  rl-baseline        to do, after problems, sft\n" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_finished_stages_are_said_to_be_done(tiny_recipe: Recipe, tmp_path: Path) -> None:
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run"}))
    with run.stage("problems"):
        pass
    said = dry_run(run.recipe)
    assert "(goes on)" in said
    assert re.search(r"  problems +done\n", said)
    assert "after sft\n" in said


def test_a_directory_of_another_recipe_is_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe.model_copy(update={"out": tmp_path / "run"})
    RunDirectory.create(recipe)
    with pytest.raises(UserError, match="holds a run of another recipe"):
        dry_run(recipe.model_copy(update={"seed": 17}))


def test_a_test_problem_that_is_trained_on_is_refused(own: dict, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    with pytest.raises(UserError, match="test on problems that nothing is trained on"):
        tried(own)


def test_tests_that_no_sandbox_can_use_are_refused(own: dict, tmp_path: Path) -> None:
    problems = own_problems(4)
    problems[2] = replace(problems[2], tests=replace(problems[2].tests, comparator="closest"))
    save_problems_jsonl(tmp_path / "train.jsonl", problems)
    with pytest.raises(UserError, match=rf"train\.jsonl:3: problem {problems[2].id}: .*unknown 'closest'"):
        tried(own)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda model: (model / "model.safetensors").unlink(), "no weights"),
        (lambda model: (model / "tokenizer.json").unlink(), "no usable tokenizer"),
        (lambda model: shutil.rmtree(model), "no such folder"),
    ],
)
def test_a_model_folder_that_lacks_something_is_refused(own: dict, tmp_path: Path, spoil, words: str) -> None:
    spoil(tmp_path / "m")
    with pytest.raises(UserError, match=words):
        tried(own)


CHAT = "{% for m in messages %}[{{ m.content }}]{% endfor %}"


def other_model(folder: Path, *, context: int = 512, words: str = "y = 2") -> str:
    """A causal model with a tokenizer of its own, and no chat template."""
    tokenizer = train_tokenizer([words], 300)
    create_policy(
        tokenizer, hidden_size=16, intermediate_size=16, num_hidden_layers=1, max_position_embeddings=context
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_more_layers_than_the_policy_has_are_missed_now(own: dict) -> None:
    with pytest.raises(UserError, match=r"prm\.p\.layers = 99: the model to start from has"):
        tried(own | {"prm": {"p": {"target": "sign", "layers": 99}}, "arms": {"baseline": {}}})


def test_what_arms_want_of_a_causal_reward_model_is_checked(own: dict, tmp_path: Path) -> None:
    other = other_model(tmp_path / "other")
    prm = {"p": {"target": "sign", "init": other}}
    pays = {"baseline": {}, "a": {"line_reward": "sum", "prm": "p"}}
    starts = {"baseline": {}, "a": {"value_init": "p"}}
    assert "prm p: causal" in tried(own | {"prm": prm, "arms": pays})
    with pytest.raises(UserError, match=rf"prm\.p\.init {other}: its tokenizer is not that of the policy"):
        tried(own | {"prm": prm, "arms": starts})
    short = other_model(tmp_path / "short", context=80)  # 64 tokens for a response, and longer prompts than 16
    message = rf"prm\.p\.init {short}: its context holds 80 tokens, the longest prompt has \d+ and .* is 64; lower"
    with pytest.raises(UserError, match=message):
        tried(own | {"prm": {"p": {"target": "sign", "init": short}}, "arms": pays})


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_prompt_that_leaves_no_room_for_its_response_is_named(own: dict, tmp_path: Path, split: str) -> None:
    file = tmp_path / f"{split}.jsonl"
    first, *others = load_problems_jsonl(file)
    long = replace(first, prompt=first.prompt + " and x" * 400)
    save_problems_jsonl(file, [*others, long])
    message = (
        rf"{split} problem {long.id}: its prompt of \d+ tokens and sampling.max_new_tokens 64 are more than the 1024 "
    )
    message += rf"that the context of the policy {tmp_path / 'm'} holds; lower max_new_tokens"
    with pytest.raises(UserError, match=message):
        tried(own)
    run = RunDirectory.create(parse_recipe(own, origin="recipe"))
    run_stage(run, "problems", lambda done, total: None)
    with pytest.raises(UserError, match=message):  # before the hours of a training
        run_stage(run, "sft", lambda done, total: None)


def test_the_critics_context_counts_too(own: dict, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "m", tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 70}))
    with pytest.raises(UserError, match=rf"problem .* than the 70 that the context of the critic {tmp_path / 'short'}"):
        tried(own | {"critic": {"path": str(tmp_path / "short")}})


def test_a_causal_reward_model_needs_a_chat_template_unless_it_reads_the_policys_prompts(
    own: dict, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "m", tmp_path / "twin")
    (tmp_path / "m" / "chat_template.jinja").write_text(CHAT)
    chat = own | {"prompt_chat": True}
    assert tried(chat | {"prm": {"p": {"target": "sign", "init": str(tmp_path / "twin")}}})
    with pytest.raises(UserError, match="other: its tokenizer has no chat template"):
        tried(chat | {"prm": {"p": {"target": "sign", "init": other_model(tmp_path / "other")}}})


def test_under_a_launcher_vllm_is_refused_and_processes_are_counted(own: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "2 stages side by side" in tried(own)
    for key, value in (("WORLD_SIZE", "3"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(key, value)
    assert ", 3 processes together\n" in tried(own | {"device": "cpu"})
    with pytest.raises(UserError, match=r"sampling\.engine = 'vllm' draws for one process"):
        tried(own | {"sampling": {"max_new_tokens": 64, "engine": "vllm"}})


def test_an_encoder_is_no_policy_and_a_short_context_is_named(own: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its context holds \d+ tokens, sampling.max_new_tokens is 100000"):
        tried(own | {"sampling": {"max_new_tokens": 100_000}})
    config = tmp_path / "m" / "config.json"
    config.write_text(json.dumps({"model_type": "deberta-v2", "architectures": ["DebertaV2Model"]}))
    with pytest.raises(UserError, match="'deberta-v2' cannot be policy and critic"):
        tried(own)


def test_an_engine_that_is_not_installed_is_missed_now(own: dict) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    with pytest.raises(UserError, match="vLLM is not in this environment"):
        tried(own | {"sampling": {"max_new_tokens": 64, "engine": "vllm"}})


def test_problems_without_solutions_to_learn_are_missed_now(own: dict, tmp_path: Path) -> None:
    problems = [replace(problem, reference_solution=None) for problem in own_problems(4)]
    save_problems_jsonl(tmp_path / "train.jsonl", problems)
    with pytest.raises(UserError, match=r"train\.jsonl: no problem has a reference_solution to fine-tune on"):
        tried(own | {"sft": {"examples": 8, "optimizer": "adamw", "learning_rate": 1e-3}})


def test_until_lists_its_stage_and_what_that_needs(own: dict) -> None:
    recipe = parse_recipe(own, origin="recipe")
    said = dry_run(recipe, until=["rl-baseline"])
    assert re.findall(r"^  ([\w-]+)  ", said, re.MULTILINE) == ["problems", "sft", "rl-baseline"]
    with pytest.raises(UserError, match=r"'rl-nope' is no stage of this recipe; its stages are: problems"):
        dry_run(recipe, until=["rl-nope"])
