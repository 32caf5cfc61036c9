"""Several runs: who is averaged, who stands beside whom, and what is never put together."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import ARMS, STEPS, cut_training, make_run

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.report.aggregate import difference, pass_rates
from psgpo.report.build import build_report
from psgpo.report.compare import compare_sections, compared, policy_table
from psgpo.report.groups import Group, between, comparisons, groups_of, settings_that_differ
from psgpo.report.load import load_run
from psgpo.runs.directory import RunDirectory

OTHER = {name: dict(settings) for name, settings in ARMS.items() if name != "value-init"}
OTHER["dense"] |= {"lambda_fail": 0.5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seeds 0 and 1 of one recipe, seed 0 of another, and that one again on other problems and with another seed."""
    folder = tmp_path_factory.mktemp("runs")
    changed = {"name": "other", "arms": OTHER, "rl": {"kl_beta": 0.1}}
    found = {
        "a0": make_run(folder / "a0"),
        "a1": make_run(folder / "a1", seed=1),
        "b0": make_run(folder / "b0", **changed),
        "seed-7": make_run(folder / "seed-7", seed=7, name="late", rl={"kl_beta": 0.3}),
        "elsewhere": make_run(folder / "elsewhere", name="elsewhere", rl={"kl_beta": 0.2}),
    }
    tests = found["elsewhere"] / "problems" / "test.jsonl"
    rows = list(read_jsonl(tests, dict))
    rows[3]["tests"]["calls"][0]["expected"] = 4
    write_jsonl(tests, rows)
    return found


def groups(runs: dict[str, Path], *names: str) -> Sequence[Group]:
    return groups_of([load_run(runs[name]) for name in names])


def test_seeds_of_one_recipe_are_one_group_and_other_settings_another(runs: dict[str, Path]) -> None:
    found = groups(runs, "a1", "b0", "a0")
    assert [(group.label, group.seeds) for group in found] == [("synthetic", (0, 1)), ("other", (0,))]


def test_recipes_of_one_name_are_told_apart_by_their_folders(runs: dict[str, Path], tmp_path: Path) -> None:
    twin = make_run(tmp_path / "twin", rl={"kl_beta": 0.1})
    found = groups_of([load_run(runs["a0"]), load_run(twin)])
    assert [group.label for group in found] == ["a0", "twin"]


def test_only_settings_that_differ_are_listed(runs: dict[str, Path]) -> None:
    assert settings_that_differ(groups(runs, "a0", "a1", "b0")) == [
        ("arms.value-init", ("there", "—")),
        ("rl.kl_beta", ("0.02", "0.1")),
        ("arms.dense.lambda_fail", ("0.25", "0.5")),
    ]


def test_a_difference_between_runs_is_of_the_seeds_and_problems_that_both_have(runs: dict[str, Path]) -> None:
    first, other = groups(runs, "a0", "a1", "b0")
    found = between(first, other, "progress")
    assert found is not None
    ours, theirs = (pass_rates(load_run(runs[name]).evaluations["progress"]) for name in ("b0", "a0"))
    assert found.mean == pytest.approx(np.mean([ours[name] - theirs[name] for name in theirs]))
    assert len(found.per_seed) == 1  # seed 1 is in one of them only
    assert between(first, other, "value-init") is None
    cell = next(
        row for row in policy_table((first, other), "t").rows if row[0].text == "progress" and row[1].text == "other"
    )
    assert cell[-1].note.endswith("seed 0 only")
    assert cell[-1].value == pytest.approx(found.mean)


def test_arms_of_one_name_are_never_averaged_over_recipes(runs: dict[str, Path]) -> None:
    first, other = groups(runs, "a0", "a1", "b0")
    table = policy_table((first, other), "t")
    rows = [(row[1].text, row[4].value) for row in table.rows if row[0].text == "dense"]
    alone = {group.label: difference(group.data, "dense") for group in (first, other)}
    assert rows == [(label, estimate.mean) for label, estimate in alone.items() if estimate is not None]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("elsewhere", "elsewhere is evaluated on other test problems than synthetic"),
        ("seed-7", "late has seed 7, synthetic seed 0, 1: no seed in common"),
    ],
)
def test_what_cannot_be_compared_stands_apart_and_says_why(runs: dict[str, Path], name: str, why: str) -> None:
    found = groups(runs, "a0", "a1", name)
    together = comparisons(found)
    assert [[group.label for group in each.groups] for each in together] == [["synthetic"], [found[1].label]]
    assert together[1].apart is not None
    assert together[1].apart.why == why
    assert compared(together[1]) == [f"{why}: no difference is taken between them."]
    assert between(found[0], found[1], "dense") is None
    sections = compare_sections(found)
    assert [section.id for section, _ in sections] == ["compare", "compare-2"]
    commands = [command for block in sections[1][0].blocks for command in block.commands]
    again = [f"psgpo run {runs[name]}/recipe.json --set seed={s} --set out={runs[name]}-seed{s}" for s in (0, 1)]
    assert commands == (again if name == "seed-7" else [])


