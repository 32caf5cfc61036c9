"""The page as a whole, from a made-up run: complete, unfinished, hostile, several seeds."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import ARMS, HOSTILE, PROBLEMS, STEPS, cut_training, make_run, recipe_table

from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.report import build_report
from psgpo.report.groups import groups_of
from psgpo.report.load import load_run
from psgpo.runs.directory import RunDirectory

SECTIONS = ("results", "learning", "where", "labels", "prm", "diagnostics", "programs", "tests", "reproduce")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "seed-0")


@pytest.fixture(scope="module")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report([run], tmp_path_factory.mktemp("report"))


class Elements(HTMLParser):
    """Every element with its attributes; fails on tags that are closed but not open."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_page_has_every_section_and_a_figure_beside_each_png(report: Path) -> None:
    elements = Elements(report.read_text(encoding="utf-8")).found
    ids = {attributes.get("id") for tag, attributes in elements if tag == "section"}
    assert ids == set(SECTIONS)
    links = [attributes for tag, attributes in elements if tag == "a"]
    assert {a["href"] for a in links if "download" not in a} == {f"#{name}" for name in SECTIONS}
    tables = sum(tag == "caption" for tag, _ in elements)
    assert tables == 8
    files = {path.name for path in (report.parent / "data").iterdir()}
    assert {a["download"] for a in links if "download" in a} == files
    assert len(files) == 22 + tables
    figures = sum(tag == "figure" for tag, _ in elements)
    assert figures == len(list(report.parent.glob("*.png"))) == 22
    assert "not there yet" not in re.sub(r'title="not there yet"', "", report.read_text(encoding="utf-8"))


