"""What was measured of a cell beside its arms: PRMs, labels, CPU-seconds, best of n."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from psgpo.config import Recipe
from psgpo.evaluation.metrics import NAN, pass_at_k
from study.cells import Study
from study.compare import Side, present
from study.naming import missing, said
from study.results import OTHER_RECIPE, Results, why_no_best_of
from study.tables import Level, Row

STAGES = {
    "problems": ("problems",),
    "SFT": ("sft",),
    "responses": ("responses",),
    "labels": ("labels", "mutants", "twins"),
    "PRMs": ("prm-",),
    "RL": ("rl-",),
    "evaluation": ("evaluate-", "study-"),
}
"""Kinds of stages by how their names begin."""


def prms(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """PRMs against exact labels of held-out problems; mean over seeds and 95 % t interval of the AUROC."""
    rows: list[Row] = []
    for cell in cells:
        recipe = study.recipe(cell, study.seeds(cell)[0])
        for name in recipe.prm:
            seeds, lack = [], {}
            for seed in study.seeds(cell):
                result = results.get((cell, seed))
                if result is None or name not in result.data["prm"]:
                    lack[seed] = (cell, "not run")
                elif result.outdated(study.recipe(cell, seed), prm=name):
                    lack[seed] = (cell, OTHER_RECIPE)
                else:
                    seeds.append(seed)
            measures = [results[cell, seed].data["prm"][name] for seed in seeds]
            truth = "search" if any("exact" not in measure for measure in measures) else "exact"
            known = [measure[truth] for measure in measures]
            auroc = Level.of([NAN if of["auroc"] is None else of["auroc"] for of in known])
            rows.append(
                {"cell": study.cells[cell].title, "PRM": name, "learns": _learns(recipe, name)}
                | {"against": "exact" if truth == "exact" else "its own labels", "seeds": len(seeds)}
                | {"AUROC": auroc, "position": _average(known, "position")}
                | {key: _average(known, key) for key in ("accuracy", "majority", "f1", "ece")}
                | {"first error": _average([of["first_error"] or {} for of in known], "exact")}
                | {"missing": said(study, lack)}
            )
    return rows


def _learns(recipe: Recipe, prm: str) -> str:
    """The target of a PRM and whose labels it has."""
    settings = recipe.prm[prm]
    of = recipe.labels.strategy if recipe.labels.source == "search" else recipe.labels.source
    noise = f", {settings.noise:.0%} at random" if settings.noise else ""
    return f"{settings.target}, {'exact' if settings.labels == 'oracle' else of}{noise}"


def labels(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """What the labels of a cell cost and how good they are: means over seeds."""
    rows: list[Row] = []
    for cell in cells:
        recipes = {seed: study.recipe(cell, seed) for seed in study.seeds(cell)}
        first = next(iter(recipes.values()))
        if not first.prm or first.labels.source == "mutation":
            continue
        prm = next(iter(first.prm))
        seeds = [s for s in recipes if (cell, s) in results and not results[cell, s].outdated(recipes[s], prm=prm)]
        found = [results[cell, seed].data["labels"] for seed in seeds]
        each = [one["per_failed_response"] for one in found]
        lack = {s: (cell, OTHER_RECIPE if (cell, s) in results else "not run") for s in recipes if s not in seeds}
        rows.append(
            {"cell": study.cells[cell].title, "strategy": first.labels.strategy, "seeds": len(seeds)}
            | {
                "responses": _round(_average(found, "responses"), 0),
                "failed": _round(_average(found, "failed_responses"), 0),
            }
            | {f"{key} per failed response": _round(_average(each, key)) for key in ("completions", "executions")}
            | {key: _average(found, key) for key in ("agreement", "majority", "labelled", "precision_negative")}
            | {"missing": said(study, lack)}
        )
    return rows


def costs(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """CPU-seconds of a seed by kind of stage; those taken over from other cells are counted apart."""
    rows: list[Row] = []
    for cell in cells:
        datas = [results[cell, seed].data for seed in study.seeds(cell) if (cell, seed) in results]
        if not datas:
            continue
        found = [with_programs(data["stages"], data["labels"]) for data in datas]
        own = [{name: of for name, of in stages.items() if "taken_from" not in of} for stages in found]
        sums = {kind: [_cpu(stages, kind) for stages in own] for kind in STAGES}
        arms = [sum(name.startswith("rl-") for name in stages) for stages in own]
        over = [_cpu(stages) - _cpu(mine) for stages, mine in zip(found, own, strict=True)]
        rows.append(
            {"cell": study.cells[cell].title, "seeds": len(found)}
            | {kind: _round(statistics.fmean(values), 0) for kind, values in sums.items()}
            | {"one arm of RL": _round(statistics.fmean(sums["RL"]) / max(1.0, statistics.fmean(arms)), 0)}
            | {"all": _round(statistics.fmean(map(_cpu, own)), 0), "taken over": _round(statistics.fmean(over), 0)}
        )
    return rows


def best_of(
    study: Study, results: Results, cells: Sequence[str], points: Sequence[int] = (1, 2, 4, 8, 16, 30)
) -> list[Row]:
    """pass@k, unbiased, and pass@1 of the program that a PRM takes of n; means over seeds with their t interval."""
    rows: list[Row] = []
    for cell in cells:
        for policy in study.cells[cell].best_of:
            alone = present(study, results, Side(cell=cell, arm=policy))
            lack = {seed: why_no_best_of(study, results, cell, seed, policy) for seed in alone.seeds}
            alone.missing.update({seed: (cell, why) for seed, why in lack.items() if why is not None})
            for method, curves in best_of_curves(study, results, cell, policy, alone.seeds).items():
                values = {f"n = {n}": Level.of([of[n - 1] for of in curves]) for n in points if n <= len(curves[0])}
                rows.append(
                    {"cell": study.cells[cell].title, "policy": policy, "takes": method, "seeds": len(curves)}
                    | values
                    | {"missing": missing(study, alone)}
                )
    return rows


def best_of_curves(
    study: Study, results: Results, cell: str, policy: str, seeds: Sequence[int]
) -> dict[str, list[list[float]]]:
    """By method, a curve over n for each seed that has it. Of the PRM's ways to choose: last, mean, min, product."""
    found: dict[str, list[list[float]]] = {}
    for seed in seeds:
        if why_no_best_of(study, results, cell, seed, policy) is None:
            of = results[cell, seed].data["best_of"][policy]
            found.setdefault("any that passes (pass@k)", []).append(_pass_at(of["passes"], of["samples"]))
            for method, values in of.get("chosen", {}).items():
                if method not in ("oracle", "random"):
                    found.setdefault(method, []).append(values)
    return found


