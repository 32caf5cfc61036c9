"""Scripts of benchmarks/ that have no other test, run whole at a small size: do they end, and say what they promise?"""

from __future__ import annotations

import gzip
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chromium import NO_CHROMIUM, find_chromium
from psgpo.cli.main import app
from psgpo.labeling import scheduler
from psgpo.models import create_policy, train_tokenizer
from psgpo.problems.opchain import OpChain
from script_world import ROOT, run_script


def columns(table: str) -> list[list[str]]:
    """Cells of the rows of Markdown tables, rules left out."""
    rows = [line for line in table.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what labelling.py leaves: policy/, labels/, table.json."""
    folder = tmp_path_factory.mktemp("labelled")
    size = ["--sft-examples", "64", "--problems", "6", "--responses", "2", "--operations", "1", "1"]
    out = ["--keep", f"{folder}/policy", "--labels", f"{folder}/labels", "--out", f"{folder}/table.json"]
    chosen = ["splice + references", "splice + references, halving"]
    run_script(["benchmarks/labelling.py", *size, *out, "--only", *chosen])
    return folder


def test_labelling_has_a_row_for_every_strategy(labelled: Path) -> None:
    rows = json.loads((labelled / "table.json").read_text())
    assert [row["strategy"] for row in rows] == ["splice + references", "splice + references, halving"]
    assert all(0 < row[share] <= 1 for row in rows for share in ("agreement", "proofs", "labelled"))
    assert all(row["completions"] == 0 for row in rows)


def test_label_value_trains_on_what_labelling_wrote(labelled: Path, tmp_path: Path) -> None:
    options = ["--model", f"{labelled}/policy/sft/model", "--seeds", "1", "--epochs", "1"]
    budget = ["--budget", "splice-0-0-True", "--out", f"{tmp_path}/rows.json"]
    run_script(["benchmarks/label_value.py", f"{labelled}/labels", *options, *budget])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["labels"] for row in rows] == ["exact", "splice-0-0-True-True", "splice-0-0-True"]
    assert all(0 <= row["accuracy"][0] <= 1 for row in rows)


def test_label_scheduler_compares_its_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "LANES", scheduler.LANES)  # the script sets it
    examples = OpChain().sft_examples(200)
    tokenizer = train_tokenizer([f"# {example.prompt}\n{example.solution}" for example in examples])
    policy = create_policy(tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=1)
    policy.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    size = ["--failed", "2", "--in-flight", "2", "--batch-size", "4", "--k", "1", "--draw", "1"]
    options = ["--model", f"{tmp_path}/policy", "--out", f"{tmp_path}/rows.json"]
    run_script(["benchmarks/label_scheduler.py", *options, *size])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["case"] for row in rows] == ["one lane", "two lanes", "two lanes, filled"]
    assert all(row["responses_per_second"] > 0 and 0 <= row["waited"] <= 1 for row in rows)


@pytest.fixture(scope="module")
def mutants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `psgpo mutate`."""
    folder = tmp_path_factory.mktemp("mutants")
    problems = ["problems", "--count", "24", "--operations", "1-2", "--out", f"{folder}/problems.jsonl"]
    mutate = ["mutate", "--benchmark", f"{folder}/problems.jsonl", "--generated", "5", "--out", f"{folder}/mutants"]
    for words in (problems, mutate):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    return folder / "mutants"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_prm_kinds_has_a_row_for_each_kind(mutants: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_script(["benchmarks/prm_kinds.py", str(mutants), "--out", str(tmp_path)])
    _, *rows = columns(capfd.readouterr().out)
    kinds = ["ngrams", "position", "majority", "ngrams, balanced", "causal", "encoder"]
    assert [row[0] for row in rows] == kinds
    assert all(0 <= float(row[1]) <= 1 for row in rows)


@pytest.mark.slow
def test_prm_mutants_measures_its_methods(mutants: Path, tmp_path: Path) -> None:
    run_script(["benchmarks/prm_mutants.py", "--measured", str(mutants), "--out", f"{tmp_path}/measures.json"])
    found = json.loads((tmp_path / "measures.json").read_text())
    assert list(found) == ["all lines", "changed lines"]
    for methods in found.values():
        assert list(methods) == ["position", "n-grams", "n-grams and alternatives"]
        assert all(0 <= method["test"]["accuracy"] <= 1 for method in methods.values())


def test_processes_measures_an_update(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--hidden", "32", "--layers", "1", "--vocabulary", "50", "--rows", "2", "--tokens", "8", "--updates", "1"]
    run_script(["benchmarks/processes.py", *size])
    assert re.search(r"one process, .*\n.* tokens/s\n  process 0: -?[\d,]+ MB at most", capsys.readouterr().out)


@pytest.mark.skipif(find_chromium() is None, reason=NO_CHROMIUM)
def test_report_open_times_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "report")
    run = importlib.import_module("synthetic_run").make_run(tmp_path / "run")
    run_script(["benchmarks/report_open.py", "--run", str(run), "--openings", "1"])
    said = capsys.readouterr().out
    assert all(f"{name}: " in said for name in ("first paint", "DOMContentLoaded", "load"))


def test_samplers_makes_a_model_and_measures_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(["benchmarks/samplers.py", "--make", str(tmp_path)])
    size = ["--prefixes", "2", "--k", "2", "--max-new-tokens", "4", "--batch-size", "4"]
    run_script(["benchmarks/samplers.py", f"hf:{tmp_path}", *size])
    kind, *numbers = capsys.readouterr().out.splitlines()[-1].split()
    assert kind == "hf"
    assert 4 <= int(numbers[2]) <= 16  # tokens of four rows


def test_sampling_ends_with_the_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--train-seconds", "0.01", "--prompts", "2", "--responses", "2", "--repeats", "1", "--limit", "8"]
    run_script(["benchmarks/sampling.py", *size, "--batch-size", "4", "--generate-batches", "4"])
    assert "ratio to the faster generate: " in capsys.readouterr().out


def test_sft_optimizers_has_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    run_script(["benchmarks/sft_optimizers.py", "--examples", "32"])
    _, *rows = columns(capsys.readouterr().out)
    assert [row[0].split()[0] for row in rows] == ["AdamW", "AdamW", "Muon"]
    assert all(float(row[1]) > 0 for row in rows)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_splice_humaneval_finds_the_wrong_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = {
        "task_id": "HumanEval/0",
        "prompt": "def scaled(x: int) -> int:\n",
        "entry_point": "scaled",
        "canonical_solution": "    y = x + 1\n    z = y * 2\n    return z\n",
        "test": "def check(candidate):\n    assert candidate(1) == 4\n    assert candidate(5) == 12\n",
    }
    right = "def scaled(x):\n    y = x + 1\n    z = y * 2\n    return z\n"
    programs = [right, right.replace("* 2", "* 3"), right.replace("* 2", "* 3")]
    _write(tmp_path / "HumanEval.jsonl.gz", [task])
    _write(
        tmp_path / "humaneval_codellama34b.jsonl.gz",
        [{"task_id": "HumanEval/0", "program": program} for program in programs],
    )
    options = ["--data", str(tmp_path), "--workers", "1", "--strong", "--out", f"{tmp_path}/marked.txt"]
    run_script(["benchmarks/splice_humaneval.py", *options])
    assert "2 fail, 2 of them beside a passing sibling: 1 distinct ones of 1 tasks" in capsys.readouterr().out
    marked = (tmp_path / "marked.txt").read_text()
    assert "+   2     y = x + 1\n" in marked
    assert "-   3     z = y * 3\n" in marked or "?   3     z = y * 3\n" in marked
