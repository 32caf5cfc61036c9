"""`psgpo prm eval` and `psgpo firsterror run --prm` with a PRM that was trained here, on the embedded benchmark."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from prm_world import random_labels
from typer.testing import CliRunner

from psgpo.cli.prm import app
from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.firsterror.items import load_items
from psgpo.firsterror.judges import BASELINES
from psgpo.firsterror.make import opchain_items
from psgpo.firsterror.run import run_baseline, run_scorer
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.lines import code_lines
from psgpo.models import create_policy, load_tokenizer, train_tokenizer
from psgpo.prm import ScorerRecord, open_scorer, split_by_problem, train_prm
from psgpo.prm.calibrate import fit_calibration
from psgpo.prm.evaluation.baselines import LineSurprise
from psgpo.prm.evaluation.journal import scored_rows
from psgpo.prm.evaluation.probes import PROBES
from psgpo.prm.evaluation.programs import load_eval_programs
from psgpo.prm.programs import Encoder, PromptShape, line_examples
from psgpo.problems import save_problems_jsonl
from psgpo.records import Call, CallTests, Problem

TEMPLATE = "# {prompt}\n"
RECORD = ScorerRecord(kind="causal", scope="line", target="sign", prompt_template=TEMPLATE, threshold=0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """items.jsonl, a policy that was never trained, and prm/model, trained on other programs for tasks of the kind."""
    folder = tmp_path_factory.mktemp("world")
    torch.set_num_threads(1)
    with Sandbox(workers=2, timeout=2.0, memory_mb=256) as sandbox:
        items = opchain_items(40, sandbox.evaluate_many, operations=(1, 2), seed=0)
        others = opchain_items(100, sandbox.evaluate_many, operations=(1, 2), seed=1)
    write_jsonl(folder / "items.jsonl", [item.to_json() for item in items])
    write_jsonl(folder / "train.jsonl", [item.to_json() for item in others])
    programs = load_eval_programs(folder / "train.jsonl")
    tokenizer = train_tokenizer([f"# {p.prompt}\n{p.code}" for p in programs], 400)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    create_policy(tokenizer, **sizes).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    examples = line_examples(Encoder(tokenizer, PromptShape(template=TEMPLATE)), programs)
    train, held_out = split_by_problem(examples, 0.2)
    settings = PrmSettings(target="sign", epochs=5, batch_size=16, learning_rate=1e-2, optimizer="muon")
    train_prm(folder / "policy", train, held_out, settings, folder / "prm", record=RECORD)
    return folder


def test_a_trained_prm_beats_baselines_that_do_not_look(world: Path, tmp_path: Path) -> None:
    items = load_items(world / "items.jsonl")
    result = run_scorer(items, open_scorer(world / "prm" / "model"), tmp_path / "prm")
    f1 = result["all"]["f1"]
    for name in BASELINES:
        assert run_baseline(items, name, tmp_path / name)["all"]["f1"] < f1 - 0.1
    assert result["own_threshold"]["threshold"] == 0.0
    assert 0 < result["own_threshold"]["f1"] < 1


def evaluate(world: Path, out: Path, *more: str) -> str:
    arguments = ["eval", str(world / "items.jsonl"), "--prm", str(world / "prm" / "model"), "--out", str(out), *more]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_command_measures_writes_and_goes_on(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = evaluate(world, out, "--policy", str(world / "policy"), "--probes", "12", "--resamples", "30")
    assert all(word in printed for word in ("AUROC", "surprise-mean", "try-except", "own threshold"))
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["scorers"]) == ["prm", "surprise-mean", "surprise-sum", "position", "majority"]
    auroc = {name: s["fitted"]["lines"]["auroc"] for name, s in summary["scorers"].items()}
    assert auroc["prm"] > auroc["surprise-mean"] + 0.1
    assert auroc["prm"] > auroc["majority"] + 0.2
    assert set(summary["probes"]) == set(PROBES)
    assert summary["probes"]["comment-end"]["wrong"]["programs"] == 6
    # A causal PRM reads no further than the newline: a comment behind the program moves at most the last line's score.
    scores = {row["id"]: row["score"] for row in read_jsonl(out / "scores" / "prm-probes.jsonl", dict)}
    pairs = [(old, scores[f"comment-end {name}"]) for name, old in scores.items() if " " not in name]
    assert len(pairs) == 12
    assert all(old[:-1] == pytest.approx(new[: len(old) - 1], abs=1e-4) for old, new in pairs)
    assert summary["probes"]["rename"]["all"]["lines_mean"] > 0
    items = load_items(world / "items.jsonl")
    rows = list(read_jsonl(out / "lines.jsonl", dict))
    assert len(rows) == sum(len(code_lines(item.code)) for item in items)
    scores = open_scorer(world / "prm" / "model").score_lines(items[0].prompt, items[0].code)
    assert [row["prm"] for row in rows[: len(scores)]] == pytest.approx(scores.tolist(), abs=1e-4)
    for name in ("reliability.png", "by_position.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    # Again: nothing is scored anew, all comes out the same; what a kill tore off is made again.
    before = {path.name: path.read_bytes() for path in out.glob("*.json*")}
    journal = out / "scores" / "prm.jsonl"
    kept = journal.read_bytes()
    journal.write_bytes(kept[: len(kept) // 2])
    assert evaluate(world, out, "--policy", str(world / "policy"), "--probes", "12", "--resamples", "30") == printed
    assert {path.name: path.read_bytes() for path in out.glob("*.json*")} == before
    assert sorted(journal.read_bytes().splitlines()) == sorted(kept.splitlines())


def test_a_calibrated_prm_is_shown_both_ways_and_other_programs_are_refused(world: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in (world / "prm" / "model").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    fitted = fit_calibration("isotonic", np.linspace(-1, 1, 40), np.arange(40) >= 20)
    RECORD.calibrated(fitted, 0.1).save(model)
    out = tmp_path / "out"
    items = str(world / "items.jsonl")
    run = ["eval", items, "--prm", str(model), "--out", str(out), "--limit", "20", "--probes", "0", "--resamples", "0"]
    assert CliRunner().invoke(app, run, catch_exceptions=False).exit_code == 0
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["scorers"]["prm"]["calibration"]) == {"raw", "calibrated"}
    assert summary["scorers"]["prm"]["own"]["threshold"] == 0.1
    assert summary["data"]["programs"] == 20
    assert summary["probes"] == {}
    with pytest.raises(UserError, match="programs differ"):
        CliRunner().invoke(app, [*run, "--seed", "0", "--held-out", "0.9"], catch_exceptions=False)
    RECORD.calibrated(fitted, 0.2).save(model)
    with pytest.raises(UserError, match="model differ"):
        CliRunner().invoke(app, run, catch_exceptions=False)


def test_the_same_weights_at_another_place_and_time_are_the_same_model(world: Path, tmp_path: Path) -> None:
    """`psgpo prm train` writes psgpo_prm.json again whenever it is run; people copy folders."""
    items, out, copy = str(world / "items.jsonl"), tmp_path / "out", tmp_path / "copy"
    options = ["--out", str(out), "--limit", "4", "--probes", "0", "--resamples", "0"]
    shutil.copytree(world / "prm" / "model", copy, copy_function=shutil.copyfile)
    ScorerRecord.load(copy).save(copy)
    for model in (world / "prm" / "model", copy):
        assert CliRunner().invoke(app, ["eval", items, "--prm", str(model), *options]).exit_code == 0
    job = out / "scores" / "prm.job.json"
    job.write_text(json.dumps({"model": "0123456789abcdef"}))
    with pytest.raises(UserError, match=r"\(model differ\); an older psgpo wrote it, .* times of their files.* delete"):
        CliRunner().invoke(app, ["eval", items, "--prm", str(copy), *options], catch_exceptions=False)


def test_surprise_is_that_of_the_tokens_of_each_line(world: Path) -> None:
    """Every token of the code belongs to one line; the sum is the whole code's surprise by the model's own loss."""
    policy = LineSurprise(world / "policy", TEMPLATE)
    code = "def solve(x):\n    return x\n"
    ((mean, total),) = policy.line_surprise([("Return x.", code)])
    ids = policy.tokenizer(code, add_special_tokens=False)["input_ids"]
    assert len(mean) == len(total) == 2
    assert sum(t / m for t, m in zip(total, mean, strict=True)) == pytest.approx(len(ids))
    prompt = policy.tokenizer("# Return x.\n", add_special_tokens=False)["input_ids"]
    labels = torch.tensor([[-100] * len(prompt) + ids])
    with torch.no_grad():
        loss = policy.model(input_ids=torch.tensor([prompt + ids]), labels=labels).loss
    assert sum(total) == pytest.approx(float(loss) * len(ids), rel=1e-5)
    with pytest.raises(UserError, match="does not fit its context"):
        policy.line_surprise([("Return x.", "x = 1\n" * 600)])


def test_a_scorer_that_gives_nonsense_is_named(tmp_path: Path) -> None:
    pairs = {"a": ("", "x = 1\ny = 2\n")}
    with pytest.raises(UserError, match="program a: 1 scores for 2 lines"):
        scored_rows(tmp_path / "s.jsonl", pairs, lambda _: [{"score": [1.0]}])
    with pytest.raises(UserError, match="program a: a score is not a finite number"):
        scored_rows(tmp_path / "s.jsonl", pairs, lambda _: [{"score": [1.0, float("nan")]}])


def test_labels_find_their_problems(world: Path, tmp_path: Path) -> None:
    """As `psgpo labels make` leaves them: problems.jsonl beside labels.jsonl."""
    tokenizer = load_tokenizer(world / "policy")
    labels = random_labels(tokenizer, 8)
    write_jsonl(tmp_path / "labels.jsonl", [label.to_json() for label in labels])
    arguments = ["eval", str(tmp_path / "labels.jsonl"), "--prm", str(world / "prm" / "model"), "--resamples", "0"]
    arguments += ["--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="--problems"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    tests = CallTests(function="solve", calls=(Call(args=(1,), expected=1),))
    save_problems_jsonl(tmp_path / "problems.jsonl", [Problem(id=f"p{n}", prompt="x", tests=tests) for n in range(4)])
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["data"]["programs"] == 8
    folder = ["eval", str(tmp_path), *arguments[2:-1], str(tmp_path / "again")]
    assert CliRunner().invoke(app, folder, catch_exceptions=False).exit_code == 0
    one, two = ((tmp_path / name / "lines.jsonl").read_text() for name in ("out", "again"))
    assert one == two
