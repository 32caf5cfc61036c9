"""A small run directory with made-up numbers, in the formats the stages write. The programs are real Python."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psgpo.config import parse_recipe
from psgpo.evaluation.summary import summarise
from psgpo.jsonl import write_json, write_jsonl
from psgpo.labeling.quality import measure_labels
from psgpo.lines import code_lines
from psgpo.prm.measure import ScoredResponse, measure
from psgpo.records import Call, CallTests, LineLabels, Probe, Problem, Response, Status, Verdict

ARMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "dense": {"line_reward": "sum", "prm": "sign"},
    "value-init": {"value_init": "sign"},
    "dense-value-init": {"line_reward": "sum", "prm": "sign", "value_init": "sign"},
    "progress": {"line_reward": "progress", "prm": "progress", "lambda_fail": 1.0, "lambda_pass": 1.0},
    "progress-exact": {"line_reward": "progress", "prm": "oracle", "lambda_fail": 1.0, "lambda_pass": 1.0},
}
SKILL = {"sft": 0.1, "baseline": 0.2, "dense": 0.27, "value-init": 0.2, "dense-value-init": 0.26, "progress": 0.3}
STEPS = 40
HOSTILE = "</span><script>alert('x')</script>"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is in a run."""

    problems: int = 32
    samples: int = 4
    """Responses of a policy to a test problem, the greedy one not counted."""
    labelled: int = 60
    """Responses with labels."""


SMALL = Size()
PROBLEMS = SMALL.problems


def recipe_table(path: Path, *, seed: int = 0, size: Size = SMALL, **changes: Any) -> dict[str, Any]:
    """A recipe as plain dicts; `changes` replaces whole tables, but for `rl`, which keeps its number of steps."""
    table = {
        "name": "synthetic",
        "out": str(path),
        "seed": seed,
        "problems": {"kind": "opchain", "test": size.problems},
        "prm": {"sign": {"target": "sign"}, "progress": {"target": "progress"}},
        "arms": ARMS,
        "evaluation": {"samples": size.samples, "bootstrap": 200},
    }
    changes["rl"] = {"steps": STEPS} | changes.get("rl", {})
    return parse_recipe(table | changes, origin="test").model_dump(mode="json")


def make_run(path: Path, *, seed: int = 0, size: Size = SMALL, **changes: Any) -> Path:
    """Write a whole finished run into `path`."""
    recipe = recipe_table(path, seed=seed, size=size, **changes)
    rng = np.random.default_rng(seed + 1)
    write_json(path / "recipe.json", recipe)
    manifest = {"psgpo": "0.1.0", "commit": "0123456789abcdef+changes", "python": "3.11.9", "torch": "2.13.0"}
    manifest |= {
        "transformers": "4.60",
        "platform": "Linux",
        "device": "cpu",
        "cpu": "A <quick> CPU",
        "created": "2025-01-01T00:00:00+00:00",
    }
    write_json(path / "manifest.json", manifest | {"command": "psgpo run recipes/synthetic.toml"})
    arms = [arm for arm in recipe["arms"] if arm != "baseline"]
    stages = [
        "problems",
        "sft",
        "rl-baseline",
        "labels",
        *(f"prm-{n}" for n in recipe["prm"]),
        *(f"rl-{a}" for a in arms),
    ]
    for stage in [*stages, *(f"evaluate-{policy}" for policy in ["sft", *recipe["arms"]])]:
        receipt = {
            "stage": stage,
            "seconds": float(rng.uniform(5, 80)),
            "cpu_seconds": 50.0,
            "finished_at": "2025-01-01",
        }
        write_json(path / "stages" / f"{stage}.json", receipt | {"peak_memory_mb": 512.0})
    _problems(path, seed, size)
    columns = {"loss": 2.0, "learning_rate": 1e-3, "examples": 32, "tokens_per_second": 9000.0}
    write_jsonl(path / "sft" / "metrics.jsonl", ({"step": s} | columns | {"loss": 2 / s} for s in range(1, STEPS + 1)))
    for arm in recipe["arms"]:
        write_jsonl(path / "rl" / arm / "metrics.jsonl", _rl_rows(rng, SKILL.get(arm, 0.4)))
    for policy in ["sft", *recipe["arms"]]:
        _evaluation(path / "evaluation" / policy, policy, rng, seed, size)
    _labels(path, rng, size)
    return path


def cut_training(path: Path, arm: str, steps: int) -> None:
    """As if the arm's RL were still running, at this step."""
    metrics = path / "rl" / arm / "metrics.jsonl"
    rows = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    metrics.write_text("".join(rows[:steps]), encoding="utf-8")
    (path / "stages" / f"rl-{arm}.json").unlink()


