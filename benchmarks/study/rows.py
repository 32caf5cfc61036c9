"""The rows of every table, from results alone. A seed without a pair is named, with the command that makes it."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from psgpo.evaluation.metrics import NAN, pass_at_k
from study.cells import BASELINE, Study
from study.compare import (
    OTHER_PROBLEMS,
    OTHER_SFT,
    Pairs,
    Side,
    curve,
    over_seeds,
    pair,
    present,
    share_of_gain,
    steps_to_reach,
    two_level_bootstrap,
)
from study.results import OTHER_RECIPE, Result, Results, why_no_best_of
from study.tables import Level, Row

OPERATIONS = ((1, 2), (3, 4), (5, 6), (7, 8))
"""Groups of problems by length, in operations."""
STANDS_IN_THE_WAY = (OTHER_RECIPE, OTHER_PROBLEMS, OTHER_SFT)
"""Reasons for which `run` alone would refuse the run directory, or take the result for done."""
MANY = 8
"""How many samples the tables' pass@k is about, beside pass@1."""
STAGES = {
    "problems": ("problems",),
    "SFT": ("sft",),
    "responses": ("responses",),
    "labels": ("labels", "mutants"),
    "PRMs": ("prm-",),
    "RL": ("rl-",),
    "evaluation": ("evaluate-", "study-"),
}
"""Kinds of stages by how their names begin."""
QUARTERS = ("shortest", "short", "long", "longest")


def sides(study: Study, cells: Iterable[str]) -> Iterator[tuple[Side, Side]]:
    """Every arm that the tables show, with each of its references."""
    for cell in cells:
        for arm in study.arms(cell):
            for other, reference in study.references(cell, arm):
                yield Side(cell=cell, arm=arm), Side(cell=other, arm=reference)


