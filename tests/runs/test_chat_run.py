"""A recipe with a chat: every stage reads the same prompt, and every folder ends answers alike."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from chat_world import family_tokenizer, tiny_qwen

from psgpo.chats import TODAY
from psgpo.config import parse_recipe
from psgpo.engines.verl.export import _rows
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.models import load_tokenizer
from psgpo.prm import ScorerRecord
from psgpo.problems import load_problems_jsonl
from psgpo.prompts import encode_prompt, fill
from psgpo.records import LineLabels, Problem
from psgpo.runs.directory import RunDirectory
from psgpo.runs.dry import dry_run
from psgpo.runs.stages import run_stage
from psgpo.runs.work import arm_trainer
from psgpo.runs.work.policy import _sft_pairs

STAGES = ["problems", "sft", "rl-baseline", "responses", "labels-1", "labels", "prm-sign", "evaluate-baseline"]


def recipe(folder: Path, model: Path) -> dict[str, Any]:
    sizes = {"train": 6, "label": 16, "validation": 1, "test": 2}
    operations = {f"{name}_operations": [1, 1] for name in ("train", "label", "test")}
    return {
        "name": "chat",
        "out": str(folder / "run"),
        "processes": 1,
        "prompt_chat": True,
        "prompt_template": "Write solve(x): {prompt}",
        "prompt_system": "You write Python.",
        "problems": {"kind": "opchain", **sizes, **operations},
        "model": {"path": str(model)},
        "sft": {"examples": 24, "operations": [1, 1], "optimizer": "adamw", "learning_rate": 1e-2},
        "sampling": {"max_new_tokens": 12},
        "rl": {"steps": 1, "prompts_per_step": 4, "minibatches": 1, "checkpoints": 1},
        "labels": {"k": 1, "draw": 1, "shards": 1, "compare_linear": 0, "holdout": 0.3},
        "prm": {"sign": {"target": "sign", "epochs": 1}},
        "arms": {"baseline": {}},
        "evaluation": {"samples": 1, "greedy": False, "bootstrap": 10},
        "tracking": {"to": []},
    }


def test_every_stage_reads_the_tokenizers_chat(tmp_path: Path) -> None:
    base = family_tokenizer("qwen2.5-base")
    model = tiny_qwen(base, tmp_path / "model")
    run = RunDirectory.create(parse_recipe(recipe(tmp_path, model), origin="r"))
    for stage in STAGES:
        run_stage(run, stage, lambda done, total: None)

    def expected(problem: Problem) -> tuple[int, ...]:
        messages = [
            {"role": "system", "content": "You write Python."},
            {"role": "user", "content": f"Write solve(x): {problem.prompt}"},
        ]
        return tuple(
            base.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, date_string=TODAY)
        )

    problems = {
        problem.id: problem
        for split in ("train", "label", "test")
        for problem in load_problems_jsonl(run.path / "problems" / f"{split}.jsonl")
    }
    with arm_trainer(run, "baseline") as (_, prompts):
        assert prompts
        assert all(ids == expected(problem) for problem, ids in prompts)
    labels = list(read_jsonl(run.path / "labels" / "labels.jsonl", LineLabels.from_json))
    assert labels
    for label in labels:
        assert label.response.prompt_ids == expected(problems[label.response.problem_id])
    drawn = list(read_jsonl(run.path / "evaluation" / "baseline" / "samples.jsonl", dict))
    assert drawn
    assert all(tuple(row["prompt_ids"]) == expected(problems[row["problem_id"]]) for row in drawn)
    record = ScorerRecord.load(run.path / "prm" / "sign" / "model")
    problem = next(iter(problems.values()))
    prm_tokenizer = load_tokenizer(run.path / "prm" / "sign" / "model")
    assert encode_prompt(prm_tokenizer, fill(record.prompt_template, problem.prompt)) == expected(problem)
    (row,) = _rows([problem], run.recipe, prm_tokenizer)
    assert tuple(row["extra_info"]["prompt_ids"]) == expected(problem)
    text, _ = _sft_pairs(run, record.prompt_template)[0]
    assert text.startswith("<|im_start|>system\nYou write Python.<|im_end|>\n<|im_start|>user\nWrite solve(x): ")
    for folder in ("sft/model", "rl/baseline/model", "rl/baseline/checkpoints/step-1", "prm/sign/model"):
        assert load_tokenizer(run.path / folder).eos_token == "<|im_end|>"


def test_a_model_without_a_chat_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = tiny_qwen(family_tokenizer("gpt2"), tmp_path / "model")
    with pytest.raises(UserError, match=r"model: its tokenizer has no chat template; set prompt_chat = false"):
        dry_run(parse_recipe(recipe(tmp_path, model), origin="r"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {}, "sft": {}}, "prompt_chat needs model.path"),
        ({"prompt_chat": False}, "prompt_system is part of a chat"),
        ({"prompt_system": "{prompt}"}, "prompt_system must not contain {prompt}"),
    ],
)
def test_keys_that_do_not_go_together(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        parse_recipe(recipe(tmp_path, tmp_path) | changes, origin="r")


def test_in_a_chat_the_message_is_the_problem_unless_said_otherwise(tmp_path: Path) -> None:
    table = recipe(tmp_path, tmp_path)
    del table["prompt_template"]
    made = parse_recipe(table, origin="r")
    assert made.prompt_template == "{prompt}"
    assert parse_recipe(made.model_dump(mode="json"), origin="again") == made
    plain = table | {"prompt_chat": False, "prompt_system": None}
    assert parse_recipe(plain, origin="r").prompt_template == "# {prompt}\n"
