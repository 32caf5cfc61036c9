"""What a missing (cell, seed) will cost in CPU seconds, stage by stage, from what finished ones have cost.

A stage is so many units of work (`work_of`) and a kind of stage so many seconds a unit: measured on the same stage of
the same cell where there is a result, else on every measured stage of the kind, else read from study.toml. Stages that
were taken over from another run cost nothing and measure nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from psgpo.config import OpChainSource, PrmSettings, Recipe
from psgpo.labeling.twins import PER_RESPONSE
from psgpo.runs.inputs import inputs
from psgpo.runs.labelled import labelled_count
from psgpo.runs.stages import stage_graph
from study.cells import Study
from study.measures import with_programs
from study.results import Results

Measured = Mapping[tuple[str, str], float]
"""Seconds a unit, by (cell, stage) and, with the cell "", by kind."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU seconds of one (cell, seed)."""

    cell: str
    seed: int
    stages: dict[str, float]
    """Those that are still to be run."""
    shared: tuple[str, ...]
    """Those that its base lends."""

    @property
    def seconds(self) -> float:
        return sum(self.stages.values())


def kind_of(stage: str) -> str:
    """Kind of a stage by its name.

    >>> [kind_of(name) for name in ("rl-both", "labels-2", "labels", "labels-linear", "study-curve-both-15")]
    ['rl', 'label', 'merge', 'linear', 'evaluate']
    """
    if stage == "labels-linear":
        return "linear"
    first, dash, _ = stage.partition("-")
    if first == "labels":
        return "label" if dash else "merge"
    if first == "study":
        return "chosen" if stage.startswith("study-chosen") else "evaluate"
    return first


def work_of(stage: str, recipe: Recipe) -> float:
    """Units of work of a stage.

    sft: examples / 1000; rl: rollouts / 1000; responses, label, mutants, twins, prm: labelled responses (epochs of
    them) / 1000; linear: responses scanned; evaluate and the study's own: samples / 1000; the rest: 1.
    """
    problems = recipe.problems
    if not isinstance(problems, OpChainSource):
        return 1.0
    labelled = problems.label * recipe.labels.responses_per_problem * labelled_count(recipe) / 1000
    kind = kind_of(stage)
    if kind == "rl":
        rl = recipe.rl_of(stage.removeprefix("rl-"))
        return rl.steps * rl.prompts_per_step * rl.responses_per_prompt / 1000
    return {
        "sft": recipe.sft.examples * recipe.sft.epochs / 1000,
        "responses": labelled,
        "label": labelled / recipe.labels.shards,
        "linear": float(recipe.labels.compare_linear),
        "mutants": problems.label / 1000,
        "twins": labelled,
        "prm": labelled * _passes(recipe.prm[stage.removeprefix("prm-")]) if kind == "prm" else 0.0,
        "evaluate": problems.test * (recipe.evaluation.samples + recipe.evaluation.greedy) / 1000,
    }.get(kind, 1.0)


def _passes(settings: PrmSettings) -> float:
    """Over the responses, twins counted as so many more of them."""
    return settings.epochs * (1 + PER_RESPONSE if settings.twins else 1.0)


def own_stages(study: Study, cell: str, seed: int) -> dict[str, float]:
    """Stages that a finished (cell, seed) has, report left out, with their units of work."""
    recipe, chosen = study.recipe(cell, seed), study.cells[cell]
    found = {stage: work_of(stage, recipe) for stage in stage_graph(recipe) if stage != "report"}
    samples = recipe.evaluation.samples
    test = recipe.problems.test if isinstance(recipe.problems, OpChainSource) else 1000
    for arm in chosen.curve_arms:
        found |= {
            f"study-curve-{arm}-{step}": test * samples / 1000 for step in recipe.rl_of(arm).checkpoint_steps[:-1]
        }
    for policy in chosen.best_of:
        found[f"study-best-of-{policy}"] = test * chosen.best_of_samples / 1000
        if chosen.best_of_prm is not None:
            found[f"study-chosen-{policy}"] = test * chosen.best_of_samples / 1000
    return found


def measured(study: Study, results: Results) -> dict[tuple[str, str], float]:
    """Seconds a unit, as finished results have them; means over seeds, then over cells."""
    found: dict[tuple[str, str], list[float]] = {}
    for (cell, seed), result in results.items():
        work = own_stages(study, cell, seed)
        for stage, receipt in with_programs(result.data["stages"], result.data["labels"]).items():
            units = work.get(stage, 0.0)
            if units and "taken_from" not in receipt:
                for key in ((cell, stage), ("", kind_of(stage))):
                    found.setdefault(key, []).append(receipt["cpu_seconds"] / units)
    return {key: statistics.fmean(values) for key, values in found.items()}


def cost_of(study: Study, rates: Measured, cell: str, seed: int, shared: frozenset[str]) -> Cost:
    """What is still to be run of (cell, seed), `shared` being what its base lends."""
    stages = {}
    done = study.run_path(cell, seed) / "stages"
    for stage, units in own_stages(study, cell, seed).items():
        if stage in shared or (done / f"{stage}.json").is_file():
            continue
        kind = kind_of(stage)
        rate = rates.get((cell, stage), rates.get(("", kind), study.seconds.get(kind, 0.0)))
        stages[stage] = rate * units
    return Cost(cell=cell, seed=seed, stages=stages, shared=tuple(sorted(shared)))


def lent(study: Study, cell: str, seed: int) -> frozenset[str]:
    """Stages of (cell, seed) that its base has too: what `take_over` will find there when the base is done."""
    base = study.cells[cell].base
    if base is None:
        return frozenset()
    here, there = study.recipe(cell, seed), study.recipe(base, seed)
    theirs, found = stage_graph(there), set[str]()
    for name, stage in stage_graph(here).items():
        if name == "report" or name not in theirs:
            continue
        reads = (*stage.reads, *theirs[name].reads)
        # Problems are made alike wherever the keys that a stage reads are.
        same_needs = all(need in found or need == "problems" for need in stage.needs)
        if same_needs and inputs(here, reads, {}) == inputs(there, reads, {}):
            found.add(name)
    return frozenset(found)
