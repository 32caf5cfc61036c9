"""What SFT does with examples that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from psgpo.config import LoraSettings, ModelSettings, SftSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.models import create_policy, load_policy, prepare_training, train_tokenizer
from psgpo.sft import train_sft

SHORT, LONG = ("# add\n", "x = 1\n"), ("# add\n", "x = 1\n" * 200)


def train(pairs: list[tuple[str, str]], out: Path, **settings: Any) -> dict[str, torch.Tensor]:
    tokenizer = train_tokenizer([prompt + program for prompt, program in pairs], 290)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    policy = create_policy(tokenizer, max_position_embeddings=64, **shape)
    train_sft(policy, tokenizer, pairs, SftSettings(batch_size=8, **settings), out=out, seed=0)
    return policy.state_dict()


def test_examples_that_do_not_fit_are_counted_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train([SHORT] * 6 + [LONG] * 2, tmp_path)
    assert "SFT leaves out 2 of 8 examples" in capsys.readouterr().err


def test_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of 2 examples fits the model's context of 64 tokens"):
        train([LONG] * 2, tmp_path)


def test_micro_batches_train_what_whole_batches_train(tmp_path: Path) -> None:
    pairs = [("# add\n", "x = 1\n" * (1 + i % 5)) for i in range(24)]
    whole, parts = train(pairs, tmp_path / "a"), train(pairs, tmp_path / "b", microbatch_tokens=40)
    for key, value in whole.items():
        torch.testing.assert_close(value, parts[key], rtol=1e-4, atol=1e-4)
    losses = [read_jsonl(tmp_path / run / "metrics.jsonl", dict) for run in "ab"]
    for one, many in zip(*losses, strict=True):
        assert one["loss"] == pytest.approx(many["loss"], rel=1e-5)


class KilledError(Exception):
    """Stands for kill -9."""


def test_adapters_learn_alone_resume_and_are_saved_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="pip install 'psgpo[lora]'")
    pairs = [("# add\n", "x = 1\n" * (1 + i % 5)) for i in range(24)]
    settings = SftSettings(epochs=4, batch_size=4, optimizer="adamw", learning_rate=1e-2, lora=True)
    tokenizer = train_tokenizer([prompt + text for prompt, text in pairs], 300)

    def run(out: Path, stop: int | None) -> dict[str, torch.Tensor]:
        model = create_policy(tokenizer, seed=0, hidden_size=32, num_hidden_layers=1)
        prepare_training(model, ModelSettings(lora=LoraSettings(rank=4)), seed=1)

        def kill(done: int, _: int) -> None:
            if done == stop:
                raise KilledError

        train_sft(model, tokenizer, pairs, settings, out=out, seed=1, progress=kill)
        return dict(load_policy(out / "model")[0].state_dict())

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", 5)
    resumed = run(tmp_path / "killed", None)
    start = create_policy(tokenizer, seed=0, hidden_size=32, num_hidden_layers=1).state_dict()
    assert whole.keys() == resumed.keys() == start.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    moved = {name for name, value in whole.items() if not torch.equal(value, start[name])}
    assert any("layers" in name for name in moved)
    assert not any("embed" in name or "norm" in name for name in moved)
