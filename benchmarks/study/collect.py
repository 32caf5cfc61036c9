"""From a finished run directory to its small result file; what the keys mean stands in `results.py`."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psgpo.config import HOW_KEYS, without_keys
from psgpo.errors import UserError
from psgpo.evaluation.grade import tests_digest
from psgpo.job import undo_command
from psgpo.jsonl import read_jsonl, write_json
from psgpo.prm.evaluation.journal import digest
from psgpo.prm.measure import auroc
from psgpo.problems import load_problems_jsonl
from psgpo.records import Problem
from psgpo.runs.directory import RunDirectory
from study.cells import Cell, Study
from study.posts import CHOSEN, Post
from study.results import Json, pack_lengths

TRAINING = (
    "pass_rate",
    "reward_lines",
    "lines_per_response",
    "tokens_per_response",
    "comment_ratio",
    "noop_share",
    "kl",
)
"""Columns of metrics.jsonl that are kept, where an arm has them."""
LABELS = ("agreement", "majority", "labelled", "precision_positive", "precision_negative")
POSITIONS = ("relative_position", "relative_position_exact", "last_line_exact")


def collect(study: Study, cell: str, run: RunDirectory, posts: Sequence[Post]) -> Path:
    """Write the result of a run whose stages and posts are done; returns its path.

    Raises:
        UserError: an evaluation does not cover the run's test problems, or is of other than the wanted samples.
    """
    seed = run.recipe.seed
    problems = sorted(load_problems_jsonl(run.path / "problems" / "test.jsonl"), key=lambda problem: problem.id)
    wanted = study.recipe(cell, seed)
    arms = list(wanted.arms)
    data = {
        "cell": cell,
        "seed": seed,
        "recipe": without_keys(wanted.model_dump(mode="json"), HOW_KEYS) | {"out": str(run.path)},
        "manifest": _read(run.path / "manifest.json") | {"command": study.command(cell, [seed])},
        "stages": _stages(run.path),
        "sft_sha256": weights_digest(run.path / "sft" / "model"),
        "problems": problems_digest(problems),
        "operations": [problem.difficulty for problem in problems],
        "policies": {policy: _policy(run.path, policy, problems) for policy in ("sft", *arms)},
        "training": {arm: _training(run.path / "rl" / arm / "metrics.jsonl") for arm in arms},
        "curves": _curves(run, study.cells[cell]),
        "best_of": {post.policy: best_of_result(run.path, post, problems) for post in posts if post.kind == "best-of"},
        "prm": {name: _prm(_read(run.path / "prm" / name / "measure.json")) for name in wanted.prm},
        "labels": _labels(run.path),
    }
    path = study.result_path(cell, seed)
    write_json(path, data, indent=None)
    return path


def weights_digest(folder: Path) -> str:
    """SHA-256 of all weight files of a model's folder."""
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        found.update(file.read_bytes())
    return found.hexdigest()


def problems_digest(problems: Sequence[Problem]) -> str:
    """Changes with the problems; ids alone do not say which they are, every seed has a t0."""
    return digest([(problem.id, problem.prompt, tests_digest(problem.tests)) for problem in problems])


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing although its stage is done; delete the run directory and run again") from None


def _stages(run: Path) -> Json:
    receipts = [_read(path) for path in sorted((run / "stages").glob("*.json"))]
    return {
        receipt["stage"]: {key: receipt[key] for key in ("cpu_seconds", "taken_from") if receipt.get(key) is not None}
        for receipt in receipts
    }


def _policy(run: Path, policy: str, problems: Sequence[Problem]) -> Json:
    undo = undo_command(run, f"evaluate-{policy}", run / "evaluation" / policy)
    rows = _samples(run / "evaluation" / policy / "samples.jsonl", problems, undo)
    greedy = [row for group in rows for row in group if row["greedy"]]
    sampled = [[row for row in group if not row["greedy"]] for group in rows]
    passed = [[_passed(row) for row in group] for group in sampled]
    return {
        "samples": len(sampled[0]),
        "passes": [sum(group) for group in passed],
        "greedy": [int(_passed(row)) for row in greedy] or None,
        "lengths": pack_lengths([[len(row["token_ids"]) for row in group] for group in sampled], passed),
    }


def _samples(path: Path, problems: Sequence[Problem], undo: str) -> list[list[Mapping[str, Any]]]:
    """Rows of every problem in order of index; as many of each. `undo` removes them, so that they are made anew."""
    groups: dict[str, list[Mapping[str, Any]]] = {problem.id: [] for problem in problems}
    for row in read_jsonl(path, dict):
        if row["problem_id"] not in groups:
            raise UserError(
                f"{path}: problem {row['problem_id']} is none of the run's test problems; {undo}, and run again"
            )
        groups[row["problem_id"]].append(row)
    if len({len(group) for group in groups.values()}) != 1:
        raise UserError(f"{path}: not as many responses to every test problem; {undo}, and run again")
    return [sorted(group, key=lambda row: row["index"]) for group in groups.values()]


