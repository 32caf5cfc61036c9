"""A policy that two processes fine-tune, data parallel and sharded, is the one that one process makes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metrics_world import without_times
from parallel_world import killed, together
from psgpo.config import SftSettings
from psgpo.errors import UserError
from psgpo.models import create_policy, load_policy, train_tokenizer
from psgpo.parallel.team import current_team
from psgpo.sft import train_sft


class KilledError(Exception):
    pass


def train(out: Path, sharded: bool, until: int | None = None) -> None:
    pairs = [("# add\n", "x = 1\n" * (1 + i % 5)) for i in range(200)]
    tokenizer = train_tokenizer([prompt + program for prompt, program in pairs], 290)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    policy = create_policy(tokenizer, max_position_embeddings=64, **shape)

    def stop(done: int, _total: int) -> None:
        if done == until:
            raise KilledError

    settings = SftSettings(batch_size=5, microbatch_tokens=40, optimizer="adamw", learning_rate=1e-3)
    team = replace(current_team(), sharded=sharded)
    with suppress(KilledError):
        train_sft(policy, tokenizer, pairs, settings, out=out, seed=0, team=team, progress=stop)


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_train_what_one_trains(sharded: bool, tmp_path: Path) -> None:
    train(tmp_path / "one", False)
    together(train, 2, tmp_path / "a", tmp_path / "two", sharded, 4)
    together(train, 2, tmp_path / "b", tmp_path / "two", sharded)
    for mine, want in zip(without_times(tmp_path / "two"), without_times(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(want, rel=1e-5)
    one, two = (load_policy(tmp_path / name / "model")[0].state_dict() for name in ("one", "two"))
    worst = max(float((two[key] - value).abs().max()) for key, value in one.items())
    print(f"SFT, {'sharded' if sharded else 'data parallel'}, killed once: weights differ by {worst:.1e} at most")
    assert worst < 2e-5


def test_killed_midway_ends_where_an_uninterrupted_training_ends(tmp_path: Path) -> None:
    """`kill -9`; metrics and weights equal to the bit, also the mean loss over steps before and after the kill."""
    together(train, 1, tmp_path / "a", tmp_path / "one", False)
    killed(train, tmp_path / "two" / "state.pt", tmp_path / "two", False)
    together(train, 1, tmp_path / "b", tmp_path / "two", False)
    assert without_times(tmp_path / "two") == without_times(tmp_path / "one") != []
    weights = "model/model.safetensors"
    assert (tmp_path / "two" / weights).read_bytes() == (tmp_path / "one" / weights).read_bytes()


def test_a_state_of_an_older_version_is_named(tmp_path: Path) -> None:
    train(tmp_path, False, 4)
    state = torch.load(tmp_path / "state.pt")
    del state["loss_sum"]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt: an older psgpo wrote it; delete it, to train from the start"):
        train(tmp_path, False)
