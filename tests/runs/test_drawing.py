"""What stages that only draw load: which checkpoints, in which precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from psgpo.config import LabelSettings, load_recipe
from psgpo.models import create_policy, train_tokenizer
from psgpo.runs.work.labels import _needed
from psgpo.runs.work.shared import opened_sampler

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
CHECKPOINTS = {f"baseline/step-{step}": Path(f"step-{step}") for step in (2, 10, 30)}


@pytest.mark.parametrize(
    ("completer", "strategy", "loaded"),
    [
        ("last", "binary-search", 1),
        ("last", "linear-scan", 1),
        ("last", "noisy", 3),  # its prior asks the writers how sure they were
        ("last", "splice", 3),
        ("own", "binary-search", 3),
        ("mixture", "soft", 3),
    ],
)
def test_a_checkpoint_that_completes_nothing_is_not_loaded(completer: str, strategy: str, loaded: int) -> None:
    settings = LabelSettings.model_validate({"completer": completer})
    assert list(_needed(CHECKPOINTS, settings, strategy)) == list(CHECKPOINTS)[-loaded:]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_only_draw_have_the_recipes_precision(dtype: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["# add\nx = 1\n"], 290)
    create_policy(tokenizer, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    recipe = load_recipe(DEMO, [f"model.dtype={dtype}", "device=cpu"])
    with opened_sampler(tmp_path, recipe) as (sampler, _):
        assert sampler.model.dtype == getattr(torch, dtype)
        (completion,) = sampler.sample([[5, 6]], seeds=[0], max_new_tokens=4)
        assert len(completion.token_ids) <= 4