def _passed(row: Mapping[str, Any]) -> bool:
    return bool(row["verdict"]["status"] == "PASSED")


def _training(path: Path) -> Json:
    rows: list[Json] = list(read_jsonl(path, dict))
    kept = [name for name in TRAINING if name in rows[0]]
    return {"step": [row["step"] for row in rows]} | {name: [_short(row[name]) for row in rows] for name in kept}


def _short(value: float | None) -> float | None:
    """Four digits: a file of ten policies stays below 60 kB."""
    return None if value is None else float(f"{value:.4g}")


def _curves(run: RunDirectory, cell: Cell) -> Json:
    found = {}
    for arm in cell.curve_arms:
        *before, last = run.recipe.rl_of(arm).checkpoint_steps
        folders = [(step, run.path / "study" / "curve" / arm / f"step-{step}") for step in before]
        folders.append((last, run.path / "evaluation" / arm))
        found[arm] = [
            [step, round(_read(folder / "summary.json")["pass_at_1"]["value"], 6)] for step, folder in folders
        ]
    return found


def best_of_result(run: Path, post: Post, problems: Sequence[Problem]) -> Json:
    """The result of a post of kind `best-of`, `chosen` with it; counted over the samples that are there.

    Raises:
        UserError: see `collect`.
    """
    # What the PRM takes of them lies inside: it goes with the samples, and so does its receipt.
    chosen = run / "stages" / f"{CHOSEN}{post.policy}.json"
    undo = undo_command(run, post.name, post.out) + (f" {shlex.quote(str(chosen))}" if chosen.is_file() else "")
    rows = _samples(post.out / "samples.jsonl", problems, undo)
    samples = len(rows[0])
    if samples != post.samples:
        raise UserError(
            f"{post.out}: {samples} samples of every problem, and study.toml wants best_of_samples = {post.samples}; "
            f"{undo}, and run again"
        )
    found: Json = {"samples": samples, "passes": [sum(map(_passed, group)) for group in rows]}
    file = post.out / "chosen" / "summary.json"
    if file.is_file():
        methods = _read(file)["methods"]
        found["chosen"] = {name: [_short(point["value"]) for point in of["curve"]] for name, of in methods.items()}
    return found


def _prm(measure: Json) -> Json:
    """Of every truth, what the tables show; `ece` is the mean gap between score and truth."""
    if "search" not in measure:  # of a PRM that reads text: one truth, the labels it learned from
        error = measure["calibration"]
        measure = {"search": measure | {"calibration": error["fitted"] or error["raw"]}}
    return {
        truth: {
            **{key: of["lines"][key] for key in ("lines", "majority", "accuracy", "auroc")},
            "position": _position(of["by_position"]) if "by_position" in of else None,
            "first_error": of.get("first_error"),
            "f1": of.get("processbench", {}).get("f1"),
            "ece": of["calibration"]["ece"],
            "correlation": of.get("regression", {}).get("correlation"),
        }
        for truth, of in measure.items()
        if truth in ("search", "exact") and of is not None
    }


def _position(fifths: Sequence[Json]) -> float:
    """AUROC of the share of good lines in the same fifth of a program: what the place of a line alone says."""
    counts = [round(fifth["lines"] * (fifth["good_share"] or 0)) for fifth in fifths]
    good = [True] * sum(counts) + [False] * (sum(fifth["lines"] for fifth in fifths) - sum(counts))
    share = [fifth["good_share"] for fifth, count in zip(fifths, counts, strict=True) for _ in range(count)]
    share += [f["good_share"] for f, count in zip(fifths, counts, strict=True) for _ in range(f["lines"] - count)]
    return auroc(share, good)


def _labels(run: Path) -> Json | None:
    """None without PRMs; of mutants their counts."""
    mutants = run / "mutants" / "summary.json"
    if mutants.is_file():
        return {"mutants": {key: _read(mutants)[key] for key in ("candidates", "programs", "lines")}}
    file = run / "labels" / "summary.json"
    if not file.is_file():
        return None
    summary = _read(file)
    cost, quality = summary["cost"], summary["quality"]
    counts = {key: cost[key] for key in ("k", "responses", "failed_responses", "completions", "executions")}
    found = counts | {"per_failed_response": cost["per_failed_response"]}
    return found | ({key: quality[key] for key in (*LABELS, *POSITIONS)} if quality else {})
