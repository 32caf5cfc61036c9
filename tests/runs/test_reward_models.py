"""Reward models that read text, trained on the labelled responses of a run: their tokens need not be the policy's."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "prm"))

from prm_text_world import save_roberta
from prm_tokenizers import make
from prm_world import random_labels, save_policy

from psgpo.config import PrmSettings, parse_recipe
from psgpo.jsonl import write_jsonl
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.models import create_policy, load_tokenizer
from psgpo.prm import ScorerRecord, open_scorer
from psgpo.prm.build import PrmJob, causal_examples
from psgpo.problems import save_problems_jsonl
from psgpo.records import AssertTests, LineLabels, Problem
from psgpo.rl.rollout import reads_ids
from psgpo.runs.directory import RunDirectory
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
