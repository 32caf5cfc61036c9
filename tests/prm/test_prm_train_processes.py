"""A PRM that two processes train, data parallel and sharded, is the one that one process trains, up to rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prm_world import SETTINGS, examples

from metrics_world import without_times
from parallel_world import killed, together
from psgpo.config import LoraSettings, ModelSettings
from psgpo.models import TokenValueModel, load_tokenizer
from psgpo.parallel.team import current_team
from psgpo.prm import split_by_problem, train_prm


def train(policy: Path, out: Path, sharded: bool, optimizer: str, lora: bool = False) -> None:
    train, held_out = split_by_problem(examples(load_tokenizer(policy), 80), 0.2)
    settings = SETTINGS.model_copy(update={"microbatch_tokens": 150, "optimizer": optimizer, "epochs": 3})
    team = replace(current_team(), sharded=sharded)
    compute = ModelSettings(lora=LoraSettings(rank=4) if lora else None)
    train_prm(policy, train, held_out, settings, out, seed=1, team=team, compute=compute)


@pytest.mark.parametrize(
    ("sharded", "optimizer", "lora"), [(False, "muon", False), (True, "adamw", False), (False, "adamw", True)]
)
def test_two_processes_train_what_one_trains(
    policy_dir: Path, tmp_path: Path, sharded: bool, optimizer: str, lora: bool
) -> None:
    train(policy_dir, tmp_path / "one", False, optimizer, lora)
    together(train, 2, tmp_path / "answers", policy_dir, tmp_path / "two", sharded, optimizer, lora)
    for mine, want in zip(without_times(tmp_path / "two"), without_times(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(want, rel=1e-4)
    assert without_times(tmp_path / "one")[-1]["train_loss"] > 0
    one, two = (TokenValueModel.from_pretrained(tmp_path / name / "model").state_dict() for name in ("one", "two"))
    worst = max(float((two[key] - value).abs().max()) for key, value in one.items())
    kind = f"{'sharded' if sharded else 'data parallel'}, {optimizer}{', adapters' if lora else ''}"
    print(f"PRM, {kind}: weights differ by {worst:.1e} at most")
    assert worst < 1e-4
    assert not (tmp_path / "two" / "best").exists()


def test_killed_midway_ends_where_an_uninterrupted_training_ends(policy_dir: Path, tmp_path: Path) -> None:
    """`kill -9` in an epoch; metrics and weights equal to the bit."""
    together(train, 1, tmp_path / "a", policy_dir, tmp_path / "one", False, "muon")
    killed(train, tmp_path / "two" / "state.pt", policy_dir, tmp_path / "two", False, "muon")
    together(train, 1, tmp_path / "b", policy_dir, tmp_path / "two", False, "muon")
    assert without_times(tmp_path / "two") == without_times(tmp_path / "one")
    weights = "model/model.safetensors"
    assert (tmp_path / "two" / weights).read_bytes() == (tmp_path / "one" / weights).read_bytes()
