"""Figure 5 and Table 2 of PSGPO on the embedded benchmark: how many responses are labelled, and which.

    python benchmarks/figure5.py [--seeds 0 1] [--responses 1 2 4 8] [--select-at 2] [--out docs/results]

Per seed and n: n responses per problem of each of the baseline's four checkpoints -> labels -> PRM -> DenseReward.
Responses are nested (those of n = 1 are among those of n = 2), and everything before them (problems, SFT policy,
baseline) is made once per seed. Every PRM is measured against exact labels on the same held-out responses, those of the
largest n. `--select-at n` trains one more PRM and arm per selection of Table 2 on the labels of that n.

Each cell is a run directory of recipes/figure5.toml; finished stages are not repeated. At the end figure5.json and
figure5.png are written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from psgpo.config import load_recipe
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl, write_json
from psgpo.labeling import count_labels, select_labels
from psgpo.records import LineLabels
from psgpo.runs.directory import RunDirectory
from psgpo.runs.orchestrate import run_stages
from psgpo.seeds import is_held_out

RECIPE = Path("recipes/figure5.toml")
SHARED_STAGES = ("problems", "sft", "rl-baseline", "evaluate-sft", "evaluate-baseline")
SHARED_FOLDERS = ("problems", "sft", "rl/baseline", "evaluation/sft", "evaluation/baseline")
SELECTIONS = ("remove-hard", "medium-only", "revised-only")
CPU_SECONDS = {"shared": 190, "arm": 65, "response": 170, "selection": 60}
"""What stages took on one core: shared ones per seed, an arm with its evaluation, sampling, labelling and PRM per unit
of n, a selection with its arm."""


def main() -> None:
    """Run what is missing, then tabulate and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--responses", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--select-at", type=int, default=2, help="n whose labels are selected from; 0 for none")
    parser.add_argument("--select-seeds", type=int, nargs="*", help="seeds with selections; default: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/figure5"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="override a recipe key")
    options = parser.parse_args()
    cells = [(seed, n) for seed in options.seeds for n in sorted(options.responses)]
    selecting = options.seeds if options.select_seeds is None else options.select_seeds
    announce(options.runs, cells, options.select_at, selecting)
    opened = {}
    for seed, n in cells:
        chosen = SELECTIONS if n == options.select_at and seed in selecting else ()
        opened[seed, n] = run_cell(options.runs, seed, n, chosen, options.overrides)
    results = tabulate(opened, options)
    write_json(options.out / "figure5.json", results)
    draw(results, options.out / "figure5.png")
    sys.stdout.write(markdown(results))


def announce(runs: Path, cells: list[tuple[int, int]], select_at: int, selecting: list[int]) -> None:
    """Say what is missing and what it costs, before anything runs."""
    missing = [cell for cell in cells if not (folder(runs, *cell) / "stages" / "evaluate-dense.json").is_file()]
    seeds = {seed for seed, _ in missing if not any(runs.glob(f"seed-{seed}-*/stages/rl-baseline.json"))}
    seconds = CPU_SECONDS["shared"] * len(seeds)
    seconds += sum(CPU_SECONDS["arm"] + CPU_SECONDS["response"] * n for _, n in missing)
    seconds += sum(
        CPU_SECONDS["selection"]
        for seed, n in cells
        for keep in SELECTIONS
        if n == select_at and seed in selecting
        if not (folder(runs, seed, n) / "stages" / f"evaluate-dense-{keep}.json").is_file()
    )
    sys.stderr.write(f"{len(missing)} of {len(cells)} cells to run: about {seconds / 60:.0f} CPU-minutes\n")


def folder(runs: Path, seed: int, n: int) -> Path:
    return runs / f"seed-{seed}-responses-{n}"


def run_cell(runs: Path, seed: int, n: int, chosen: tuple[str, ...], overrides: list[str]) -> RunDirectory:
    """One run directory with everything done that the figure needs."""
    out = folder(runs, seed, n)
    keys = [*overrides, f"seed={seed}", f"out={out}", f"labels.responses_per_problem={n}"]
    for keep in chosen:
        keys += [f"prm.{keep}.target=sign", f"prm.{keep}.select={keep}"]
        keys += [f"arms.dense-{keep}.line_reward=sum", f"arms.dense-{keep}.prm={keep}"]
    directory = RunDirectory.create(load_recipe(RECIPE, keys))
    _share(runs, seed, directory)
    arms = ["dense", *(f"dense-{keep}" for keep in chosen)]
    run_stages(directory, [*(f"evaluate-{policy}" for policy in ("sft", "baseline", *arms)), "labels"])
    return directory


def _share(runs: Path, seed: int, target: RunDirectory) -> None:
    """Copy the stages before the labels from a finished cell of the same seed."""
    if target.stage_done("evaluate-baseline"):
        return
    for source in sorted(runs.glob(f"seed-{seed}-responses-*")):
        done = all((source / "stages" / f"{stage}.json").is_file() for stage in SHARED_STAGES)
        if source != target.path and done:
            for name in SHARED_FOLDERS:
                shutil.copytree(source / name, target.path / name, dirs_exist_ok=True)
            (target.path / "stages").mkdir(exist_ok=True)
            for stage in SHARED_STAGES:
                shutil.copy(source / "stages" / f"{stage}.json", target.path / "stages")
            return


