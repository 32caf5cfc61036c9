"""The arms against each other on paired seeds: SFT data, problems, labels, PRMs and RL all fresh per seed.

    .venv/bin/python benchmarks/ablation.py [--seeds 0 1 2] [--out docs/results]

Resumable: every seed is a run directory of its own (runs/ablation-<seed>), finished stages are not repeated. Writes
`ablation.json` and `ablation.md` into `--out`, and one report over all seeds into runs/ablation-report.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from psgpo.config import load_recipe
from psgpo.errors import UserError
from psgpo.evaluation.metrics import paired_seed_difference
from psgpo.jsonl import write_json
from psgpo.report.build import build_report
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import run_stages

RECIPE = Path("recipes/ablation.toml")


def main() -> None:
    """Run what is missing, then tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="override a recipe key")
    options = parser.parse_args()
    runs: list[RunDirectory] = []
    for seed in options.seeds:
        overrides = [*options.overrides, f"seed={seed}", f"out=runs/ablation-{seed}"]
        runs.append(RunDirectory.create(load_recipe(RECIPE, overrides)))
        sys.stderr.write(f"seed {seed}\n")
        run_stages(runs[-1])
    build_report([run.path for run in runs], Path("runs/ablation-report"))
    results = tabulate(runs)
    write_json(options.out / "ablation.json", results)
    (options.out / "ablation.md").write_text(markdown(results), encoding="utf-8")
    sys.stdout.write(markdown(results))


def tabulate(runs: list[RunDirectory]) -> dict[str, Any]:
    """Per policy: pass@1 of every seed, and the paired difference to the baseline over seeds."""
    policies = ["sft", *runs[0].recipe.arms]
    summaries = {
        policy: [_read(run.path / "evaluation" / policy / "summary.json") for run in runs] for policy in policies
    }
    value = {policy: [_pass_at_1(summary) for summary in summaries[policy]] for policy in policies}
    table = {}
    for policy in policies:
        difference = paired_seed_difference(value[policy], value["baseline"])
        table[policy] = {
            "pass_at_1": value[policy],
            "mean": sum(value[policy]) / len(runs),
            "greedy": [_greedy(summary) for summary in summaries[policy]],
            "difference": difference.value,
            "low": _finite(difference.low),
            "high": _finite(difference.high),
            "training_pass_rate": [_training(run, policy) for run in runs],
        }
    return {
        "command": "python benchmarks/ablation.py --seeds " + " ".join(str(run.recipe.seed) for run in runs),
        "seeds": [run.recipe.seed for run in runs],
        "recipe": runs[0].recipe.model_dump(mode="json") | {"seed": None, "out": None},
        "manifests": [_read(run.path / "manifest.json") for run in runs],
        "policies": table,
        "labels": [_read(run.path / "labels" / "summary.json") for run in runs],
        "prm": [{name: _read(run.path / "prm" / name / "measure.json") for name in run.recipe.prm} for run in runs],
        "strength": [_read(run.path / "problems" / "strength.json")["rate"] for run in runs],
        "cpu_seconds": [_cpu_seconds(run) for run in runs],
    }


def markdown(results: dict[str, Any]) -> str:
    """The table for people."""
    seeds = results["seeds"]
    lines = [
        f"| policy | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | paired difference to baseline (95 % t) |",
        "|---|" + "---|" * (len(seeds) + 2),
    ]
    for policy, row in results["policies"].items():
        interval = "" if row["low"] is None else f" ({row['low']:+.3f} … {row['high']:+.3f})"
        difference = "–" if policy == "baseline" else f"{row['difference']:+.3f}{interval}"
        values = " | ".join(f"{value:.3f}" for value in row["pass_at_1"])
        lines.append(f"| {policy} | {values} | {row['mean']:.3f} | {difference} |")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run benchmarks/ablation.py again to make it") from None


def _pass_at_1(summary: dict[str, Any]) -> float:
    return float(summary["pass_at_1"]["value"])


def _greedy(summary: dict[str, Any]) -> float | None:
    return summary["greedy"]["value"] if summary.get("greedy") else None


def _training(run: RunDirectory, policy: str) -> float | None:
    """Mean pass rate over the last tenth of RL."""
    if policy == "sft":
        return None
    rows = [json.loads(line) for line in (run.path / "rl" / policy / "metrics.jsonl").read_text().splitlines()]
    tail = rows[-max(1, len(rows) // 10) :]
    return sum(row["pass_rate"] for row in tail) / len(tail)


def _cpu_seconds(run: RunDirectory) -> dict[str, float]:
    receipts = [_read(path) for path in sorted((run.path / "stages").glob("*.json"))]
    return {receipt["stage"]: receipt["cpu_seconds"] for receipt in receipts}


def _finite(value: float) -> float | None:
    return value if value == value else None


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"ablation: {error}")
