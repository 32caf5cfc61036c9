"""What a run's PRMs make of responses that policies write which learned from them: do they still see what is wrong?

    python benchmarks/prm_shift.py RUN [RUN ...] [--policies NAME ...] [--out ROWS.csv]

A PRM is trained on what the baseline's checkpoints write. A policy that is paid by it leaves the mistakes that it sees,
and keeps those that it does not see. For every PRM of lines and every policy of runs on the embedded benchmark, on the
samples of the evaluation (problems that no PRM was trained on) and against exact labels:

    first wrong    AUROC between the first wrong lines of responses and right lines (`sign`)
    paid to wrong  share of the increments paid that lies on wrong lines (`progress`)
    total          correlation of the total paid with exact progress, over responses (`progress`)

Means over the runs, and their range. No policy draws anything; a run takes some 20 seconds.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.labeling.prefixes import CutResponse, cut_response
from psgpo.lines import TokenText
from psgpo.models import load_tokenizer
from psgpo.prm import PrmScorer
from psgpo.prm.measure import auroc
from psgpo.problems import load_problems_jsonl
from psgpo.problems.opchain.oracle import ExactLabels, ExactOracle
from psgpo.rerank.samples import load_samples
from psgpo.rl.rewards import line_rewards
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import embedded

Array = NDArray[np.float64]
MEASURES = ("first wrong", "paid to wrong", "total")


def responses_of(run: RunDirectory, policy: str, sandbox: Sandbox) -> list[tuple[CutResponse, ExactLabels]]:
    """The samples of a policy's evaluation, cut into lines, with exact labels; those without lines left out."""
    file = run.path / "problems" / "test.jsonl"
    problems = {problem.id: problem for problem in load_problems_jsonl(file)}
    samples = load_samples(run.path / "evaluation" / policy / "samples.jsonl", problems, file)
    text = TokenText(load_tokenizer(run.path / "sft" / "model"))
    responses = [response for group in samples.responses.values() for response in group]
    exact = ExactOracle(sandbox.evaluate_many).label([(problems[r.problem_id], r.text) for r in responses])
    cuts = [cut_response(response, text) for response in responses]
    return [(cut, label) for cut, label in zip(cuts, exact, strict=True) if cut.lines]


def increments(scores: Array, cut: CutResponse) -> Array:
    """What `progress` pays for every line, at λ = 1. Shape: (L,)."""
    return line_rewards("progress", scores, cut.neutral, passed=False, lambda_fail=1.0, lambda_pass=1.0)


def measured(
    found: Sequence[tuple[CutResponse, ExactLabels]], scores: Sequence[Array], target: str
) -> dict[str, float | None]:
    """The measures of one PRM on the responses of one policy."""
    if target == "sign":
        return {"first wrong": _first_wrong(found, scores), "paid to wrong": None, "total": None}
    paid = [increments(row, cut) for row, (cut, _) in zip(scores, found, strict=True)]
    totals = [float(row.sum()) for row in paid]
    to_wrong = sum(float(row[exact.last_on_track :].sum()) for row, (_, exact) in zip(paid, found, strict=True))
    if not any(totals):
        return {"first wrong": None, "paid to wrong": None, "total": None}
    total = float(np.corrcoef(totals, [exact.progress[-1] for _, exact in found])[0, 1])
    return {"first wrong": None, "paid to wrong": to_wrong / sum(totals), "total": total}


def _first_wrong(found: Sequence[tuple[CutResponse, ExactLabels]], scores: Sequence[Array]) -> float:
    said: list[float] = []
    right: list[bool] = []
    for (cut, exact), row in zip(found, scores, strict=True):
        before = sum(line <= exact.last_on_track for line in cut.code)
        asked = cut.code[: before + 1]
        said += [float(row[line - 1]) for line in asked]
        right += [line <= exact.last_on_track for line in asked]
    return auroc(said, right)


def rows_of(path: Path, policies: Sequence[str] | None, sandbox: Sandbox) -> list[dict[str, Any]]:
    """One row for each policy and PRM of a run.

    Raises:
        UserError: the run is not on the embedded benchmark, or lacks a policy's evaluation.
    """
    run = RunDirectory.open(path)
    if not embedded(run.recipe):
        raise UserError(f"{path}: only the embedded benchmark has exact labels; give runs of problems.kind = 'opchain'")
    prms = {name: prm for name, prm in run.recipe.prm.items() if prm.from_policy and prm.target != "soft"}
    if not prms:
        raise UserError(f"{path}: no PRM of target 'sign' or 'progress' that starts from the policy; give other runs")
    rows = []
    for policy in policies or ("sft", *run.recipe.arms):
        found = responses_of(run, policy, sandbox)
        items = [(cut.response.prompt_ids, cut.response.token_ids, cut.line_ends) for cut, _ in found]
        passed = statistics.fmean(cut.response.verdict.passed for cut, _ in found)
        for name, settings in prms.items():
            scores = PrmScorer(run.path / "prm" / name / "model").score(items)
            row = {"run": path.name, "policy": policy, "prm": name, "target": settings.target, "passed": passed}
            rows.append(row | measured(found, scores, settings.target))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over runs, and the least and the most in brackets."""
    lines = [f"| policy | PRM | runs | passed | {' | '.join(MEASURES)} |", "|---|---|---|---|---|---|---|"]
    for policy, prm in dict.fromkeys((row["policy"], row["prm"]) for row in rows):
        mine = [row for row in rows if (row["policy"], row["prm"]) == (policy, prm)]
        cells = [_cell([row[key] for row in mine]) for key in ("passed", *MEASURES)]
        lines.append(f"| {policy} | {prm} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{statistics.fmean(known):.3f} ({min(known):.3f} … {max(known):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--policies", nargs="+", help="sft or arms; absent: all of each run")
    parser.add_argument("--out", type=Path, help="write the rows of every run to this CSV file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    try:
        with Sandbox(timeout=0.5, memory_mb=96) as sandbox:
            for path in arguments.runs:
                rows += rows_of(path, arguments.policies, sandbox)
    except UserError as error:
        raise SystemExit(f"prm_shift.py: {error}") from None
    if arguments.out:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