def arms(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """pass@1 of every arm and its paired difference to its reference."""
    rows: list[Row] = []
    for side, reference in sides(study, cells):
        pairs = pair(study, results, side, reference)
        alone = present(study, results, side)
        itself = side == reference
        rows.append(
            _named(study, side)
            | {
                "seeds": len(alone.seeds),
                "pass@1": _mean(alone),
                "against": named_reference(side, reference),
                "pairs": len(pairs.seeds),
            }
            | {
                "difference, bootstrap": "–" if itself else two_level_bootstrap(pairs.differences()),
                "difference, t over seeds": "–" if itself else over_seeds(pairs.differences()),
                "missing": missing(study, pairs),
            }
        )
    return rows


def fresh(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """The differences of `arms` on the seeds by which nothing was chosen."""
    rows: list[Row] = []
    for side, reference in sides(study, cells):
        chosen = study.groups[study.cells[side.cell].group].fresh
        if side == reference or not chosen:
            continue
        pairs = pair(study, results, side, reference)
        kept = [d for seed, d in zip(pairs.seeds, pairs.differences(), strict=True) if seed in chosen]
        lack = {seed: why for seed, why in pairs.missing.items() if seed in chosen}
        rows.append(
            _named(study, side)
            | {"against": named_reference(side, reference), "pairs": len(kept)}
            | {"difference, bootstrap": two_level_bootstrap(kept), "difference, t over seeds": over_seeds(kept)}
            | {"missing": _said(study, lack)}
        )
    return rows


def decoding(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """Whether a gain at temperature 1 is there under greedy decoding too, and among several samples."""
    rows: list[Row] = []
    for side, reference in sides(study, cells):
        pairs = pair(study, results, side, reference)
        row = _named(study, side) | {"against": named_reference(side, reference), "pairs": len(pairs.seeds)}
        for name, rates in (("greedy", Result.greedy), (f"pass@{MANY}", functools.partial(Result.pass_at, k=MANY))):
            ours, theirs = ([rates(results[of.cell, seed], of.arm) for seed in pairs.seeds] for of in (side, reference))
            row[name] = statistics.fmean(float(rate_P.mean()) for rate_P in ours) if ours else NAN
            differences = [a - b for a, b in zip(ours, theirs, strict=True)]
            row[f"{name}: difference"] = "–" if side == reference else two_level_bootstrap(differences)
        rows.append(row | {"missing": missing(study, pairs)})
    return rows


def shares(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """Gains over the baseline as shares of the gain of the arm that bounds them."""
    rows: list[Row] = []
    for cell in cells:
        for arm, bound in ((arm, bound) for arm, bounds in study.cells[cell].gain_of.items() for bound in bounds):
            other, _, name = bound.rpartition("/")
            sides_of = ((cell, arm), (other or cell, name))
            parts, wholes = (
                pair(study, results, Side(cell=of, arm=one), Side(cell=of, arm=BASELINE)) for of, one in sides_of
            )
            common = [seed for seed in parts.seeds if seed in wholes.seeds]
            part, whole = ([of.differences()[of.seeds.index(seed)] for seed in common] for of in (parts, wholes))
            share = share_of_gain(part, whole)
            rows.append(
                _named(study, Side(cell=cell, arm=arm))
                | {"gain": two_level_bootstrap(part), "of the gain of": bound, "which is": two_level_bootstrap(whole)}
                | {"seeds": len(common)}
                | {"share": Level(value=share.value, low=share.low, high=share.high, count=share.count)}
                | {"missing": _said(study, parts.missing | wholes.missing)}
            )
    return rows


def by_operations(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """The same differences within groups of problems by length, behind the factor by which pass@1 changes."""
    rows: list[Row] = []
    for side, reference in sides(study, cells):
        if side == reference:
            continue
        pairs = pair(study, results, side, reference)
        parts: Row = {}
        for fewest, most in OPERATIONS:
            name = f"{fewest}–{most} operations"
            parts[name] = two_level_bootstrap(pairs.differences(fewest, most))
            parts[f"{name}: factor"] = pairs.factor(fewest, most)
        rows.append(
            _named(study, side)
            | {"against": named_reference(side, reference), "pairs": len(pairs.seeds)}
            | parts
            | {"missing": missing(study, pairs)}
        )
    return rows


def by_length(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """The same differences within quarters of each seed's problems by the tokens that the reference writes for them.

    Grouped by the reference's lengths, not by each arm's own: an arm that writes longer would move its problems.
    """
    rows: list[Row] = []
    for side, reference in sides(study, cells):
        pairs = pair(study, results, side, reference)
        if side == reference:
            continue
        parts: list[list[Any]] = [[] for _ in QUARTERS]
        tokens: list[list[float]] = [[] for _ in QUARTERS]
        for seed, difference_P in zip(pairs.seeds, pairs.differences(), strict=True):
            tokens_P = results[reference.cell, seed].lengths(reference.arm)[0].mean(axis=1)
            for number, quarter in enumerate(np.array_split(np.argsort(tokens_P, kind="stable"), len(QUARTERS))):
                parts[number].append(difference_P[quarter])
                tokens[number].append(float(tokens_P[quarter].mean()))
        rows.append(
            _named(study, side)
            | {"against": named_reference(side, reference), "pairs": len(pairs.seeds)}
            | {
                name if value == "difference" else f"{name}: tokens": found
                for number, name in enumerate(QUARTERS)
                for value, found in (
                    ("tokens", f"{statistics.fmean(tokens[number]):.0f}" if pairs.seeds else "–"),
                    ("difference", two_level_bootstrap(parts[number])),
                )
            }
            | {"missing": missing(study, pairs)}
        )
    return rows


def steps(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """PPO steps to the first reference's final pass@1, by linear interpolation between checkpoints; SFT is step 0."""
    rows: list[Row] = []
    for cell in cells:
        for arm in study.cells[cell].curve_arms:
            side, reference = Side(cell=cell, arm=arm), _first_reference(study, cell, arm)
            pairs = pair(study, results, side, reference)
            found, whole = [], []
            for seed, baseline_P in zip(pairs.seeds, pairs.second, strict=True):
                points = curve(results, cell, seed, arm)
                if points is None:
                    pairs.missing[seed] = (cell, "checkpoints not evaluated")
                    continue
                found.append(steps_to_reach(points, float(baseline_P.mean())))
                whole.append(points[-1][0])
            # A seed that never gets there counts as later than any step, so the middle is still defined.
            middle = statistics.median(found) if found else NAN
            share = middle / statistics.fmean(whole) if whole else NAN
            rows.append(
                _named(study, side)
                | {"to that of": named_reference(side, reference)}
                | {"pairs": len(found), "reached": sum(map(math.isfinite, found)), "steps, median": _steps(middle)}
                | {"share of the steps": "never" if math.isinf(share) else share}
                | {"steps of each seed": " ".join(map(_steps, found)), "missing": missing(study, pairs)}
            )
    return rows


def equal_cost(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """Arms whose reference is trained alone for longer: both at the CPU time of the reference, seed by seed.

    What an arm costs before its first step (the baseline whose responses are labelled, responses, labels, its PRM) is
    counted in steps of the seed's own baseline, measured in the same run: CPU-seconds of different runs differ with
    what else the machine does. A step of any arm counts the same.
    """
    rows: list[Row] = []
    for cell in cells:
        for arm in study.cells[cell].curve_arms:
            side, reference = Side(cell=cell, arm=arm), _first_reference(study, cell, arm)
            if reference.cell == cell or reference.arm not in study.cells[reference.cell].curve_arms or arm == BASELINE:
                continue
            pairs = pair(study, results, side, reference)
            for seed in pairs.seeds:
                ours, theirs = (curve(results, of.cell, seed, of.arm) for of in (side, reference))
                if ours is None or theirs is None:
                    pairs.missing[seed] = (cell, "checkpoints not evaluated")
                    continue
                price = _price(study, results, side, seed)
                left = max(0.0, theirs[-1][0] - price)
                rows.append(
                    {**_named(study, side), "against": named_reference(side, reference), "seed": seed}
                    | {"price in steps": round(price), "steps left": round(left)}
                    | {"pass@1 then": float(np.interp(left, *zip(*ours, strict=True)))}
                    | {"the reference's": theirs[-1][1], "steps to it": _steps(steps_to_reach(ours, theirs[-1][1]))}
                    | {"missing": ""}
                )
            if pairs.missing and rows:
                rows[-1] = dict(rows[-1]) | {"missing": missing(study, pairs)}
    return rows


def _first_reference(study: Study, cell: str, arm: str) -> Side:
    other, name = study.references(cell, arm)[0]
    return Side(cell=other, arm=name)


def _price(study: Study, results: Results, side: Side, seed: int) -> float:
    """CPU time before an arm's first step, in steps of the baseline that its labels come from."""
    data = results[side.cell, seed].data
    prm = study.recipe(side.cell, seed).arms[side.arm].prm
    names = [name for name in data["stages"] if name in (f"rl-{BASELINE}", "responses", f"prm-{prm}")]
    names += [name for name in data["stages"] if name.startswith(STAGES["labels"])]
    baseline = data["stages"][f"rl-{BASELINE}"]["cpu_seconds"] / len(data["training"][BASELINE]["step"])
    return float(sum(data["stages"][name]["cpu_seconds"] for name in names) / baseline)


def prms(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """PRMs against exact labels of held-out problems; mean over seeds and 95 % t interval of the AUROC."""
    rows: list[Row] = []
    for cell in cells:
        for name, settings in study.recipe(cell, study.seeds(cell)[0]).prm.items():
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
                {"cell": study.cells[cell].title, "PRM": name, "learns": f"{settings.target}, {settings.labels}"}
                | {"against": "exact" if truth == "exact" else "its own labels", "seeds": len(seeds)}
                | {"AUROC": auroc, "position": _average(known, "position")}
                | {key: _average(known, key) for key in ("accuracy", "majority", "f1", "ece")}
                | {"first error": _average([of["first_error"] or {} for of in known], "exact")}
                | {"missing": _said(study, lack)}
            )
    return rows


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
            | {"missing": _said(study, lack)}
        )
    return rows


def costs(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """CPU-seconds of a seed by kind of stage; those taken over from other cells are counted apart."""
    rows: list[Row] = []
    for cell in cells:
        found = [results[cell, seed].data["stages"] for seed in study.seeds(cell) if (cell, seed) in results]
        if not found:
            continue
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


def missing(study: Study, pairs: Pairs) -> str:
    """Seeds that could not be paired, why, and the command that makes them; empty when there are none."""
    return _said(study, pairs.missing)


def _said(study: Study, lack: dict[int, tuple[str, str]]) -> str:
    groups: dict[tuple[str, str], list[int]] = {}
    for seed, reason in lack.items():
        groups.setdefault(reason, []).append(seed)
    said = []
    for (cell, why), seeds in groups.items():
        command = study.command_anew(cell, seeds) if why in STANDS_IN_THE_WAY else study.command(cell, seeds)
        said.append(f"missing seeds {' '.join(map(str, seeds))}: {why} (run: `{command}`)")
    return "; ".join(said)


def _named(study: Study, side: Side) -> dict[str, Any]:
    return {"cell": study.cells[side.cell].title, "arm": side.arm}


def named_reference(side: Side, reference: Side) -> str:
    return reference.arm if side.cell == reference.cell else f"{reference.cell}/{reference.arm}"


def _mean(alone: Pairs) -> float:
    return statistics.fmean(float(rate_P.mean()) for rate_P in alone.first) if alone.first else NAN


def _cpu(stages: Mapping[str, Any], kind: str | None = None) -> float:
    """CPU-seconds of the stages of a kind, or of all."""
    return sum(of["cpu_seconds"] for name, of in stages.items() if kind is None or name.startswith(STAGES[kind]))


def _average(found: Sequence[Any], key: str) -> float:
    values = [float(of[key]) for of in found if of.get(key) is not None]
    return statistics.fmean(values) if values else NAN


def _round(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _steps(value: float) -> str:
    return "never" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.0f}"


def _pass_at(passes: Sequence[int], samples: int) -> list[float]:
    return [statistics.fmean(pass_at_k(samples, c, k) for c in passes) for k in range(1, samples + 1)]
