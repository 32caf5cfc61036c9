"""A recipe for problems and a model of one's own, small enough to run any stage in a test."""

from __future__ import annotations

from pathlib import Path

from psgpo.models import create_policy, train_tokenizer
from psgpo.problems import save_problems_jsonl
from psgpo.problems.opchain import OpChain, OpChainSettings
from psgpo.records import Problem


def own_problems(count: int) -> list[Problem]:
    return OpChain(OpChainSettings(seed=1)).problems("train", count, (1, 2))


def own_recipe(folder: Path, *, trained: int = 4) -> dict:
    """The recipe as nested dicts; its files lie in `folder`: problems to train on, two to test, a policy."""
    problems = own_problems(trained + 2)
    save_problems_jsonl(folder / "train.jsonl", problems[:trained])
    save_problems_jsonl(folder / "test.jsonl", problems[trained:])
    tokenizer = train_tokenizer([problem.prompt for problem in problems])
    create_policy(tokenizer, hidden_size=16, intermediate_size=16, num_hidden_layers=1).save_pretrained(folder / "m")
    tokenizer.save_pretrained(folder / "m")
    files = {"kind": "jsonl", "train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")}
    recipe = {"name": "own", "out": str(folder / "run"), "problems": files, "model": {"path": str(folder / "m")}}
    return recipe | {"sft": {"examples": 0}, "sampling": {"max_new_tokens": 64}, "arms": {"baseline": {}}}
