"""A PRM that two processes train, data parallel and sharded, is the one that one process trains, up to rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prm_world import SETTINGS, examples

from parallel_world import killed, together
from psgpo.jsonl import read_jsonl
from psgpo.models import TokenValueModel, load_tokenizer
from psgpo.parallel.team import current_team
from psgpo.prm import split_by_problem, train_prm


def train(policy: Path, out: Path, sharded: bool, optimizer: str) -> None:
    train, held_out = split_by_problem(examples(load_tokenizer(policy), 80), 0.2)
    settings = SETTINGS.model_copy(update={"microbatch_tokens": 150, "optimizer": optimizer, "epochs": 3})
    team = replace(current_team(), sharded=sharded)
    train_prm(policy, train, held_out, settings, out, seed=1, team=team)


def rows(out: Path) -> list[dict[str, Any]]:
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in read_jsonl(out / "metrics.jsonl", dict)]
    return [{k: v for k, v in row.items() if v is not None} for row in kept]


@pytest.mark.parametrize(("sharded", "optimizer"), [(False, "muon"), (True, "adamw")])
def test_two_processes_train_what_one_trains(policy_dir: Path, tmp_path: Path, sharded: bool, optimizer: str) -> None:
    train(policy_dir, tmp_path / "one", False, optimizer)
    together(train, 2, tmp_path / "answers", policy_dir, tmp_path / "two", sharded, optimizer)
    for mine, want in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(want, rel=1e-4)
    assert rows(tmp_path / "one")[-1]["train_loss"] > 0
    one, two = (TokenValueModel.from_pretrained(tmp_path / name / "model").state_dict() for name in ("one", "two"))
    worst = max(float((two[key] - value).abs().max()) for key, value in one.items())
    print(f"PRM, {'sharded' if sharded else 'data parallel'}, {optimizer}: weights differ by {worst:.1e} at most")
    assert worst < 1e-4
    assert not (tmp_path / "two" / "best").exists()


def test_killed_midway_ends_where_an_uninterrupted_training_ends(policy_dir: Path, tmp_path: Path) -> None:
    """`kill -9` in an epoch; metrics and weights equal to the bit."""
    together(train, 1, tmp_path / "a", policy_dir, tmp_path / "one", False, "muon")
    killed(train, tmp_path / "two" / "state.pt", policy_dir, tmp_path / "two", False, "muon")
    together(train, 1, tmp_path / "b", policy_dir, tmp_path / "two", False, "muon")
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    weights = "model/model.safetensors"
    assert (tmp_path / "two" / weights).read_bytes() == (tmp_path / "one" / weights).read_bytes()
