"""A folder of `psgpo eval --model` that is asked for other limits: the samples that were drawn are not given up."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest

import psgpo
from psgpo.cli.eval import warn
from psgpo.errors import UserError
from psgpo.evaluation.benchmark import OTHER_LIMITS, EvalRequest, run_eval
from psgpo.evaluation.draw import DrawSettings, LoadedModel

JOB = {
    "benchmark": "problems.jsonl",
    "filters": {},
    "timeout": 10.0,
    "test_timeout": None,
    "memory_mb": 512,
    "packages": [],
    "psgpo": psgpo.__version__,
    "python": platform.python_version(),
}


@pytest.fixture
def graded(tmp_path: Path) -> EvalRequest:
    """Of a folder in which samples were drawn and graded."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "job.json").write_text(json.dumps(JOB))
    for name in ("results.jsonl", "samples.jsonl"):
        (out / name).write_text("{}\n")
    return EvalRequest(benchmark="problems.jsonl", out=out, limits=OTHER_LIMITS)


def refused(request: EvalRequest) -> str:
    with pytest.raises(UserError) as error:
        run_eval(request, (LoadedModel("none", batch_size=1, device="cpu"), DrawSettings()))
    return str(error.value)


def test_other_limits_name_the_command_that_grades_again(graded: EvalRequest) -> None:
    said = refused(replace(graded, limits=replace(OTHER_LIMITS, timeout=20.0), data=Path("my data.jsonl")))
    assert "(timeout differ)" in said
    again = f"psgpo eval {graded.out}/samples.jsonl --benchmark problems.jsonl --data 'my data.jsonl' --out OTHER"
    assert said.endswith(again)
    assert "delete" not in said


def test_samples_of_another_part_of_the_benchmark_are_no_help(graded: EvalRequest) -> None:
    usual = f"(filters differ); delete {graded.out} or choose another folder"
    assert usual in refused(replace(graded, filters={"limit": 3}))
    (graded.out / "samples.jsonl").unlink()
    assert "(timeout differ); delete" in refused(replace(graded, limits=replace(OTHER_LIMITS, timeout=20.0)))


def test_ids_of_tasks_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    warn({"coverage": {"missing": ["list[/int]", "[red]"], "tasks": 3}, "samples_left_out": 0})
    assert "(list[/int], [red])" in capsys.readouterr().err
