"""Reward models that read text, trained on the labelled responses of a run: their tokens need not be the policy's."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "prm"))

from prm_text_world import save_roberta
from prm_tokenizers import make
from prm_world import random_labels, save_policy

from psgpo.chats import recipe_template
from psgpo.config import PrmSettings, parse_recipe
from psgpo.errors import UserError
from psgpo.jsonl import write_jsonl
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.models import TokenValueModel, create_policy, load_tokenizer
from psgpo.prm import PrmScorer, ScorerRecord, open_scorer
from psgpo.prm.build import PrmJob, causal_examples
from psgpo.problems import save_problems_jsonl
from psgpo.prompts import encode_prompt, fill
from psgpo.records import AssertTests, LineLabels, Problem
from psgpo.rl.rollout import reads_ids
from psgpo.runs.directory import RunDirectory
from psgpo.runs.networks import arm_networks
from psgpo.runs.work.reward_model import train_reward_model

PROMPT = "add and return"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Policy, encoder, a causal model with another tokenizer, and labels of the policy's responses."""
    folder = tmp_path_factory.mktemp("reward-models")
    save_policy(folder / "run" / "sft" / "model")
    save_roberta(folder / "encoder")
    tokenizer = make("gpt2")
    create_policy(
        tokenizer, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    ).save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    write_jsonl(folder / "run" / "labels" / "labels.jsonl", (label.to_json() for label in labels(folder)))
    tests = AssertTests(entry_point="solve", checks=("assert solve(1)",))
    problems = {label.response.problem_id for label in labels(folder)}
    save_problems_jsonl(
        folder / "run" / "problems" / "label.jsonl",
        [Problem(id=name, prompt=PROMPT, tests=tests) for name in sorted(problems)],
    )
    return folder


def labels(folder: Path) -> list[LineLabels]:
    tokenizer = load_tokenizer(folder / "run" / "sft" / "model")
    made = random_labels(tokenizer, 240, seed=1)
    return [dataclasses.replace(label, tokenizer=tokenizer_fingerprint(tokenizer)) for label in made]


@pytest.mark.parametrize(
    ("name", "prm"),
    [
        ("encoder", {"kind": "encoder", "init": "encoder"}),
        ("orm", {"kind": "encoder", "scope": "program", "init": "encoder"}),
        ("ngrams", {"kind": "ngrams", "learning_rate": 0.02}),
        ("causal", {"init": "other"}),
    ],
)
def test_every_kind_learns_from_responses(folder: Path, name: str, prm: dict[str, object]) -> None:
    settings = {"target": "sign", "epochs": 1, "learning_rate": 3e-3} | prm
    if "init" in prm:
        settings["init"] = str(folder / str(prm["init"]))
    table = {
        "name": "t",
        "out": str(folder / "run"),
        "device": "cpu",
        "problems": {"kind": "jsonl", "train": "a", "test": "b"},
        "labels": {"holdout": 0.3},
        "prm": {name: settings},
        "arms": {"baseline": {}},
    }
    run = RunDirectory(folder / "run", parse_recipe(table, origin="test"))
    train_reward_model(run, lambda done, total: None, name)
    model = folder / "run" / "prm" / name / "model"
    scorer = open_scorer(model)
    assert scorer.record.kind == settings.get("kind", "causal")
    assert scorer.record.prompt_template == ("# {prompt}\n" if name == "causal" else "{prompt}")
    assert not reads_ids(model, load_tokenizer(folder / "run" / "sft" / "model"))