def _problems(path: Path, seed: int, size: Size) -> None:
    tests = CallTests(function="solve", calls=(Call(args=([1, 2],), expected=3),))
    problems = [
        Problem(
            id=f"t{i}",
            prompt=f"add {i + 100 * seed}; then sum {HOSTILE}",
            tests=tests,
            split="test",
            difficulty=1 + i % 8,
        ).to_json()
        for i in range(size.problems)
    ]
    write_jsonl(path / "problems" / "test.jsonl", problems)
    write_jsonl(path / "problems" / "train.jsonl", problems)
    caught = {"mutants": 90, "survivors": 0, "rate": 0.0, "equivalent": 0}
    families = {"single": caught, "dropped": caught | {"survivors": 3, "rate": 3 / 90}}
    strength = {"problems": size.problems, "mutants": 90, "survivors": 0, "rate": 0.0}
    write_json(
        path / "problems" / "strength.json", strength | {"families": families, "by_operation": {"reverse": caught}}
    )


def _rl_rows(rng: np.random.Generator, skill: float) -> list[dict[str, Any]]:
    rows = []
    for step in range(1, STEPS + 1):
        share = step / STEPS
        rate = float(np.clip(skill * share + rng.normal(0, 0.02), 0, 1))
        rows.append(
            {
                "step": step,
                "pass_rate": rate,
                "reward_total": rate + 0.1,
                "reward_unit_test": rate,
                "reward_partial": 0.0,
                "reward_lines": 0.1 * share,
            }
            | {
                "kl": 5 * share * skill,
                "kl_penalty": 0.1,
                "policy_loss": -0.01,
                "value_loss": 0.1,
                "clip_fraction": 0.1,
            }
            | {"value_clip_fraction": 0.0, "explained_variance": share * 0.6, "entropy": 0.5 - 0.2 * share}
            | {
                "lines_per_response": 14 + 4 * share,
                "comment_ratio": 0.05,
                "noop_share": 0.02,
                "tokens_per_response": 90.0,
                "all_fail_share": 1 - rate,
            }
            | {"truncated_share": 0.02, "line_reward_pass": 0.02 if step > 3 else None, "line_reward_fail": 0.1}
            | {"tokens_per_second": 8000.0, "seconds_sample": 0.4, "seconds_grade": 0.1, "seconds_score": 0.05}
            | {"seconds_update": 0.5, "seconds_step": 1.1, "grad_norm_policy": 0.4, "grad_norm_critic": 0.8}
        )
    return rows


def program(lines: int, wrong_from: int | None = None) -> str:
    """A program of `lines` lines, with another operator from line `wrong_from` on (counted from 0)."""
    body = ["def solve(x):"]
    for index in range(1, lines - 1):
        operator = "-" if wrong_from is not None and index >= wrong_from else "+"
        body.append("    # what a line" if index == 3 else f"    x = [v {operator} {index} for v in x]")
    return "\n".join([*body, "    return sum(x)"]) + "\n"


def _evaluation(folder: Path, policy: str, rng: np.random.Generator, seed: int, size: Size) -> None:
    skill = SKILL.get(policy, 0.4)
    rows = []
    for index in range(size.problems):
        chance = np.clip(skill * 2 * (1.1 - (1 + index % 8) / 9) + 0.01 * seed, 0, 1)
        for sample in range(size.samples + 1):
            passed = bool(rng.random() < chance)
            text = program(4 + index % 8 + int(rng.integers(4)))
            rows.append(_sample(f"t{index}", sample, policy, text, passed=passed, greedy=sample == size.samples))
    write_jsonl(folder / "samples.jsonl", rows)
    write_json(folder / "summary.json", {"policy": policy} | summarise(rows, resamples=50, seed=seed))


def _sample(problem: str, index: int, policy: str, text: str, *, passed: bool, greedy: bool) -> dict[str, Any]:
    record = _response(problem, index, policy, text, passed=passed).to_json()
    lines = code_lines(text)
    counts = {"lines": len(lines), "comment_lines": sum(line.neutral for line in lines)}
    return record | counts | {"greedy": greedy, "index": 0 if greedy else index, "difficulty": 1 + int(problem[1:]) % 8}


