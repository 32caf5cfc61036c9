"""Six problems, a policy that has just learned two-line functions, untrained PRMs, and `psgpo rerank` upon them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from psgpo.cli.rerank import app
from psgpo.config import EvaluationSettings, SamplingSettings, SftSettings
from psgpo.evaluation.evaluate import evaluate_policy
from psgpo.execution import Sandbox
from psgpo.models import TokenValueModel, create_policy, train_tokenizer
from psgpo.prm import ScorerRecord
from psgpo.problems import save_problems_jsonl
from psgpo.records import Call, CallTests, Problem
from psgpo.sft import train_sft

TEMPLATE = "# {prompt}\n"
RECORD = ScorerRecord(kind="causal", scope="line", target="sign", prompt_template=TEMPLATE, threshold=0.0)
PROBLEMS = [
    Problem(
        id=f"p{i}",
        prompt=f"add {i}",
        tests=CallTests(function="solve", calls=tuple(Call(args=(x,), expected=x + i) for x in (1, 5))),
    )
    for i in range(6)
]


def make_world(folder: Path) -> None:
    """policy/model, prm/, orm/, problems.jsonl, sft/samples.jsonl."""
    torch.set_num_threads(1)
    programs = [f"def solve(x):\n{note}    return x + {i}\n" for i in range(6) for note in ("", "    # note\n")]
    pairs = [(f"# add {i // 2}\n", program) for i, program in enumerate(programs)]
    tokenizer = train_tokenizer([prompt + program for prompt, program in pairs], 290)
    policy = create_policy(tokenizer, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    train_sft(
        policy, tokenizer, pairs * 30, SftSettings(learning_rate=1e-2, batch_size=8), out=folder / "policy", seed=0
    )
    for name, scope in (("prm", "line"), ("orm", "program")):
        value = TokenValueModel.from_policy(folder / "policy" / "model", head_init="normal", seed=1)
        value.save_pretrained(folder / name, tokenizer)
        dataclasses.replace(RECORD, scope=scope).save(folder / name)
    save_problems_jsonl(folder / "problems.jsonl", PROBLEMS)
    with Sandbox(workers=1, timeout=1.0) as sandbox:
        evaluate_policy(
            folder / "policy" / "model",
            PROBLEMS,
            sandbox,
            EvaluationSettings(samples=4, bootstrap=50),
            SamplingSettings(max_new_tokens=24, batch_size=32),
            folder / "sft",
            prompt_template=TEMPLATE,
        )


def command(name: str, world: Path, out: Path, *more: str) -> str:
    arguments = [name, "--problems", str(world / "problems.jsonl"), "--out", str(out), "--resamples", "50", *more]
    done = CliRunner().invoke(app, [*arguments, "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    return done.stdout


def rerank(world: Path, out: Path, *more: str) -> str:
    given = ["--prm", f"mine={world / 'prm'}", "--orm", str(world / "orm"), "--policy", str(world / "policy/model")]
    return command("samples", world, out, str(world / "sft" / "samples.jsonl"), *given, *more)


def search(world: Path, out: Path, *more: str) -> str:
    given = ["--prm", str(world / "prm"), "--policy", str(world / "policy/model"), "--budget", "60"]
    return command("search", world, out, *given, "--width", "2", "--expansions", "2", "--max-new-tokens", "24", *more)


def summary_of(out: Path):
    return json.loads((out / "summary.json").read_text())
