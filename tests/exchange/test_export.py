"""Label files as datasets: the rows by hand, and the folder as `datasets` reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exchange_world import psgpo

from psgpo.errors import UserError
from psgpo.exchange.steps import StepForm, count_steps, label_row, program_row, read_rows_of
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.lines import code_lines
from psgpo.mutation.labelled import LabelledProgram
from psgpo.problems import save_problems_jsonl
from psgpo.records import Call, CallTests, LineLabels, Problem, Response, Status, Verdict

CODE = "# add\ndef f(x):\n\n    y = x\n    return y\n# end\n"
TEXT = f"Here:\n```python\n{CODE}```\nDone."
LABELS = (0.0, 1.0, 0.0, 1.0, -1.0, 0.0)
ENDS = (8, 20, 21, 30, 40, 45)
PASSED = Status.PASSED
LINES = StepForm(labels="float", unlabelled="keep")


def labelled(name: str = "p0", *, index: int = 0, text: str = TEXT, labels: tuple[float, ...] = LABELS) -> LineLabels:
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1)
    response = Response(
        problem_id=name,
        index=index,
        checkpoint="late",
        token_ids=(5, 6, 7),
        text=text,
        finished=True,
        verdict=verdict,
        prompt_ids=(1, 2),
    )
    return LineLabels(
        response=response,
        line_ends=ENDS,
        labels=labels,
        last_solvable=4,
        strategy="splice",
        probes=(),
        completions=0,
        tokens=0,
        executions=1,
        tokenizer="abc",
    )


def program(name: str, number: int) -> LabelledProgram:
    return LabelledProgram(
        id=f"{name}#{number}",
        problem_id=name,
        prompt="add 1",
        code="def f(x):\n    return x\n",
        lines=("def f(x):", "    return x"),
        labels=(1, -1),
        mutated_line=2,
        reference_line="    return x + 1",
        in_place=True,
        family="bug",
        kind="constant",
        operator="drop",
        teacher="catalogue",
        verdict="fail",
        status="WRONG_ANSWER",
        decided_by="tests",
    )


def test_every_line_is_a_step_with_its_place_in_the_text() -> None:
    row = label_row(labelled(), "add", LINES)
    assert row["prompt"] == "add"
    assert row["completions"] == ["# add", "def f(x):", "", "    y = x", "    return y", "# end"]
    assert row["labels"] == [0.0, 1.0, 0.0, 1.0, -1.0, 0.0]
    assert row["token_ends"] == list(ENDS)
    places = zip(row["char_starts"], row["char_ends"], strict=True)
    assert [TEXT[start:end] for start, end in places] == row["completions"]
    assert row["id"] == "p0#late#0"
    assert (row["verdict"], row["source"], row["tokenizer"]) == ("WRONG_ANSWER", "splice", "abc")


def test_lines_without_a_claim_join_the_next_step() -> None:
    row = label_row(labelled(), "add", StepForm())
    assert row["completions"] == ["# add\ndef f(x):", "\n    y = x", "    return y"]
    assert row["labels"] == [True, True, False]
    assert row["token_ends"] == [20, 30, 40]
    assert "\n".join(row["completions"]) + "\n# end\n" == CODE
    places = zip(row["char_starts"], row["char_ends"], strict=True)
    assert [TEXT[start:end] for start, end in places] == row["completions"]


def test_a_gap_before_a_proof_of_failure_joins_it_and_soft_labels_stay() -> None:
    gap = labelled(labels=(0.0, 0.25, 0.0, 0.0, -1.0, 0.0))
    row = label_row(gap, "add", StepForm(labels="float"))
    assert row["completions"] == ["# add\ndef f(x):", "\n    y = x\n    return y"]
    assert row["labels"] == [0.25, -1.0]


def passing(label: LineLabels) -> LineLabels:
    return replace(label, response=replace(label.response, verdict=replace(label.response.verdict, status=PASSED)))


def test_of_soft_labels_true_is_what_a_completion_proved() -> None:
    rated = replace(labelled(labels=(0.0, -0.5, 0.0, -1.0, -1.0, 0.0)), strategy="soft")
    for last, wanted in ((2, [True, False, False]), (5, [True, True, True])):  # line 5 passing proves line 4
        assert label_row(replace(rated, last_solvable=last), "add", StepForm())["labels"] == wanted
    end = replace(passing(rated), labels=(0.0, 0.0, 0.0, 0.0, 1.0, 0.0), last_solvable=6)
    assert label_row(end, "add", StepForm())["labels"] == [True, True, True]
    row = label_row(end, "add", StepForm(labels="float"))
    assert row["completions"] == ["# add\ndef f(x):\n\n    y = x\n    return y"]
    assert row["labels"] == [1.0]


def test_of_chances_true_is_above_one_half() -> None:
    unsure = replace(labelled(labels=(0.0, 0.9, 0.0, 0.0, -0.4, 0.0)), strategy="noisy-soft")
    assert label_row(unsure, "add", StepForm())["labels"] == [True, False, False]


def test_every_label_is_a_class_of_a_trainer_with_two() -> None:
    for strategy in ("splice", "soft", "noisy-soft"):
        labels = label_row(replace(labelled(), strategy=strategy), "add", StepForm())["labels"]
        assert {type(label) for label in labels} == {bool}
        assert {int(label) for label in labels} == {0, 1}


def test_a_step_of_rate_one_half_is_counted_as_a_claim() -> None:
    half = replace(labelled(labels=(0.0, 0.5, 0.0, 0.0, -1.0, 0.0)), strategy="soft")
    merge = StepForm(labels="float")
    sizes = {"steps": 3, "positive": 1, "negative": 2, "no_claim": 0}
    assert count_steps([label_row(half, "add", merge)], merge) == {"rows": 1, "problems": 1} | sizes
    every = {"steps": 6, "positive": 2, "negative": 1, "no_claim": 3}
    assert count_steps([label_row(labelled(), "add", LINES)], LINES) == {"rows": 1, "problems": 1} | every


def test_programs_of_psgpo_mutate_have_the_same_columns() -> None:
    row = program_row(program("p0", 3), LINES)
    assert row.keys() == label_row(labelled(), "add", LINES).keys()
    assert row["labels"] == [1.0, -1.0]
    assert (row["source"], row["kind"], row["token_ids"]) == ("mutation/catalogue", "bug/constant", [])


def write_labels_folder(folder: Path) -> Path:
    tests = CallTests(function="f", calls=(Call(args=(1,), expected=2),))
    names = [f"p{number}" for number in range(12)]
    save_problems_jsonl(folder / "problems.jsonl", [Problem(id=n, prompt=f"add {n}", tests=tests) for n in names])
    write_jsonl(folder / "labels.jsonl", (labelled(name, index=i).to_json() for name in names for i in range(2)))
    return folder / "labels.jsonl"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package `datasets` without a network and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="pip install psgpo[data]")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    return datasets


@pytest.mark.parametrize("form", [[], ["--labels", "float", "--unlabelled", "keep"]])
def test_both_formats_load_as_the_rows_that_were_written(
    form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Any
) -> None:
    file = write_labels_folder(tmp_path)
    out = tmp_path / "dataset"
    assert psgpo(monkeypatch, "labels", "export", file, "--out", out, "--holdout", "0.4", *form) == 0
    wanted = read_rows_of(file, LINES if form else StepForm())
    for folder in (out, out / "jsonl"):
        loaded = offline.load_dataset(str(folder))
        assert set(loaded) == {"train", "test"}
        rows = [row for split in ("train", "test") for row in loaded[split]]
        assert sorted(rows, key=lambda row: row["id"]) == sorted(wanted, key=lambda row: row["id"])
        assert not set(loaded["train"]["problem_id"]) & set(loaded["test"]["problem_id"])
        assert str(loaded["train"].features["labels"].feature.dtype) == ("float64" if form else "bool")
    card = (out / "README.md").read_text()
    assert ("`PRMTrainer` takes them as they are" in card) == (not form)
    assert ("do not train it on these numbers" in card) == bool(form)


def test_mutants_load_too_and_a_set_without_test_has_one_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "programs.jsonl", (program("p0", number).to_json() for number in range(3)))
    given = ["labels", "export", tmp_path / "programs.jsonl", "--out", tmp_path / "d", "--license", "mit"]
    assert psgpo(monkeypatch, *given) == 2
    assert "1 problems leave no row for" in capsys.readouterr().err
    assert psgpo(monkeypatch, *given, "--holdout", "0") == 0
    assert "train 3 rows, 1 problems, 6 steps, 3 positive, 3 negative, 0 no_claim" in capsys.readouterr().out
    loaded = offline.load_dataset(str(tmp_path / "d"))
    assert set(loaded) == {"train"}
    assert loaded["train"]["id"] == ["p0#0", "p0#1", "p0#2"]
    card = (tmp_path / "d" / "README.md").read_text()
    assert "license: mit" in card
    assert "labels by `mutation/catalogue`" in card


def test_the_command_line_starts_without_datasets_and_pyarrow() -> None:
    import subprocess
    import sys

    code = "import sys, psgpo.cli.main; sys.exit(any(name in sys.modules for name in ('datasets', 'pyarrow', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_response_without_a_claim_is_no_row_and_a_soft_zero_is_a_claim(tmp_path: Path) -> None:
    form = StepForm(labels="float", unlabelled="merge")
    silent = replace(labelled("q"), labels=(0.0,) * 6)
    soft = replace(labelled("p"), strategy="soft", labels=(0.0, 0.5, 0.0, 0.0, -1.0, 0.0))
    write_jsonl(tmp_path / "labels.jsonl", [silent.to_json(), soft.to_json()])
    tests = CallTests(function="f", calls=(Call(args=(1,), expected=2),))
    save_problems_jsonl(tmp_path / "problems.jsonl", [Problem(id=name, prompt="add 1", tests=tests) for name in "pq"])
    (row,) = read_rows_of(tmp_path / "labels.jsonl", form)
    code = [n for n, line in enumerate(code_lines(soft.response.text)) if not line.neutral]
    assert row["labels"] == [soft.labels[n] for n in code]
    assert 0.0 in row["labels"]
    write_jsonl(tmp_path / "labels.jsonl", [silent.to_json()])
    with pytest.raises(UserError, match="no line has a claim"):
        read_rows_of(tmp_path / "labels.jsonl", form)


def test_select_writes_what_it_keeps_and_counts_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = replace(labelled("q"), last_solvable=0, labels=(0.0, -1.0, 0.0, -1.0, -1.0, 0.0))
    write_jsonl(tmp_path / "labels.jsonl", [labelled().to_json(), lost.to_json()])
    given = ["labels", "select", tmp_path / "labels.jsonl", "--out", tmp_path / "kept.jsonl", "--keep"]
    assert psgpo(monkeypatch, *given, "revised-only") == 0
    assert list(read_jsonl(tmp_path / "kept.jsonl", LineLabels.from_json)) == [labelled()]
    printed = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:5]}
    assert printed["full"] == ["2", "2", "0", "1", "12", "2", "4", "6"]
    assert printed["remove-hard"][:2] == ["1", "1"]
    assert psgpo(monkeypatch, *given, "medium-only") == 2
    assert "keeps nothing" in capsys.readouterr().err
    assert psgpo(monkeypatch, *given, "best") == 2
    assert "--keep 'best': choose one of full, remove-hard" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["labels.jsonl", "--unlabelled", "keep"], "give --unlabelled merge, or --labels float"),
        (["labels.jsonl", "--unlabelled", "drop"], "--unlabelled 'drop': choose one of merge, keep"),
        (["labels.jsonl", "--problems", "others.jsonl"], "problem p0 is not in others.jsonl"),
        (["labels.jsonl", "--holdout", "1"], "--holdout 1.0"),
        (["problems.jsonl"], "problems.jsonl:1: neither a line of labels.jsonl nor of programs.jsonl"),
        (["alone/labels.jsonl"], "its problems are not beside it"),
        (["edited.jsonl"], "6 lines and 2 labels"),
        (["labels.jsonl", "--out", "alone"], "alone: holds something else than a dataset"),
    ],
)
def test_mistakes_cost_one_line_and_exit_status_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_labels_folder(tmp_path)
    tests = CallTests(function="f", calls=(Call(args=(1,), expected=2),))
    save_problems_jsonl("others.jsonl", [Problem(id="x", prompt="", tests=tests)])
    write_jsonl("alone/labels.jsonl", [labelled().to_json()])
    write_jsonl("edited.jsonl", [labelled().to_json() | {"labels": [1.0, 1.0]}])
    assert psgpo(monkeypatch, "labels", "export", "--out", "out", *arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
