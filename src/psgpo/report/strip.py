"""The strip of stages at the top: the data flow, left to right, and how long every stage took. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from psgpo.config import Recipe
from psgpo.report.aggregate import BASELINE, Experiment


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One box of the data-flow strip."""

    title: str
    detail: str
    stages: tuple[tuple[str, str], ...]
    """Stage and how long it took, or that it is not done yet."""


def strip(data: Experiment) -> Iterator[Step]:
    """The data flow, left to right, with the seconds of every stage (mean over seeds)."""
    recipe = data.first.recipe
    arms = [arm for arm in recipe.arms if arm != BASELINE]
    groups: list[tuple[str, str, list[str]]] = [
        ("Problems", "hidden tests", ["problems"]),
        ("SFT", "starting policy", ["sft"]),
        ("RL baseline", "unit tests only", ["rl-baseline"]),
        ("Line labels", _labelled_by(recipe), _label_stages(recipe)),
        ("PRM", "scores per line", [f"prm-{name}" for name in recipe.prm]),
        ("RL arms", "line rewards", [f"rl-{arm}" for arm in arms]),
        ("Evaluation", "pass@k", [f"evaluate-{policy}" for policy in data.policies]),
    ]
    for title, detail, stages in groups:
        if stages:
            times = tuple((_short(stage), _seconds(data, stage)) for stage in stages)
            yield Step(title=title, detail=detail, stages=times)


def _label_stages(recipe: Recipe) -> list[str]:
    if not recipe.prm:
        return []
    if recipe.labels.source == "mutation":
        return ["mutants"]
    shards = [f"labels-{number + 1}" for number in range(recipe.labels.shards)]
    linear = ["labels-linear"] if recipe.labels.compare_linear else []
    twins = ["twins"] if any(prm.twins for prm in recipe.prm.values()) else []
    return ["responses", *shards, *linear, "labels", *twins]


def _labelled_by(recipe: Recipe) -> str:
    return "mutants" if recipe.labels.source == "mutation" else recipe.labels.strategy.replace("-", " ")


SHORT = {
    "problems": "",
    "mutants": "",
    "sft": "",
    "rl-baseline": "",
    "responses": "sample",
    "labels": "merge",
    "labels-linear": "linear scan",
    "twins": "twins",
}


def _short(stage: str) -> str:
    """Name of a stage inside its box; empty when the box is the stage."""
    if stage in SHORT:
        return SHORT[stage]
    return stage.replace("labels-", "search ") if stage.startswith("labels-") else stage.partition("-")[2]


def _seconds(data: Experiment, stage: str) -> str:
    receipts = [run.stages.get(stage) for run in data.runs]
    if not all(receipts):
        return "not yet"  # while one seed has not finished it
    if all(receipt.taken_from for receipt in receipts if receipt):
        return "taken over"
    seconds = sum(receipt.seconds for receipt in receipts if receipt) / len(receipts)
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def total_time(data: Experiment) -> str:
    """Sum over finished stages: wall and CPU time. What was taken over from another run was spent there."""
    receipts = [stage for run in data.runs for stage in run.stages.values()]
    stages = [stage for stage in receipts if not stage.taken_from]
    if not receipts:
        return ""
    wall, cpu = sum(stage.seconds for stage in stages), sum(stage.cpu_seconds for stage in stages)
    peak = max((stage.peak_memory_mb for stage in stages if not math.isnan(stage.peak_memory_mb)), default=math.nan)
    memory = "" if math.isnan(peak) else f", at most {peak / 1024:.1f} GiB of memory"
    runs = "" if len(data.runs) == 1 else f" for {len(data.runs)} seeds"
    sources = sorted({stage.taken_from for stage in receipts if stage.taken_from})
    count = len(receipts) - len(stages)
    taken = f" {count} stages were taken over from {', '.join(sources)} and are not in these sums." if sources else ""
    return (
        f"Stage times sum to {wall / 60:.1f} min{runs}, {cpu / 60:.1f} min of CPU{memory}; "
        f"stages in one box may have run side by side ({data.first.recipe.processes} processes).{taken}"
    )
