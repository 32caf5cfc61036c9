"""Figures of benchmarks/study: their numbers, read from the CSV beside the picture. Made-up results."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from study_world import STUDY, P, made_result, small_study

from study import figures
from study.pages import write_pages
from study.results import load_all


def _with(key: str) -> str:
    """The small study, with a key in its group `main`."""
    return STUDY.replace('question = "Does it help?"', f'question = "Does it help?"\n{key}')


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_gains_by_the_length_of_the_response_are_drawn(tmp_path: Path) -> None:
    study = small_study(tmp_path, _with("curves = true"))
    for seed in range(3):
        made_result(study, "main", seed, {"dense": [4] * 16})
    write_pages(study, ["main"], tmp_path / "out")
    rows = _rows(tmp_path / "out" / "main-by-length.csv")
    assert [(row["arm"], row["difference"], row["seeds"]) for row in rows] == [("dense", "0.25", "3")] * 4
    table = _rows(tmp_path / "out" / "main-length.csv")[0]
    assert [f"{float(row['tokens']):.0f}" for row in rows] == [
        table[f"{quarter}: tokens"] for quarter in ("shortest", "short", "long", "longest")
    ]


def test_a_path_leads_from_what_lines_earn_to_what_passes(tmp_path: Path) -> None:
    study = small_study(tmp_path, _with("paths = true"))
    for seed in range(2):
        curve = {"step": [1, 2], "pass_rate": [0.1, 0.0]}
        paid = {"reward_lines": [-0.2, 0.1 + 0.2 * seed]}
        training = {"dense": curve | paid, "baseline": curve | {"reward_lines": [0.0, 0.0]}, "value": curve}
        made_result(study, "main", seed, training=training)
    write_pages(study, ["main"], tmp_path / "out")
    rows = _rows(tmp_path / "out" / "main-paths.csv")
    assert {row["line"] for row in rows} == {"dense"}, "an arm that lines pay nothing has no path"
    assert [(float(row["reward from lines"]), row["pass rate"], row["seeds"]) for row in rows] == [
        (-0.2, "0.1", "2"),
        (pytest.approx(0.2), "0", "2"),
    ]


def test_a_line_with_fewer_seeds_than_another_says_so() -> None:
    data = {"more": [([1, 2], [1, 2])] * 3, "fewer": [([1, 2], [2, 3])]}
    plot = figures.lines_figure(data, name="n", title="T", xlabel="x")
    assert plot is not None
    assert ("more (3 seeds)" in plot.alt, "fewer (1 seed)" in plot.alt) == (True, True)
    alike = figures.lines_figure({"more": data["more"]}, name="n", title="T", xlabel="x")
    assert alike is not None
    assert "seed" not in alike.alt


def test_a_map_has_the_lengths_of_problems_in_its_columns(tmp_path: Path) -> None:
    text = STUDY.replace('question = "And here?"', 'question = "And here?"\nheat = true')
    text = text.replace('title = "warmer"', 'title = "warmer"\nat = {{"warmth" = 1.2}}')
    study = small_study(tmp_path, text)
    for seed in range(2):
        made_result(study, "main", seed)
        made_result(study, "warm", seed, {"dense": [6 if n % 8 < 2 else 2 for n in range(16)]})
    write_pages(study, ["warm"], tmp_path / "out")
    lines = (tmp_path / "out" / "more-dense.csv").read_text().splitlines()
    assert lines[0].startswith("warmth,operations of the problem,difference")
    assert [line.split(",")[:3] for line in lines[1:3]] == [["1.2", "1–2", "0.5"], ["1.2", "3–4", "0"]]


def test_best_of_k_is_drawn_by_the_least_line_score(tmp_path: Path) -> None:
    small = STUDY.replace('curve_arms = ["dense"]', 'best_of = ["baseline"]\nbest_of_samples = 2\nbest_of_prm = "sign"')
    study = small_study(tmp_path, small)
    chosen = {"random": [0.5, 0.5], "sign-mean": [0.5, 0.25], "sign-min": [0.5, 0.75]}
    made_result(study, "main", 0, best_of={"baseline": {"samples": 2, "passes": [1] * P, "chosen": chosen}})
    plot = figures.best_of(study, load_all(study), ["main"], "best")
    assert plot is not None
    ends = {row[0]: row[2] for row in plot.frame.rows if row[1] == 2}
    assert ends == {"baseline, pass@k": 1.0, "baseline, sign-min": 0.75}
