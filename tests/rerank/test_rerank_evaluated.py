"""`psgpo rerank samples` on what `psgpo eval --model` drew: any Hugging Face model and benchmark."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from psgpo.cli.rerank import app
from psgpo.config import SftSettings
from psgpo.errors import UserError
from psgpo.evaluation.benchmark import EvalRequest, run_eval
from psgpo.evaluation.draw import DrawSettings, LoadedModel
from psgpo.execution import Limits
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.lines import code_lines
from psgpo.models import TokenValueModel, create_policy, load_policy, train_tokenizer
from psgpo.prm import ScorerRecord, open_scorer
from psgpo.problems import save_problems_jsonl
from psgpo.records import Call, CallTests, Problem, Response
from psgpo.rerank.evaluated import load_evaluation
from psgpo.rerank.samples import SampleSet
from psgpo.rerank.scores import aggregates
from psgpo.sft import train_sft

RECORD = ScorerRecord(kind="causal", scope="line", target="sign", prompt_template="{prompt}", threshold=0.0)
PROBLEMS = [
    Problem(
        id=f"p{i}",
        prompt=f"# add {i}\n",
        starter_code=f"# add {i}\n",
        tests=CallTests(function="solve", calls=tuple(Call(args=(x,), expected=x + i) for x in (1, 5))),
    )
    for i in range(3)
]
SAMPLES = 4
FENCED = 'def solve(x):\n    """Itself.\n\n    ```\n    solve(1)\n    ```\n    """\n    return x\n'
"""A program whose docstring has a fenced block, which is not its code."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """policy/model, prm/, problems.jsonl, and eval/ of a policy that has half learned to answer."""
    folder = tmp_path_factory.mktemp("world")
    torch.set_num_threads(1)
    pairs = [(f"# add {i}\n", f"def solve(x):\n    return x + {i}\n") for i in range(3)]
    tokenizer = train_tokenizer([prompt + program for prompt, program in pairs], 290)
    policy = create_policy(tokenizer, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    train_sft(
        policy, tokenizer, pairs * 60, SftSettings(learning_rate=1e-2, batch_size=8), out=folder / "policy", seed=0
    )
    TokenValueModel.from_policy(folder / "policy" / "model", head_init="normal", seed=1).save_pretrained(
        folder / "prm", tokenizer
    )
    RECORD.save(folder / "prm")
    save_problems_jsonl(folder / "problems.jsonl", PROBLEMS)
    request = EvalRequest(
        benchmark=str(folder / "problems.jsonl"),
        out=folder / "eval",
        limits=Limits(timeout=2.0, memory_mb=256),
        confinement={"allow_unconfined": True},
    )
    model = LoadedModel(folder / "policy" / "model", batch_size=32, device="cpu")
    run_eval(request, (model, DrawSettings(samples=SAMPLES, temperature=1.0, top_p=1.0, max_new_tokens=24)))
    return folder


def rerank(world: Path, evaluation: Path, out: Path, *more: str, problems: Path | None = None) -> dict[str, Any]:
    given = ["--problems", str(problems or world / "problems.jsonl"), "--out", str(out), "--resamples", "20"]
    arguments = ["samples", str(evaluation), *given, "--workers", "1", *more]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def chosen(world: Path, scores: dict[tuple[str, int], float]) -> float:
    """pass@1 of the sample with the highest score of each task, by hand."""
    passed = {(r["task_id"], r["index"]): r["status"] == "PASSED" for r in rows(world, "results")}
    per_task = []
    for problem in PROBLEMS:
        best = max(scores[problem.id, n] for n in range(SAMPLES))
        per_task.append(np.mean([passed[problem.id, n] for n in range(SAMPLES) if scores[problem.id, n] == best]))
    return float(np.mean(per_task))


def rows(world: Path, name: str) -> list[dict[str, Any]]:
    return list(read_jsonl(world / "eval" / f"{name}.jsonl", dict))


def test_samples_of_a_model_are_chosen_by_prm_likelihood_and_majority(world: Path, tmp_path: Path) -> None:
    policy = world / "policy" / "model"
    summary = rerank(world, world / "eval", tmp_path / "out", "--prm", str(world / "prm"), "--policy", str(policy))
    last = {name: method["curve"][-1] for name, method in summary["methods"].items()}
    graded = json.loads((world / "eval" / "summary.json").read_text())["pass_at_k"]
    assert 0 < graded[0]["value"] < graded[SAMPLES - 1]["value"]
    assert last["random"]["value"] == pytest.approx(graded[0]["value"])
    assert last["oracle"]["value"] == pytest.approx(graded[SAMPLES - 1]["value"])
    assert last["majority"]["n"] == SAMPLES
    assert last["random"]["tokens"] == pytest.approx(sum(row["tokens"] for row in rows(world, "samples")) / 3)
    model, _ = load_policy(policy)
    scorer, prompts = open_scorer(world / "prm"), {problem.id: problem.prompt for problem in PROBLEMS}
    likelihood, lowest = {}, {}
    for row in rows(world, "samples"):
        place, ids = (row["task_id"], row["sample_id"]), [*row["prompt_ids"], *row["token_ids"]]
        with torch.no_grad():
            table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(row["prompt_ids"])
        likelihood[place] = sum(float(table[n - 1, ids[n]]) for n in range(start, len(ids)))
        lines = scorer.score_lines(prompts[row["task_id"]], row["completion"])
        lowest[place] = aggregates(lines, [False] * len(lines), RECORD)["min"]
    assert last["likelihood-sum"]["value"] == pytest.approx(chosen(world, likelihood))
    assert last["prm-min"]["value"] == pytest.approx(chosen(world, lowest))


def test_files_of_older_versions_have_no_likelihood(world: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "results.jsonl").write_bytes((world / "eval" / "results.jsonl").read_bytes())
    ids = ("prompt_ids", "token_ids", "tokenizer")
    write_jsonl(
        old / "samples.jsonl", ({k: v for k, v in row.items() if k not in ids} for row in rows(world, "samples"))
    )
    with pytest.raises(UserError, match=r"sample 0 of p0 has no token ids.*leave out --policy"):
        rerank(world, old, tmp_path / "out", "--policy", str(world / "policy" / "model"))
    found = rerank(world, old, tmp_path / "out", "--prm", str(world / "prm"))
    new = rerank(world, world / "eval", tmp_path / "new", "--prm", str(world / "prm"))
    assert found["methods"] == new["methods"]  # tokens too
    assert "likelihood-mean" not in found["methods"]


def test_another_tokenizer_has_no_likelihood_of_these_ids(world: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["another text of other words"], 270)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    create_policy(tokenizer, **sizes).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"--policy .*other: its tokenizer is another one"):
        rerank(world, world / "eval", tmp_path / "out", "--policy", str(tmp_path / "other"))


def test_what_was_not_graded_so_is_refused(world: Path, tmp_path: Path) -> None:
    def refused(match: str, folder: Path, problems: list[Problem] = PROBLEMS) -> None:
        save_problems_jsonl(tmp_path / "problems.jsonl", problems)
        with pytest.raises(UserError, match=match):
            rerank(world, folder, tmp_path / "out", problems=tmp_path / "problems.jsonl")

    other = CallTests(function="solve", calls=(Call(args=(1,), expected=9), Call(args=(5,), expected=9)))
    changed = [dataclasses.replace(problem, tests=other) for problem in PROBLEMS]
    refused(
        r"samples.jsonl:1: sample 0 of p0 was graded as another program, or by other tests", world / "eval", changed
    )
    refused(r"samples.jsonl:5: task 'p1' is unknown", world / "eval", PROBLEMS[:1])
    more = [*PROBLEMS, dataclasses.replace(PROBLEMS[0], id="p3")]
    refused(r"samples.jsonl: 1 of the 4 problems in .* have no sampled response \(p3\)", world / "eval", more)
    part = tmp_path / "part"
    part.mkdir()
    refused("part: holds no samples.jsonl; give the folder of psgpo eval --model", part)
    (part / "samples.jsonl").write_bytes((world / "eval" / "samples.jsonl").read_bytes())
    refused("part: its samples are not graded yet", part)
    write_jsonl(part / "results.jsonl", rows(world, "results")[:-1])
    refused(r"samples.jsonl:12: sample 3 of p2 has no verdict yet", part)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Sure.\n```python\ndef solve(x):\n    return x\n```\nDone.", None),
        ("```\npip install x\n```\n```python\ndef solve(x):\n    return x\n```", "def solve(x):\n    return x\n"),
        (FENCED, f"~~~python\n{FENCED}~~~\n"),
        (FENCED.rstrip("\n"), f"~~~python\n{FENCED}~~~\n"),
        (FENCED.replace("```", "~~~"), f"```python\n{FENCED.replace('```', '~~~')}```\n"),
    ],
    ids=["as it was written", "the block that was graded", "a fence in it", "no last newline", "a fence of tildes"],
)
def test_the_graded_part_of_a_chat_is_read(text: str, read: str | None, world: Path, tmp_path: Path) -> None:
    (response,), samples = loaded(text, world, tmp_path)
    assert response.text == (text if read is None else read)
    assert response.verdict.passed
    assert [line.text for line in code_lines(response.text)][:1] == ["def solve(x):"]
    assert (samples.drawn, samples.tokenizer) == ({"p0#eval#0": 9}, "t")


def test_a_program_that_no_fence_can_hold_is_refused(world: Path, tmp_path: Path) -> None:
    both = FENCED.replace("    ```\n", "    ```\n    ~~~\n")
    with pytest.raises(UserError, match=r"samples.jsonl:1: sample 0 of p0: its program holds lines of ``` and of ~~~"):
        loaded(both, world, tmp_path)


def loaded(text: str, world: Path, folder: Path) -> tuple[Sequence[Response], SampleSet]:
    """One answer to p0, graded and read."""
    write_jsonl(folder / "answers.jsonl", [{"task_id": "p0", "solution": text}])
    request = EvalRequest(
        benchmark=str(world / "problems.jsonl"),
        out=folder / "eval",
        limits=Limits(timeout=2.0, memory_mb=256),
        confinement={"allow_unconfined": True},
    )
    run_eval(request, folder / "answers.jsonl")
    more = {"finished": True, "tokens": 9, "prompt_ids": [1], "token_ids": [2], "tokenizer": "t"}
    write_jsonl(folder / "eval" / "samples.jsonl", [{"task_id": "p0", "sample_id": 0, "solution": text, **more}])
    samples = load_evaluation(folder / "eval", {p.id: p for p in PROBLEMS[:1]}, world / "problems.jsonl")
    return samples.responses["p0"], samples
