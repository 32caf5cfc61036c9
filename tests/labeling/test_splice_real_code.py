"""Programs of a real model beside passing siblings, in the real sandbox: what is claimed is judged again."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

from psgpo.execution import Sandbox
from psgpo.labeling.splice import SpliceResult, judge_all, names_used, splice_search
from psgpo.lines import code_lines
from psgpo.problems.benchmarks import load_benchmark
from psgpo.problems.programs import program_of

DATA = Path(os.environ.get("PSGPO_DATA") or Path(__file__).parents[3] / "shared" / "data")
FOUND = {
    "HumanEval/104": "if not any(digit % 2 == 0 for digit in str(num)):",
    "HumanEval/114": "if current_sum < 0:",
    "HumanEval/151": "if num % 2 != 0 and num > 0 and num.is_integer():",
}
"""First wrong line of a program of the task, as a reader sees it."""


@pytest.mark.skipif(
    not (DATA / "humaneval_codellama34b.jsonl.gz").is_file(),
    reason="needs humaneval_codellama34b.jsonl.gz and HumanEval.jsonl.gz in PSGPO_DATA or ../shared/data",
)
@pytest.mark.parametrize("tasks", [["HumanEval/104"], pytest.param(list(FOUND), marks=pytest.mark.slow)])
def test_claims_hold_when_judged_again(tasks: list[str]) -> None:
    with gzip.open(DATA / "humaneval_codellama34b.jsonl.gz", "rt") as file:
        rows = [row for line in file if (row := json.loads(line))["task_id"] in tasks]
    with Sandbox(timeout=0.4, memory_mb=512) as sandbox:
        loaded = load_benchmark("humaneval", DATA / "HumanEval.jsonl.gz", evaluate=sandbox.evaluate_many)
        problems = {problem.id: problem for problem in loaded}

        def judge(cases: list[tuple[str, str]]) -> list[bool]:
            graded = sandbox.grade([(program_of(problems[t], solution=p), problems[t].tests) for t, p in cases])
            return [verdict.passed for verdict in graded]

        cases = list(dict.fromkeys((row["task_id"], row["program"]) for row in rows))
        passing, failed = defaultdict(list), []
        for (task, program), passed in zip(cases, judge(cases), strict=True):
            if passed:
                passing[task].append(program)
            else:
                failed.append((task, program))
        searches = [
            splice_search(
                program,
                passing[task],
                roots=names_used(problems[task]),
                preamble=problems[task].preamble,
                whole=lambda code, task=task: program_of(problems[task], solution=code),
            )
            for task, program in failed
        ]
        results: dict[int, SpliceResult] = dict(
            judge_all(searches, lambda asked: sandbox.grade([(p, problems[failed[n][0]].tests) for n, p in asked]))
        )
        proofs = [(failed[n][0], result.proof) for n, result in results.items() if result.proof]
        assert all(judge(proofs))
    assert len(failed) >= 2 * len(tasks) - 1
    found = set()
    for number, result in results.items():
        listed = code_lines(failed[number][1])
        lines = [line.text for line in listed]
        # m* runs on over the neutral lines that follow what was completed.
        kept = max((n for n, line in enumerate(listed[: result.last_proved], start=1) if not line.neutral), default=0)
        assert result.first_refuted is None or result.first_refuted > result.last_proved
        if result.proof:
            assert result.proof.split("\n")[:kept] == lines[:kept]
        if result.exact and result.suspect:
            found.add(lines[result.suspect - 1].strip())
    assert found >= {FOUND[task] for task in tasks}
