"""A run directory with all stages before RL done: a Llama that knows four programs by heart, and a PRM of its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines_world import TASKS, problems, trained_llama

from psgpo.config import parse_recipe
from psgpo.jsonl import write_json
from psgpo.models import TokenValueModel, load_tokenizer
from psgpo.problems import save_problems_jsonl
from psgpo.records import Problem
from psgpo.runs.directory import RunDirectory

RL = {
    "prompts_per_step": len(TASKS),
    "responses_per_prompt": 4,
    "minibatches": 2,
    "steps": 8,
    "checkpoints": 2,
    "kl_beta": 0.1,
    "value_fit_responses": 32,
}


def tasks() -> list[Problem]:
    """The problems of TASKS, as the recipe's template expects them."""
    return [
        Problem(
            id=problem.id, prompt=TASKS[problem.id][0], tests=problem.tests, reference_solution=TASKS[problem.id][1]
        )
        for problem in problems()
    ]


def ready_run(folder: Path, **rl: Any) -> RunDirectory:
    """Arms: baseline; both, which has line rewards and a critic from the PRM."""
    model = trained_llama(folder / "start")
    splits = folder / "splits"
    save_problems_jsonl(splits / "train.jsonl", tasks())
    save_problems_jsonl(splits / "test.jsonl", tasks()[:2])
    both = {"line_reward": "sum", "prm": "sign", "value_init": "sign", "value_map": "identity"}
    fitted = both | {"value_map": "fit"}
    recipe = parse_recipe(
        {
            "name": "small",
            "out": str(folder / "run"),
            "device": "cpu",
            "problems": {"kind": "jsonl", "train": str(splits / "train.jsonl"), "test": str(splits / "test.jsonl")},
            "model": {"path": str(model)},
            "sft": {"examples": 0},
            "sampling": {"max_new_tokens": 48},
            "rl": RL | rl,
            "prm": {"sign": {"target": "sign"}},
            "arms": {"baseline": {}, "both": both, "fitted": fitted},
        },
        origin="test",
    )
    run = RunDirectory.create(recipe)
    for split in ("train", "test"):
        save_problems_jsonl(run.path / "problems" / f"{split}.jsonl", tasks()[: 2 if split == "test" else None])
    prm = TokenValueModel.from_policy(model, head_init="normal", seed=1)
    prm.save_pretrained(run.path / "prm" / "sign" / "model", load_tokenizer(model))
    (run.path / "sft").mkdir()
    (run.path / "sft" / "model").symlink_to(model, target_is_directory=True)
    for stage in ("problems", "sft", "prm-sign"):
        write_json(run.path / "stages" / f"{stage}.json", {"stage": stage})
    return run