def label_seconds(stages: Mapping[str, Any], labels: Mapping[str, Any] | None) -> float:
    """CPU-seconds of labelling: of its receipts, or of its own count where that is more.

    Receipts of published results lack the programs that were judged, which the labelling's own count has; receipts of
    newer runs have all that ran. Mutants have no count of their own.
    """
    each = (labels or {}).get("per_failed_response", {}).get("cpu_seconds")
    own = each * labels["failed_responses"] if labels and each else 0.0
    return float(max(_cpu(stages, "labels"), own))


def with_programs(stages: Mapping[str, Any], labels: Mapping[str, Any] | None) -> dict[str, Any]:
    """Receipts whose labels are counted by `label_seconds`."""
    counted = _cpu(stages, "labels")
    factor = label_seconds(stages, labels) / counted if counted else 1.0
    scaled = {name: of["cpu_seconds"] * factor for name, of in stages.items() if name.startswith(STAGES["labels"])}
    return {name: of | {"cpu_seconds": scaled.get(name, of["cpu_seconds"])} for name, of in stages.items()}


def _cpu(stages: Mapping[str, Any], kind: str | None = None) -> float:
    """CPU-seconds of the stages of a kind, or of all."""
    return sum(of["cpu_seconds"] for name, of in stages.items() if kind is None or name.startswith(STAGES[kind]))


def _average(found: Sequence[Any], key: str) -> float:
    values = [float(of[key]) for of in found if of.get(key) is not None]
    return statistics.fmean(values) if values else NAN


def _round(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _pass_at(passes: Sequence[int], samples: int) -> list[float]:
    return [statistics.fmean(pass_at_k(samples, c, k) for c in passes) for k in range(1, samples + 1)]
