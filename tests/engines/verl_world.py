"""A run directory with all stages before RL done: a Llama that knows four programs by heart, and a PRM of its shape."""

from __future__ import annotations

from pathlib import Path

from engines_world import TASKS, problems, trained_llama

from psgpo.config import load_recipe
from psgpo.jsonl import write_json
from psgpo.models import TokenValueModel, load_tokenizer
from psgpo.problems import save_problems_jsonl
from psgpo.records import Problem
from psgpo.runs.directory import RunDirectory

RECIPE = """
name = "small"
out = "{folder}/run"
device = "cpu"
problems = {{kind = "jsonl", train = "{folder}/train.jsonl", test = "{folder}/test.jsonl"}}
model.path = "{folder}/start"
sft.examples = 0
sampling.max_new_tokens = 48
rl.prompts_per_step = 4
rl.responses_per_prompt = 4
rl.minibatches = 2
rl.steps = 8
rl.checkpoints = 2
rl.kl_beta = 0.1
rl.value_fit_responses = 32
prm.sign.target = "sign"
arms.baseline = {{}}
arms.both = {{line_reward = "sum", prm = "sign", value_init = "sign", value_map = "identity"}}
arms.fitted = {{line_reward = "sum", prm = "sign", value_init = "sign"}}
"""


def tasks() -> list[Problem]:
    """The problems of TASKS, as the recipe's template expects them."""
    return [
        Problem(
            id=problem.id, prompt=TASKS[problem.id][0], tests=problem.tests, reference_solution=TASKS[problem.id][1]
        )
        for problem in problems()
    ]


def ready_run(folder: Path) -> RunDirectory:
    """`folder/recipe.toml` and its run. Arms: baseline; both, which has line rewards and a critic from the PRM; fitted,
    the same with the critic's outputs fitted to returns."""
    model = trained_llama(folder / "start")
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    run = RunDirectory.create(load_recipe(folder / "recipe.toml"))
    for split in ("train", "test"):
        save_problems_jsonl(run.path / "problems" / f"{split}.jsonl", tasks()[: 2 if split == "test" else None])
    prm = TokenValueModel.from_policy(model, head_init="normal", seed=1)
    prm.save_pretrained(run.path / "prm" / "sign" / "model", load_tokenizer(model))
    (run.path / "sft").mkdir()
    (run.path / "sft" / "model").symlink_to(model, target_is_directory=True)
    for stage in ("problems", "sft", "prm-sign"):
        write_json(run.path / "stages" / f"{stage}.json", {"stage": stage})
    return run