def test_learning_curves_of_an_arm_lie_over_each_other_where_two_recipes_have_it(runs: dict[str, Path]) -> None:
    first, other = found = groups(runs, "a0", "a1", "b0")
    (section, _), *_ = compare_sections(found)
    (block,) = [block for block in section.blocks if block.title == "Learning curves"]
    frames = {plot.name: plot.frame for plot in block.plots}
    shared = [arm for arm in first.data.arms if arm in other.data.arms]
    assert list(frames) == [f"runs-pass-rate-{arm}" for arm in shared]
    assert "value-init" in set(first.data.arms) - set(shared)
    frame = frames["runs-pass-rate-dense"]
    assert frame.columns == ("run", "step", "pass_rate", "lowest seed", "highest seed")
    last = {row[0]: row for row in frame.rows}  # of the first two seeds, of the other one
    ends = [load_run(runs[name]).rl["dense"]["pass_rate"][-STEPS // 10 :].mean() for name in ("a0", "a1")]
    assert last["synthetic"][2:] == pytest.approx((np.mean(ends), min(ends), max(ends)))
    assert last["other"][2] == last["other"][3] == last["other"][4]


def test_an_unfinished_seed_has_no_learning_curve_beside_other_recipes(runs: dict[str, Path], tmp_path: Path) -> None:
    copies = {name: tmp_path / name for name in ("a0", "a1", "b0")}
    for name, copy in copies.items():
        shutil.copytree(runs[name], copy)
    cut_training(copies["a1"], "dense", 12)
    cut_training(copies["b0"], "progress", 12)
    (section, _), *_ = compare_sections(groups(copies, *copies))
    plots = {plot.name: plot for block in section.blocks for plot in block.plots}
    assert "runs-pass-rate-dense" not in plots
    lengths = [
        [row[0] for row in plots["runs-pass-rate-progress"].frame.rows].count(name) for name in ("synthetic", "other")
    ]
    assert lengths == [STEPS, 12]  # one run by itself is drawn so far
    missing = {block.missing: block.commands for block in section.blocks if "Training" in block.missing}
    again = {
        name: f"psgpo run {copies[name]}/recipe.json --set out={copies[name]} --until rl-" for name in ("a1", "b0")
    }
    assert missing == {
        f"synthetic: Training of dense (seed 1 unfinished, step 12 of {STEPS})": (f"{again['a1']}dense",),
        f"other: Training of progress (unfinished, step 12 of {STEPS})": (f"{again['b0']}progress",),
    }


def test_a_run_without_problems_yet_is_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs["b0"], copy)
    shutil.rmtree(copy / "problems")
    together = comparisons(groups_of([load_run(runs["a0"]), load_run(copy)]))
    assert together[1].apart is not None
    assert together[1].apart.why == f"The test problems of {copy} are not there yet"


def without_a_problem(runs: dict[str, Path], tmp_path: Path, policy: str) -> Path:
    """A copy of run a0 whose evaluation of a policy lacks one problem."""
    copy = tmp_path / "copy"
    shutil.copytree(runs["a0"], copy)
    samples = copy / "evaluation" / policy / "samples.jsonl"
    write_jsonl(samples, [row for row in read_jsonl(samples, dict) if row["problem_id"] != "t5"])
    return copy


def test_policies_of_one_run_on_other_problems_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = without_a_problem(runs, tmp_path, "dense")
    with pytest.raises(
        UserError, match="evaluation: dense was not evaluated on the same problems as baseline"
    ) as caught:
        build_report([copy])
    advice = str(caught.value).partition("; ")[2].removesuffix(", and run the recipe again")
    subprocess.run(advice, shell=True, check=True)
    build_report([copy])
    assert "dense" not in load_run(copy).evaluations
    assert not RunDirectory.open(copy).stage_done("evaluate-dense")


def test_a_baseline_that_is_out_of_date_is_what_goes(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = without_a_problem(runs, tmp_path, "baseline")
    with pytest.raises(
        UserError, match=f"; rm -r {copy}/evaluation/baseline {copy}/stages/evaluate-baseline.json, and"
    ):
        build_report([copy])


def test_the_page_of_several_recipes(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "b0"
    shutil.copytree(runs["b0"], copy)
    shutil.rmtree(copy / "evaluation" / "progress")
    index = build_report([runs["a0"], runs["a1"], copy], tmp_path / "page")
    text = index.read_text(encoding="utf-8")
    ids = re.findall(r'<(?:section|article)[^>]* id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"compare", "synthetic-results", "other-results"} <= set(ids)
    assert set(re.findall(r'<a href="#([^"]+)"', text)) <= set(ids)
    # What the comparison lacks, with the commands that make it, where the run lies now.
    assert "other with seed 1: not there yet" in text
    assert f"psgpo run {copy}/recipe.json --set seed=1 --set out={copy}-seed1" in text
    assert f"psgpo run {copy}/recipe.json --set out={copy} --until evaluate-progress" in text
    summary = json.loads((index.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["command"] == f"psgpo report {runs['a0']} {runs['a1']} {copy} --out {tmp_path / 'page'}"
    assert [(run["label"], run["seeds"]) for run in summary["runs"]] == [("synthetic", [0, 1]), ("other", [0])]
    assert summary["settings"]["rl.kl_beta"] == {"synthetic": "0.02", "other": "0.1"}
    (comparison,) = summary["comparisons"]
    assert (comparison["run"], comparison["reference"], comparison["seeds"]) == ("other", "synthetic", [0])
    assert comparison["difference"]["progress"] is None
    assert comparison["difference"]["dense"]["n_problems"] == 32
    with (index.parent / "data" / "side-by-side.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert (
        next(row for row in rows if (row["Policy"], row["Run"]) == ("progress", "other"))["pass@1 95 % interval"] == ""
    )
    names = {path.stem for path in (index.parent / "data").iterdir()}
    assert {path.stem for path in index.parent.glob("*.png")} <= names
    assert {"settings", "runs-to-baseline", "runs-to-reference", "synthetic-results", "other-rl-pass-rate"} <= names