def test_responses_of_another_tokenizer_are_read_as_text(folder: Path) -> None:
    """Targets belong to lines, so they stay what they were; ids are those that scoring makes."""
    record = ScorerRecord(kind="causal", scope="line", target="sign", prompt_template="# {prompt}\n", threshold=0.0)
    data = folder / "run" / "labels" / "labels.jsonl"
    prompts = {label.response.problem_id: PROMPT for label in labels(folder)}
    job = PrmJob(
        data=(data,),
        out=folder / "job",
        record=record,
        settings=PrmSettings(target="sign"),
        init=folder / "other",
        prompts=prompts,
    )
    tokenizer = load_tokenizer(folder / "other")
    examples = causal_examples(job)
    texts = {label.response.text for label in labels(folder)}
    assert examples
    for example in examples:
        assert tokenizer.decode(example.prompt_ids) == f"# {PROMPT}\n"
        text = tokenizer.decode(example.token_ids)
        assert any(whole.startswith(text) for whole in texts)  # up to the last line that says something new
    own = causal_examples(dataclasses.replace(job, init=folder / "run" / "sft" / "model"))
    assert {e.token_ids for e in own} == {label.response.token_ids for label in labels(folder)}


def chat_run(folder: Path, tmp_path: Path) -> RunDirectory:
    """A run with chats; a PRM starts from the policy's twin, whose folder has another chat template."""
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("prm"))
    shutil.copytree(folder / "run" / "sft" / "model", tmp_path / "twin")
    for place, words in ((tmp_path / "run" / "sft" / "model", "Q: %s\n"), (tmp_path / "twin", "[%s]\n")):
        text = words % "{{ m.content }}"
        (place / "chat_template.jinja").write_text("{% for m in messages %}" + text + "{% endfor %}")
    table = {
        "name": "t",
        "out": str(tmp_path / "run"),
        "device": "cpu",
        "prompt_chat": True,
        "problems": {"kind": "jsonl", "train": "a", "test": "b"},
        "model": {"path": str(tmp_path / "run" / "sft" / "model")},
        "sft": {"examples": 0},
        "sampling": {"max_new_tokens": 30},
        "labels": {"holdout": 0.3},
        "prm": {"twin": {"target": "sign", "epochs": 1, "learning_rate": 3e-3, "init": str(tmp_path / "twin")}},
        "arms": {
            "baseline": {},
            "pays": {"line_reward": "sum", "prm": "twin"},
            "starts": {"value_init": "twin", "value_map": "identity"},
        },
    }
    return RunDirectory(tmp_path / "run", parse_recipe(table, origin="test"))


def test_a_prm_in_the_policys_tokens_learns_the_prompts_that_it_will_score(folder: Path, tmp_path: Path) -> None:
    run = chat_run(folder, tmp_path)
    train_reward_model(run, lambda done, total: None, "twin")
    model, policy = run.path / "prm" / "twin" / "model", load_tokenizer(run.path / "sft" / "model")
    scorer = open_scorer(model)
    assert scorer.record.prompt_template == recipe_template(run.recipe, policy) == "Q: {prompt}\n"
    assert reads_ids(model, policy)
    label = labels(folder)[0]
    prompt = encode_prompt(policy, fill("Q: {prompt}\n", PROMPT))
    of_ids = PrmScorer(model).score([(prompt, label.response.token_ids, label.line_ends)])[0]
    np.testing.assert_allclose(scorer.score_lines(PROMPT, label.response.text), of_ids, atol=1e-5)


def test_arms_refuse_a_prm_of_other_tokens_as_critic_and_one_that_reads_too_little(
    folder: Path, tmp_path: Path
) -> None:
    run, model = chat_run(folder, tmp_path), tmp_path / "run" / "prm" / "twin" / "model"
    shutil.copy(folder / "run" / "problems" / "label.jsonl", run.path / "problems" / "train.jsonl")
    TokenValueModel.from_policy(folder / "other").save_pretrained(model, load_tokenizer(folder / "other"))
    ScorerRecord(kind="causal", scope="line", target="sign", prompt_template="{prompt}\n", threshold=0.0).save(model)
    with pytest.raises(UserError, match=rf"arms\.starts\.value_init {model}: its tokenizer is not that of the policy"):
        arm_networks(run, "starts")
    arm_networks(run, "pays")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32}))
    with pytest.raises(UserError, match=r"prm\.twin .*: its context holds 32 tokens, the longest prompt has \d+ and"):
        arm_networks(run, "pays")
