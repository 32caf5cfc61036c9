"""How fast an arm learns: PPO steps to its reference's last pass@1, and both at the same CPU time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from psgpo.evaluation.metrics import NAN
from study.cells import BASELINE, Study
from study.compare import Side, curve, pair, steps_to_reach
from study.measures import label_seconds
from study.naming import missing, named, named_reference
from study.results import Results
from study.tables import Row

EQUAL_COST = ("seed", "price in steps", "steps left", "pass@1 then", "the reference's", "steps to it")
"""Columns of a seed at equal cost."""


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
                named(study, side)
                | {"to that of": named_reference(side, reference)}
                | {"pairs": len(found), "reached": sum(map(math.isfinite, found)), "steps, median": _steps(middle)}
                | {"share of the steps": "never" if math.isinf(share) else share}
                | {"steps of each seed": " ".join(map(_steps, found)), "missing": missing(study, pairs)}
            )
    return rows


def equal_cost(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """Arms whose reference is trained alone for longer: both at the CPU time of the reference, seed by seed.

    What an arm costs before its first step (the baseline whose responses are labelled, responses, labels, its PRM) is
    counted in steps of the seed's own baseline, each stage as it was measured when it ran: CPU-seconds of
    runs that were made apart differ with what else the machine did. A step of any arm counts the same.
    """
    rows: list[Row] = []
    for cell in cells:
        for arm in study.cells[cell].curve_arms:
            side, reference = Side(cell=cell, arm=arm), _first_reference(study, cell, arm)
            if reference.cell == cell or reference.arm not in study.cells[reference.cell].curve_arms or arm == BASELINE:
                continue
            pairs = pair(study, results, side, reference)
            names = named(study, side) | {"against": named_reference(side, reference)}
            found: list[Row] = []
            for seed in pairs.seeds:
                ours, theirs = (curve(results, of.cell, seed, of.arm) for of in (side, reference))
                if ours is None or theirs is None:
                    pairs.missing[seed] = (cell, "checkpoints not evaluated")
                    continue
                price = _price(study, results, side, seed)
                left = max(0.0, theirs[-1][0] - price)
                found.append(
                    {**names, "seed": seed, "price in steps": round(price), "steps left": round(left)}
                    | {"pass@1 then": float(np.interp(left, *zip(*ours, strict=True)))}
                    | {"the reference's": theirs[-1][1], "steps to it": _steps(steps_to_reach(ours, theirs[-1][1]))}
                    | {"missing": ""}
                )
            if pairs.missing:
                nothing = dict.fromkeys(EQUAL_COST, "–")
                found.append({**names, **nothing, "missing": missing(study, pairs)})
            rows += found
    return rows


def _first_reference(study: Study, cell: str, arm: str) -> Side:
    other, name = study.references(cell, arm)[0]
    return Side(cell=other, arm=name)


def _price(study: Study, results: Results, side: Side, seed: int) -> float:
    """CPU time before an arm's first step, in steps of the baseline that its labels come from."""
    data = results[side.cell, seed].data
    prm = study.recipe(side.cell, seed).arms[side.arm].prm
    names = [name for name in data["stages"] if name in (f"rl-{BASELINE}", "responses", f"prm-{prm}")]
    baseline = data["stages"][f"rl-{BASELINE}"]["cpu_seconds"] / len(data["training"][BASELINE]["step"])
    others = sum(data["stages"][name]["cpu_seconds"] for name in names)
    return float((label_seconds(data["stages"], data["labels"]) + others) / baseline)


def _steps(value: float) -> str:
    return "never" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.0f}"
