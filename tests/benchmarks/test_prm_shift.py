"""benchmarks/prm_shift.py: its measures by hand, and the whole script on a small run."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import prm_shift
from psgpo.config import Recipe
from psgpo.labeling.prefixes import CutResponse
from psgpo.lines import code_lines
from psgpo.models import TokenValueModel, load_tokenizer
from psgpo.problems.opchain.oracle import ExactLabels
from psgpo.records import Response, Status, Verdict
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import run_stage
from script_world import run_script

TEXT = "def solve(x):\n    # note\n    x = 1\n    x = 2\n    return x\n"


def response(last: int, progress: tuple[float, ...]) -> tuple[CutResponse, ExactLabels]:
    """A response of `TEXT` of which `last` lines are right."""
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1)
    made = Response(problem_id="p", index=0, checkpoint="c", token_ids=(), text=TEXT, finished=True, verdict=verdict)
    lines = code_lines(TEXT)
    cut = CutResponse(response=made, lines=lines, line_ends=tuple(range(len(lines))), own_ids=())
    on_track = tuple(number < last for number in range(len(lines)))
    return cut, ExactLabels(on_track=on_track, last_on_track=last, progress=progress, lines=5, passed=last == 5)


FOUND = [response(3, (0, 0, 0.5, 0.5, 0.5)), response(5, (0, 0, 0.5, 0.5, 1.0)), response(2, (0, 0, 0, 0, 0))]


def test_the_first_wrong_line_is_compared_with_the_right_ones_before_it() -> None:
    # Comments (the second line) and what follows the first wrong line are not asked.
    scores = [[0.9, -9, 0.8, -0.5, 9], [0.7, -9, 0.6, 0.5, 0.4], [0.3, -9, 0.45, 9, 9]]
    measured = prm_shift.measured(FOUND, [np.array(row) for row in scores], "sign")
    # Right: .9 .8 .7 .6 .5 .4 .3; wrong: -.5, which is below all of them, and .45, above two of seven.
    assert measured == {"first wrong": pytest.approx((7 + 5) / 14), "paid to wrong": None, "total": None}


def test_what_is_paid_to_wrong_lines_is_a_share_of_all_that_is_paid() -> None:
    scores = [[0.1, 9, 0.4, 0.6, 0.6], [0.2, 9, 0.5, 0.5, 1.0], [0.1, 9, 0.2, 0.1, 0.3]]
    measured = prm_shift.measured(FOUND, [np.array(row) for row in scores], "progress")
    # Behind m*: .2 of .6 in the first, nothing in the second, .2 of .3 in the last.
    assert measured["paid to wrong"] == pytest.approx(0.4 / 1.9)
    assert measured["total"] == pytest.approx(np.corrcoef([0.6, 1.0, 0.3], [0.5, 1.0, 0.0])[0, 1])
    assert measured["first wrong"] is None


def test_every_policy_has_a_row_for_every_prm(
    tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory.create(tiny_recipe.model_copy(update={"out": tmp_path / "run"}))
    for stage in ("problems", "sft", "evaluate-sft"):
        run_stage(run, stage, lambda done, total: None)
    start = run.path / "sft" / "model"
    for seed, name in enumerate(("sign", "progress")):
        TokenValueModel.from_policy(start, seed=seed).save_pretrained(
            run.path / "prm" / name / "model", load_tokenizer(start)
        )
    run_script(["benchmarks/prm_shift.py", str(run.path), "--policies", "sft", "--out", str(tmp_path / "rows.csv")])
    rows = list(csv.DictReader((tmp_path / "rows.csv").open(encoding="utf-8")))
    assert [(row["policy"], row["prm"]) for row in rows] == [("sft", "sign"), ("sft", "progress")]
    # Fresh heads score 0: no line is told from another, and none is paid.
    assert [(row["first wrong"], row["paid to wrong"], row["total"]) for row in rows] == [("0.5", "", ""), ("", "", "")]
    assert "| sft | progress | 1 | " in capsys.readouterr().out

    with pytest.raises(SystemExit, match=r"prm_shift\.py: .*evaluation/baseline/samples\.jsonl"):
        run_script(["benchmarks/prm_shift.py", str(run.path), "--policies", "baseline"])