def _response(problem: str, index: int, checkpoint: str, text: str, *, passed: bool) -> Response:
    status = Status.PASSED if passed else Status.WRONG_ANSWER
    verdict = Verdict(status=status, tests_passed=8 if passed else 3, tests_total=8, detail=f"got {HOSTILE}")
    ids = tuple(range(len(text) // 4))
    return Response(
        problem_id=problem, index=index, checkpoint=checkpoint, token_ids=ids, text=text, finished=True, verdict=verdict
    )


def _labels(path: Path, rng: np.random.Generator, size: Size) -> None:
    labels: list[LineLabels] = []
    exact: list[dict[str, Any]] = []
    for number in range(size.labelled):
        lines = int(rng.integers(6, 16))
        passed = number % 4 == 0
        true = lines if passed else int(rng.integers(1, lines))
        found = lines if passed else max(1, true - int(rng.integers(0, 4)))
        text = program(lines, None if passed else true)
        if number % 7 == 1:
            text = text.replace("# what a line", f"# {HOSTILE}")
        neutral = [line.neutral for line in code_lines(text)]
        signs = tuple(0.0 if n else (1.0 if m < found else -1.0) for m, n in enumerate(neutral))
        response = _response(
            f"t{number % size.problems}", number, f"baseline/step-{10 * (1 + number % 4)}", text, passed=passed
        )
        spent = {"completions": 0 if passed else 24, "tokens": 900, "executions": 25}
        probes = (Probe(line=found, drawn=8, passed=1),)
        search = {"strategy": "binary-search", "last_solvable": found, "labels": signs, "probes": probes}
        labels.append(LineLabels(response=response, line_ends=tuple(range(lines)), **search, **spent))
        progress = [min(m + 1, true) / lines for m in range(lines)]
        key = {"problem_id": response.problem_id, "index": response.index, "checkpoint": response.checkpoint}
        exact.append(key | {"last_on_track": true, "lines": lines, "progress": progress})
    write_jsonl(path / "labels" / "labels.jsonl", (label.to_json() for label in labels))
    write_jsonl(path / "labels" / "exact.jsonl", exact)
    quality = measure_labels(
        labels, [row["last_on_track"] for row in exact], [1 + i % 8 for i in range(size.labelled)]
    ).to_json()
    means = {"completions": 24.0, "tokens": 900.0, "executions": 25.0, "cpu_seconds": 0.4}
    cost = {"k": 8, "responses": 60, "failed_responses": 45, "completions": 1080, "tokens": 40000, "executions": 1100}
    cost |= {"cpu_seconds": 20.0, "sandbox_cpu_seconds": 3.0, "early_stop_saving": 0.3, "sharing_saving": 0.1}
    cost |= {
        "per_response": means,
        "per_failed_response": means,
        "per_line": means,
        "probes_asked": 200,
        "probes_drawn": 170,
    }
    scan = {"cost": cost | {"failed_responses": 24}, "quality": quality, "completions": 4000}
    same = {"completions": 600, "quality": quality}
    summary = {"cost": cost, "quality": quality, "linear_scan": scan, "same_responses": same}
    write_json(path / "labels" / "summary.json", summary)
    for name in ("sign", "progress"):
        _prm(path / "prm" / name, name, labels, exact, rng)


def _prm(
    folder: Path, name: Any, labels: list[LineLabels], exact: list[dict[str, Any]], rng: np.random.Generator
) -> None:
    rows, search, truth = [], [], []
    for label, row in zip(labels[:30], exact[:30], strict=True):
        count = row["lines"]
        wanted = (
            np.array(row["progress"])
            if name == "progress"
            else np.where(np.arange(count) < row["last_on_track"], 1.0, -1.0)
        )
        scores = wanted + rng.normal(0, 0.4 if name == "sign" else 0.1, count)
        key = {k: row[k] for k in ("problem_id", "index", "checkpoint")}
        rows.append(key | {"scores": [float(s) if math.isfinite(s) else None for s in scores]})
        neutral = [line.neutral for line in code_lines(label.response.text)]
        common: dict[str, Any] = {
            "problem_id": row["problem_id"],
            "scores": scores,
            "neutral": neutral,
            "progress": row["progress"],
        }
        search.append(ScoredResponse(last_good=label.last_solvable, **common))
        truth.append(ScoredResponse(last_good=row["last_on_track"], **common))
    write_jsonl(folder / "scores.jsonl", rows)
    write_jsonl(
        folder / "metrics.jsonl",
        [{"epoch": e, "train_loss": 1 / (e + 1), "held_out_loss": 1.1 / (e + 1)} for e in range(4)],
    )
    write_json(
        folder / "measure.json",
        {"search": measure(search, name, resamples=20), "exact": measure(truth, name, resamples=20)},
    )
