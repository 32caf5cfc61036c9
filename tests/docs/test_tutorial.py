"""docs/tutorial.md is what its script makes of its data, and the script tells the story of any run."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from docs_world import ROOT, run

SCRIPT = ROOT / "examples" / "tutorial.py"


@pytest.fixture(scope="module")
def tutorial() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tutorial", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_its_template_with_its_data(tutorial: ModuleType) -> None:
    data = json.loads((ROOT / "docs" / "tutorial.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    same = tutorial.render(data) == page
    assert same, "docs/tutorial.md is not what its template and data make; renew it with: python examples/tutorial.py"


def test_the_committed_numbers_hang_together() -> None:
    """What one part of the page says follows from another: labels from probes, rewards from scores."""
    data = json.loads((ROOT / "docs" / "tutorial.json").read_text(encoding="utf-8"))
    last, lines, arm = data["label"]["last_solvable"], data["lines"], data["arms"][0]
    assert last == max(probe["line"] for probe in data["label"]["probes"] if probe["passed"])
    assert last + 1 == min(probe["line"] for probe in data["label"]["probes"] if not probe["passed"])
    assert [line["label"] for line in lines] == [1.0] * last + [-1.0] * (len(lines) - last)
    for line in lines:
        assert line["rewards"][arm["name"]] * len(lines) == pytest.approx(0.25 * line["scores"]["sign"], abs=1e-3)
    paid = {token["line"]: token["credit"][arm["name"]]["reward"] for token in data["tokens"] if token["line"]}
    assert paid == {number: line["rewards"][arm["name"]] for number, line in enumerate(lines, start=1)}
    assert "".join(token["text"] for token in data["tokens"][:-1]).splitlines() == [line["text"] for line in lines]
    samples = data["after"]["samples"]
    assert all(sum(row["done"]) == samples >= row["passed"] for row in data["after"]["policies"])


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_it_tells_the_story_of_another_run(tmp_path: Path, desk: Path) -> None:
    shutil.copytree(desk / "runs", tmp_path / "runs")
    run([sys.executable, str(SCRIPT), "runs/demo", "--samples", "4", "--out", str(tmp_path)], tmp_path)
    page = (tmp_path / "tutorial.md").read_text(encoding="utf-8")
    data = json.loads((tmp_path / "tutorial.json").read_text(encoding="utf-8"))
    assert page.count("\n## ") == (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8").count("\n## ")
    assert data["problem"]["prompt"] in page
    for line in data["lines"]:
        assert line["text"] in page
    assert [row["policy"] for row in data["after"]["policies"]] == [
        "sft",
        "baseline",
        "dense",
        "value",
        "both",
        "progress",
    ]


def test_a_folder_that_is_no_run_is_refused(tutorial: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(tutorial.UserError, match=str(tmp_path)):
        tutorial.collect(tmp_path, problem=None, samples=1)
