"""A report of several test sets: each apart, with and without what was trained on, and a headline without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_run import PROBLEMS, make_run

from psgpo.evaluation.sets import EvalSet, save_sets
from psgpo.evaluation.summary import summarise_tests
from psgpo.jsonl import read_jsonl, write_json
from psgpo.report.aggregate import pass_at_1
from psgpo.report.build import build_report
from psgpo.report.groups import groups_of
from psgpo.report.load import load_run

IDS = [f"t{number}" for number in range(PROBLEMS)]
SETS = {
    "first": EvalSet(problems=tuple(IDS[:20]), trained_on=frozenset(IDS[:12])),
    "second": EvalSet(problems=tuple(IDS[20:]), trained_on=frozenset()),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose test problems are two sets; responses to what was trained on all pass."""
    path = make_run(
        tmp_path_factory.mktemp("sets") / "run", evaluation={"samples": 4, "bootstrap": 50, "at": [1, 2, 4]}
    )
    save_sets(path / "problems", SETS)
    for folder in (path / "evaluation").iterdir():
        rows = list(read_jsonl(folder / "samples.jsonl", dict))
        for row in rows:
            if row["problem_id"] in SETS["first"].trained_on:
                row["verdict"]["status"] = "PASSED"
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_json(folder / "summary.json", {"policy": folder.name, **summarise_tests(rows, SETS, resamples=50)})
    return path


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    build_report([run], run / "report")
    found: dict[str, Any] = json.loads((run / "report" / "summary.json").read_text())
    return found


def passed(run: Path, policy: str, ids: list[str]) -> float:
    outcomes = load_run(run).evaluations[policy].outcomes()
    return float(np.mean([np.mean(outcomes[name]) for name in ids]))


def test_the_headline_is_without_what_was_trained_on(run: Path, summary: dict[str, Any]) -> None:
    assert summary["part"] == {"test": "first", "which": "clean", "problems": 8, "trained_on": 0}
    assert summary["pass_at_1"]["dense"]["mean"] == pytest.approx(passed(run, "dense", IDS[12:20]))
    assert summary["pass_at_1"]["dense"]["n_problems"] == 8


def test_every_part_is_there_with_its_own_numbers(run: Path, summary: dict[str, Any]) -> None:
    parts = {(row["part"]["test"], row["part"]["which"]): row for row in summary["tests"]}
    assert list(parts) == [("first", "clean"), ("first", "all"), ("second", "all")]
    whole = parts["first", "all"]["pass_at_1"]["dense"]["mean"]
    assert whole == pytest.approx(passed(run, "dense", IDS[:20]))
    assert whole > summary["pass_at_1"]["dense"]["mean"]  # what was trained on flatters
    assert parts["second", "all"]["pass_at_1"]["sft"]["mean"] == pytest.approx(passed(run, "sft", IDS[20:]))
    difference = passed(run, "dense", IDS[20:]) - passed(run, "baseline", IDS[20:])
    assert parts["second", "all"]["difference_to_baseline"]["dense"]["mean"] == pytest.approx(difference)
    at_k = parts["second", "all"]["pass_at_k"]["dense"]
    assert list(at_k) == ["2", "4"]
    assert at_k["2"] <= at_k["4"]


def test_the_page_names_the_parts(run: Path, summary: dict[str, Any]) -> None:
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "On 8 test problems (first: 8 problems that nothing was trained on)" in page
    for title in ("first: all 20 problems, 12 of them trained on", "second: all 12 problems, none of them trained on"):
        assert title in page
    assert page.count("pass@2") >= 3


@pytest.mark.parametrize("unmade", [-1, 1])
def test_a_seed_without_its_problems_is_missing(unmade: int, run: Path, tmp_path: Path) -> None:
    """Whether it is the first of the seeds or the last."""
    path = tmp_path / "other"
    recipe = json.loads((run / "recipe.json").read_text()) | {"seed": unmade, "out": str(path)}
    write_json(path / "recipe.json", recipe)
    found = groups_of([load_run(run), load_run(path)])[0].data
    assert found.part is not None
    assert (found.part.test, found.part.which) == ("first", "clean")
    assert len(found.parts) == 3
    assert pass_at_1(found, "dense") is None
    build_report([run, path], tmp_path / "report")
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["pass_at_1"]["dense"] is None


def test_a_run_that_is_not_evaluated_yet_has_dashes(run: Path, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    save_sets(path / "problems", SETS)
    for folder in (path / "evaluation").iterdir():
        (folder / "summary.json").unlink()
    build_report([path], path / "report")
    found = json.loads((path / "report" / "summary.json").read_text())
    assert found["pass_at_1"]["dense"] is None
    assert found["tests"][0]["pass_at_k"]["dense"] == {"4": None}