def test_page_is_one_file_without_network_and_small(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    for tag, attributes in Elements(text).found:
        assert tag not in {"script", "link", "iframe", "object", "img"}
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:text/csv;")), (tag, attributes)
    assert not re.search(r"https?://", text)
    assert "@import" not in text
    assert report.stat().st_size < 3_000_000


def test_untrusted_text_is_escaped(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text  # in a prompt and in a program
    assert "A &lt;quick&gt; CPU" in text


def test_oracle_arm_is_named_an_upper_bound(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "exact oracle (upper bound, not the method)" in text
    assert "an upper bound and not the method: progress-exact" in text


def test_one_seed_gets_its_warning_and_the_commands_for_more(report: Path, run: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "What one seed can and cannot show" in text
    assert f"psgpo run {run}/recipe.json --set seed=1 --set out={run}-seed1" in text
    assert f"psgpo report {run} {run}-seed1 {run}-seed2 --out {run}-seeds" in text


def test_summary_follows_its_schema(report: Path, run: Path) -> None:
    summary = json.loads((report.parent / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    tables = {"pass_at_1", "difference_to_baseline", "labels", "prm", "seconds_per_stage", "taken_from", "problems"}
    assert set(summary) == {"schema", "command", "recipe", "seeds", "best_of_k"} | tables
    assert summary["command"] == f"psgpo report {run} --out {report.parent}"
    assert (summary["schema"], summary["recipe"], summary["seeds"]) == (1, "synthetic", [0])
    assert set(summary["pass_at_1"]) == {"sft", *ARMS}
    assert set(summary["difference_to_baseline"]) == {"sft", *ARMS} - {"baseline"}
    evaluated = json.loads((run / "evaluation" / "baseline" / "summary.json").read_text(encoding="utf-8"))["pass_at_1"]
    baseline = summary["pass_at_1"]["baseline"]
    assert baseline["mean"] == pytest.approx(evaluated["value"])
    assert baseline["n_problems"] == PROBLEMS
    difference = summary["difference_to_baseline"]["progress"]
    assert difference["mean"] == pytest.approx(summary["pass_at_1"]["progress"]["mean"] - baseline["mean"])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert set(summary["labels"]) >= {"cost", "quality"}
    assert set(summary["prm"]) == {"sign", "progress"}
    assert summary["seconds_per_stage"]["sft"] > 0
    assert summary["taken_from"] == {}
    assert summary["problems"] == {"kind": "opchain", "test": PROBLEMS, "surviving_mutants": 0.0}


def test_empty_run_says_what_is_missing_and_how_to_make_it(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / "recipe.json", recipe_table(tmp_path / "run"))
    index = build_report([tmp_path / "run"], tmp_path / "report")
    text = index.read_text(encoding="utf-8")
    assert {f'id="{name}"' in text for name in SECTIONS} == {True}
    for what in ("Line labels", "PRM sign, progress", "Test strength", "Training of baseline"):
        assert f"{what}" in text
    assert text.count("not there yet. Run:") >= 7
    assert f"psgpo run {tmp_path / 'run'}/recipe.json --until labels" in text
    summary = json.loads((index.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["pass_at_1"]["baseline"] is None
    assert summary["labels"] is None


def test_unfinished_run_shows_what_there_is(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "evaluation" / "progress")
    (copy / "evaluation" / "dense" / "summary.json").unlink()  # samples alone: the evaluation is still going on
    (copy / "prm" / "progress" / "measure.json").unlink()
    (copy / "labels" / "exact.jsonl").unlink()
    with (copy / "rl" / "dense" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 41, "pass_r')
    text = build_report([copy], tmp_path / "report").read_text(encoding="utf-8")
    assert "Evaluation of dense, progress: not there yet" in text
    assert "Not evaluated yet: dense and progress." in text
    assert "PRM progress: not there yet" in text  # its scores are there, their measure is not
    summary = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    assert summary["pass_at_1"]["dense"] is None
    assert summary["pass_at_1"]["baseline"] is not None


def rows_of(index: Path, name: str) -> list[dict[str, str]]:
    with (index.parent / "data" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_running_arm_is_drawn_so_far_and_called_unfinished(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    cut_training(copy, "dense", 12)
    index = build_report([copy], tmp_path / "report")
    text = index.read_text(encoding="utf-8")
    says = f"Training of dense (unfinished, step 12 of {STEPS}): not there yet. Run:"
    go_on = f"psgpo run {copy}/recipe.json --set out={copy} --until rl-dense"
    for section in ("learning", "diagnostics"):
        part = text[text.index(f'id="{section}"') :]
        part = part[: part.index("</section>")]
        assert says in part
        assert go_on in part
    steps = [row for row in rows_of(index, "rl-pass-rate") if row["arm"] == "dense"]
    assert len(steps) == 12
    table = {row["Arm"]: row for row in rows_of(index, "training")}
    assert {arm: row["Steps done"] for arm, row in table.items()} == dict.fromkeys(ARMS, str(STEPS)) | {"dense": "12"}
    assert table["dense"]["Pass rate"] == steps[-1]["pass_rate"]
    assert f"12 of {STEPS}<small>unfinished</small>" in text
    assert "Where it is unfinished: so far." in text


@pytest.mark.parametrize("arm", ["baseline", "dense"])
def test_an_arm_that_one_seed_has_not_finished_has_no_mean(run: Path, tmp_path: Path, arm: str) -> None:
    second = make_run(tmp_path / "seed-1", seed=1)
    cut_training(second, arm, 12)
    index = build_report([second, run], tmp_path / "report")
    text = index.read_text(encoding="utf-8")
    assert f"Training of {arm} (seed 1 unfinished, step 12 of {STEPS}): not there yet. Run:" in text
    assert f"psgpo run {second}/recipe.json --until rl-{arm}" in text
    others = [name for name in ARMS if name != arm]
    curves = rows_of(index, "rl-pass-rate")
    assert {row["arm"] for row in curves} == set(others)
    assert len(curves) == len(others) * STEPS
    table = {row["Arm"]: row for row in rows_of(index, "training")}
    assert [name for name, row in table.items() if row["Pass rate"]] == others
    assert {table[arm][column] for column in table[arm]} == {arm, "12", ""}


def test_all_steps_without_a_receipt_are_no_finished_training(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    cut_training(copy, "dense", STEPS)  # it is about to save its policy
    text = build_report([copy], tmp_path / "report").read_text(encoding="utf-8")
    assert f"Training of dense (unfinished, step {STEPS} of {STEPS}): not there yet" in text


def test_labels_of_one_seed_are_not_drawn_for_both(run: Path, tmp_path: Path) -> None:
    second = make_run(tmp_path / "seed-1", seed=1)
    shutil.rmtree(second / "labels")
    index = build_report([second, run], tmp_path / "report")
    assert not (index.parent / "last-good-line.png").exists()
    assert not (index.parent / "last-good-line-distance.png").exists()


def test_seeds_are_grouped_and_a_missing_seed_is_not_averaged_away(run: Path, tmp_path: Path) -> None:
    second = make_run(tmp_path / "seed-1", seed=1)
    shutil.rmtree(second / "labels")
    shutil.rmtree(second / "evaluation" / "progress")
    index = build_report([second, run], tmp_path / "report")
    text = index.read_text(encoding="utf-8")
    assert "Every seed" in text
    assert "What one seed can" not in text
    summary = json.loads((index.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["seeds"] == [0, 1]
    values = summary["pass_at_1"]["dense"]["per_seed"]
    assert summary["pass_at_1"]["dense"]["mean"] == pytest.approx(sum(values) / 2)
    assert len(values) == 2
    assert summary["labels"][1] is None
    assert summary["pass_at_1"]["progress"] is None
    table = text[text.index("Completions per failed response") :]
    assert 'class="n missing"' in table[: table.index("</tr>")]
    assert "--until labels" in text


def test_how_a_run_was_carried_out_makes_it_no_other_experiment(tmp_path: Path) -> None:
    how = {"processes": 7, "tracking": {"to": []}, "parallel": {"strategy": "fsdp"}, "sandbox": {"workers": 3}}
    carried_out = [{}, how, {"sandbox": {"packages": ["numpy"]}}]
    runs = []
    for seed, how in enumerate(carried_out):
        path = tmp_path / str(seed)
        write_json(path / "recipe.json", recipe_table(path, seed=seed, sft={"optimizer": "adamw"}, **how))
        runs.append(load_run(path))
    assert [len(group.data.runs) for group in groups_of(runs)] == [2, 1]


def test_repeated_seeds_and_several_runs_without_a_folder_are_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_json(other / "recipe.json", recipe_table(other, seed=1))
    with pytest.raises(UserError, match=r"seed 0 is already there from .*, with the same settings; give each once"):
        build_report([run, other, run], tmp_path / "report")
    with pytest.raises(UserError, match=r"2 runs: the page of all needs a folder of its own, e\.g\. --out .*/compared"):
        build_report([run, other])
    with pytest.raises(UserError, match="no such run directory"):
        build_report([tmp_path / "nowhere"], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_broken_file_is_named(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "labels" / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"labels/summary\.json: not valid JSON"):
        build_report([copy], tmp_path / "report")


def test_a_broken_problem_is_named_with_its_line(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    with (copy / "problems" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"id": "a"}\n')
    with pytest.raises(UserError, match=rf"problems/train\.jsonl:{PROBLEMS + 1}: missing key 'prompt'"):
        load_run(copy)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("problems/strength.json", "problems"),
        ("problems/tests.json", "problems"),
        ("labels/summary.json", "labels"),
        ("mutants/summary.json", "mutants"),
        ("prm/sign/measure.json", "prm-sign"),
        ("evaluation/dense/summary.json", "evaluate-dense"),
    ],
)
def test_the_advice_about_a_broken_file_has_its_stage_run_again(
    name: str, stage: str, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "a run"
    shutil.copytree(run, copy)
    write_json(copy / "stages" / f"{stage}.json", {"stage": stage})
    write_json(copy / name, [])
    with pytest.raises(UserError, match="and run the recipe again") as caught:
        load_run(copy)
    advice = str(caught.value).partition("; ")[2].removesuffix(", and run the recipe again")
    subprocess.run(advice, shell=True, check=True)
    load_run(copy)
    assert not RunDirectory.open(copy).stage_done(stage)


def test_a_broken_receipt_is_deleted_and_its_stage_run_again(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "stages" / "sft.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"stages/sft\.json: not valid JSON .*; delete it, and run the recipe again"):
        load_run(copy)
