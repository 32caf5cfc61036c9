"""`benchmarks/ppo_step.py`: both sides get the same models, ours runs, ratios are the right way round."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import ppo_step_psgpo
from ppo_step import make_models, print_table
from psgpo.lines import TokenText
from psgpo.models import TokenValueModel, load_policy

OPTIONS = argparse.Namespace(vocab=400, hidden=64, layers=1, prompt=6, response=10, batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    make_models(made, OPTIONS)
    return made


def test_both_sides_get_the_same_critic_and_a_policy_whose_every_id_is_text(folder: Path) -> None:
    ids = torch.tensor(json.loads((folder / "prompts.json").read_text()))
    assert ids.shape == (4, 6)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder / "critic", num_labels=1)
    value = theirs.score(theirs.model(ids).last_hidden_state)[..., 0]
    torch.testing.assert_close(TokenValueModel.from_pretrained(folder / "critic-tokens")(ids), value)
    policy, tokenizer = load_policy(folder / "policy")
    assert policy.config.vocab_size == len(tokenizer) == 400
    assert TokenText(tokenizer).decode([300, 274, 301]) == "x42 x16\nx43 "


def test_our_side_reports_its_steps(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"steps": 1, "batch": 4, "micro": 2, "prompt": 6, "response": 10, "epochs": 1, "threads": 1}
    monkeypatch.setattr(sys, "argv", ["ppo_step_psgpo.py", str(folder), json.dumps(job)])
    ppo_step_psgpo.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (step,) = found["steps"]
    assert 4 < step["tokens"] <= 40
    assert 0 < step["sample"] < step["step"]
    assert found["peak_mb"] >= found["before_mb"] > 0


def test_the_table_divides_ours_by_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    def run(learning: float, peak: float) -> list[dict]:
        return [
            {"steps": [{"sample": 1.0, "step": 1.0 + learning, "tokens": 120}], "before_mb": 100.0, "peak_mb": peak}
        ]

    print_table({"TRL 1.12": run(3.0, 500.0), "psgpo": run(1.0, 300.0)})
    rows = capsys.readouterr().out.splitlines()
    assert "| tokens/s, learning alone | 40 | 120 | 3.00 |" in rows
    assert "| tokens/s, sampling included | 30 | 60 | 2.00 |" in rows
    assert "| peak memory, MB | 500 | 300 | 0.60 |" in rows
    assert "| of that on top of the loaded models, MB | 400 | 200 | 0.50 |" in rows
