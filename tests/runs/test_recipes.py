"""The shipped recipes of PSGPO: what the paper publishes is in them, and with tiny models a dry run passes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from chat_world import family_tokenizer, tiny_qwen

from psgpo.config import load_recipe
from psgpo.problems import save_problems_jsonl
from psgpo.problems.opchain import OpChain
from psgpo.runs.dry import dry_run
from psgpo.runs.plan import Wanted, make_plan

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PSGPO_DATA", ROOT.parent / "shared" / "data"))
PSGPO = ["psgpo-qwen2.5-7b", "psgpo-qwen2.5-coder-0.5b-1gpu"]
FILES = {"mbpp": DATA / "mbpp.jsonl.gz", "humaneval": DATA / "HumanEval.jsonl.gz"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen(family_tokenizer("qwen2.5-instruct"), tmp_path_factory.mktemp("qwen"))


def overrides(name: str, model: Path, folder: Path) -> list[str]:
    """What makes a recipe small enough for this machine: another model, and files in place of the Hub."""
    given = [f"model.path={model}", f"out={folder / 'run'}", "device=cpu"]
    if name == "psgpo-qwen2.5-7b":
        problems = OpChain().problems("train", 6, (1, 2))
        save_problems_jsonl(folder / "train.jsonl", problems[:4])
        save_problems_jsonl(folder / "test.jsonl", problems[4:])
        return [*given, f"problems.train={folder / 'train.jsonl'}", f"problems.test={folder / 'test.jsonl'}"]
    missing = [str(path) for path in FILES.values() if not path.is_file()]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; set PSGPO_DATA to the folder of the benchmarks' files")
    return [*given, *(f"problems.data.{key}={path}" for key, path in FILES.items())]


@pytest.mark.parametrize("name", PSGPO)
def test_a_dry_run_passes_with_a_tiny_model(name: str, model: Path, tmp_path: Path) -> None:
    said = dry_run(load_recipe(ROOT / "recipes" / f"{name}.toml", overrides(name, model, tmp_path)))
    assert "Qwen2ForCausalLM" in said
    for stage in ("rl-baseline", "labels", "prm-sign", "rl-dense", "rl-value", "rl-both", "evaluate-both"):
        assert f"  {stage}" in said
    assert "\n  sft " in said


@pytest.mark.parametrize("name", PSGPO)
def test_the_papers_settings(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.toml")
    assert recipe.labels.strategy == "binary-search"
    assert recipe.labels.k == 20
    assert recipe.rl.checkpoints == 4
    assert recipe.prm["sign"].target == "sign"
    assert recipe.prm["sign"].neutral_labels
    assert set(recipe.arms) == {"baseline", "dense", "value", "both"}
    both = recipe.arms["both"]
    assert (both.lambda_fail, both.lambda_pass, both.length_norm, both.neutral_lines) == (0.25, 0.025, True, True)
    assert (both.line_reward, both.prm, both.value_init) == ("sum", "sign", "sign")


def test_the_plan_of_the_small_recipe_names_its_work(model: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "psgpo-qwen2.5-coder-0.5b-1gpu.toml", [f"model.path={model}"])
    wanted = Wanted(device="rtx4090", prompt_tokens=150, response_tokens=130, longest_prompt=500)
    made = make_plan(recipe, wanted)
    # The numbers at the end of the recipe that do not depend on the model.
    assert round(sum(work.generated for work in made.work) / 1e5) == 136
    assert round(sum(work.judged for work in made.work) / 1e3) == 144
    assert round(sum(work.trained for work in made.work) / 1e5) == 89
    assert made.remedy is None