def tabulate(opened: dict[tuple[int, int], RunDirectory], options: argparse.Namespace) -> dict[str, Any]:
    """Every PRM and arm, with what its labels cost."""
    rows = []
    for (seed, n), run in opened.items():
        largest = opened[seed, max(m for s, m in opened if s == seed)]
        labels = list(read_jsonl(run.path / "labels" / "labels.jsonl", LineLabels.from_json))
        for prm, settings in run.recipe.prm.items():
            arm = "dense" if prm == "sign" else f"dense-{prm}"
            if not run.stage_done(f"evaluate-{arm}"):
                continue
            chosen = select_labels(labels, settings.select, medium=settings.medium)
            rows.append(
                {"seed": seed, "responses": n, "select": settings.select, "counts": count_labels(chosen).to_json()}
                | {"labels": _label_figures(run), "prm": _prm_quality(run, prm, largest)}
                | {"pass_at_1": _pass_at_1(run, arm), "baseline": _pass_at_1(run, "baseline")}
                | {"sft": _pass_at_1(run, "sft"), "cpu_seconds": _cpu_seconds(run, prm, arm)}
            )
    return {"command": "python benchmarks/figure5.py " + " ".join(sys.argv[1:]), "rows": rows} | {
        "recipe": next(iter(opened.values())).recipe.model_dump(mode="json") | {"seed": None, "out": None},
        "manifests": [_read(run.path / "manifest.json") for run in opened.values()],
        "seeds": sorted({seed for seed, _ in opened}),
    }


def _label_figures(run: RunDirectory) -> dict[str, Any]:
    summary = _read(run.path / "labels" / "summary.json")
    return {
        "agreement": summary["quality"]["agreement"],
        "completions_per_failed_response": summary["cost"]["per_failed_response"]["completions"],
        "executions_per_failed_response": summary["cost"]["per_failed_response"]["executions"],
    }


def _prm_quality(run: RunDirectory, prm: str, largest: RunDirectory) -> dict[str, float]:
    """Against exact labels, on the held-out responses of the largest cell of the seed."""
    from psgpo.prm import PrmScorer, assess_prm, load_exact

    out = run.path / "figure5" / f"{prm}-on-{largest.path.name}"
    if not (out / "measure.json").is_file():
        labels = read_jsonl(largest.path / "labels" / "labels.jsonl", LineLabels.from_json)
        held_out = [label for label in labels if is_held_out(label.response.problem_id, largest.recipe.labels.holdout)]
        exact = load_exact(largest.path / "labels" / "exact.jsonl")
        assess_prm(PrmScorer(run.path / "prm" / prm / "model"), held_out, run.recipe.prm[prm], out, exact)
    lines = _read(out / "measure.json")["exact"]["lines"]
    return {key: lines[key] for key in ("lines", "majority", "accuracy", "auroc")}


def _pass_at_1(run: RunDirectory, policy: str) -> dict[str, float]:
    value = _read(run.path / "evaluation" / policy / "summary.json")["pass_at_1"]
    return {key: value[key] for key in ("value", "low", "high")}


def _cpu_seconds(run: RunDirectory, prm: str, arm: str) -> dict[str, float]:
    stages = {"responses": "responses", "labels": "labels-1", "prm": f"prm-{prm}", "rl": f"rl-{arm}"}
    return {name: _read(run.path / "stages" / f"{stage}.json")["cpu_seconds"] for name, stage in stages.items()}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run benchmarks/figure5.py again to make it") from None


def markdown(results: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        "| seed | responses per problem and checkpoint | selection | responses labelled | +1 / −1 lines | agreement "
        "| PRM AUROC, accuracy (majority), exact labels | baseline | dense | difference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        counts, prm = row["counts"], row["prm"]
        value, base = row["pass_at_1"]["value"], row["baseline"]["value"]
        lines.append(
            f"| {row['seed']} | {row['responses']} | {row['select']} | {counts['responses']:,} | "
            f"{counts['positive']:,} / {counts['negative']:,} | {row['labels']['agreement']:.3f} | {prm['auroc']:.3f}, "
            f"{prm['accuracy']:.3f} ({prm['majority']:.3f}) | {base:.3f} | {value:.3f} | {value - base:+.3f} |"
        )
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Two panels over n: quality of the PRM, and what DenseReward gains over the baseline."""
    full = [row for row in results["rows"] if row["select"] == "full"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for seed in results["seeds"]:
        rows = sorted((row for row in full if row["seed"] == seed), key=lambda row: row["responses"])
        xs = [row["responses"] for row in rows]
        left.plot(xs, [row["prm"]["auroc"] for row in rows], marker="o", label=f"seed {seed}")
        gains = [row["pass_at_1"]["value"] - row["baseline"]["value"] for row in rows]
        right.plot(xs, gains, marker="o", label=f"seed {seed}")
    right.axhline(0, color="0.6", linewidth=0.8)
    left.set_ylabel("AUROC of the PRM, exact labels")
    right.set_ylabel("pass@1, DenseReward − baseline")
    ticks = sorted({row["responses"] for row in full})
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("responses labelled per problem and checkpoint")
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"figure5: {error}")
