"""The report's tables as plain cells, from numbers; no HTML. Pure.

A value that is not there is a `Cell` of kind "missing", never a zero and never left out of a mean in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from psgpo.report.aggregate import (
    BASELINE,
    Bins,
    Estimate,
    Experiment,
    difference,
    pass_at_1,
    pass_at_k,
    shown_k,
)
from psgpo.report.load import number

ORACLE_NOTE = "exact oracle (upper bound, not the method)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One table cell."""

    text: str
    note: str = ""
    """Second line, smaller: an interval, a spread."""
    kind: str = ""
    """Empty, or missing, up, down (an interval that excludes zero), head, quiet."""
    series: str = ""
    """Policy whose colour stands beside the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column's heading."""

    title: str
    help: str = ""
    """One line under the title."""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table ready to be rendered."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


MISSING = Cell(text="—", kind="missing")


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return "—" if math.isnan(value) else f"{100 * value:.{digits}f} %"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed, with a real minus."""
    return "—" if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def plain(value: float, digits: int = 1) -> str:
    """A number with a real minus and thin thousands."""
    return "—" if math.isnan(value) else f"{value:,.{digits}f}".replace("-", "−").replace(",", "\u202f")


def cell(value: float, show: Callable[[float], str] = plain, note: str = "") -> Cell:
    """A number, or a missing cell for NaN."""
    return MISSING if math.isnan(value) else Cell(text=show(value), note=note)


def describe_arm(data: Experiment, policy: str) -> str:
    """What a policy is, from its recipe settings, in a few words."""
    if policy == "sft":
        return "supervised fine-tuning, where every arm starts"
    settings = data.first.recipe.arms[policy]
    reward = {
        "none": "",
        "sum": f"λ{'/T' if settings.length_norm else ''} · line score",
        "progress": "λ · progress of the line score",
        "difference": "λ · difference of line scores",
        "redistribute": "−λ where the line score falls",
        "min-form": "λ · least line score",
        "first-error": f"±λ{'/T' if settings.length_norm else ''} up to the first error",
        "program": "λ · score of the whole program",
    }[settings.line_reward]
    tests = {0.0: "", 1.0: "unit tests"}.get(settings.unit_test_reward, f"{settings.unit_test_reward:g} · unit tests")
    partial = f"{settings.partial_credit:g} · share of tests passed" if settings.partial_credit else ""
    terms = [term for term in (tests, partial, reward) if term]
    parts = [" + ".join(terms) if terms != [tests] else f"{tests} only"]
    if settings.prm is not None:
        same = settings.lambda_fail == settings.lambda_pass
        lambdas = f"λ\u00a0{settings.lambda_fail:g}" + ("" if same else f"\u00a0/\u00a0{settings.lambda_pass:g}")
        parts.append("exact labels" if settings.prm == "oracle" else f"{_kind_of(data, settings.prm)} “{settings.prm}”")
        parts.append(lambdas)
    if settings.value_init is not None:
        parts.append(f"critic from PRM “{settings.value_init}”")
    if settings.prm is not None and not settings.neutral_lines:
        parts.append("comments rewarded")
    return ", ".join(parts)


def _kind_of(data: Experiment, prm: str) -> str:
    return "PRM" if data.first.recipe.prm[prm].scope == "line" else "ORM"


def part_table(data: Experiment) -> Table:
    """Policies × pass@1, difference to the baseline and pass@k, on one part of a test set."""
    ks = shown_k(data)
    columns = (
        Column(title="Policy", numeric=False),
        Column(title="pass@1", help="95 % interval" if len(data.runs) == 1 else "lowest to highest seed"),
        Column(title="− baseline", help="points, paired"),
        *(Column(title=f"pass@{k}") for k in ks),
    )
    rows = []
    for policy in data.policies:
        found = pass_at_1(data, policy)
        against = Cell(text="reference", kind="quiet") if policy == BASELINE else signed_cell(difference(data, policy))
        share = _seeds_cell(found) if len(data.runs) > 1 else _share_cell(found)
        head = Cell(text=policy, kind="head", series=policy)
        rows.append((head, share, against, *(cell(pass_at_k(data, policy, k), percent) for k in ks)))
    return Table(columns=columns, rows=tuple(rows))


def main_table(data: Experiment) -> Table:
    """Policies × pass@1, difference to the baseline, pass@K, greedy, and what the responses look like."""
    k = data.first.recipe.evaluation.samples
    columns = (
        Column(title="Policy", numeric=False),
        Column(title="pass@1", help="95 % interval" if len(data.runs) == 1 else "lowest to highest seed"),
        Column(title="− baseline", help="points, paired" if len(data.runs) == 1 else "points, 95 % interval"),
        Column(title=f"pass@{k}"),
        Column(title="Greedy", help="pass rate"),
        Column(title="Tokens", help="per response"),
        Column(title="Lines", help="per response"),
        Column(title="Comments", help="share of lines"),
    )
    rows = tuple(_main_row(data, policy, k) for policy in data.policies)
    return Table(columns=columns, rows=rows)


def _main_row(data: Experiment, policy: str, k: int) -> tuple[Cell, ...]:
    note = describe_arm(data, policy)
    if data.is_oracle(policy):
        note = f"{ORACLE_NOTE}: {note}"
    head = Cell(text=policy, note=note, kind="head", series=policy)
    runs = data.with_evaluation(policy)
    if not runs:
        return (head, *[MISSING] * 7)
    against = Cell(text="reference", kind="quiet") if policy == BASELINE else signed_cell(difference(data, policy))
    summaries = [run.evaluations[policy].summary for run in runs]
    at_k = [next((number(e["value"]) for e in s["pass_at_k"] if e["k"] == k), math.nan) for s in summaries]
    return (
        head,
        _seeds_cell(pass_at_1(data, policy)) if len(runs) > 1 else _share_cell(pass_at_1(data, policy)),
        against,
        cell(mean(at_k), percent),
        cell(mean([_value(s["greedy"]) for s in summaries]), percent),
        cell(mean([_value(s["mean_tokens"]) for s in summaries])),
        cell(mean([_value(s["mean_lines"]) for s in summaries])),
        cell(mean([_value(s["comment_ratio"]) for s in summaries]), percent),
    )


def group_table(data: Experiment, bins: Bins, title: str) -> Table | None:
    """pass@1 of every policy within groups of problems."""
    found = {policy: [pass_at_1(data, policy, keep) for _, keep in bins] for policy in data.policies}
    if not any(e for row in found.values() for e in row):
        return None
    sizes = [max((e.n_problems for e in column if e), default=0) for column in zip(*found.values(), strict=True)]
    names = [f"{label} {title}" for label, _ in bins]
    columns = (
        Column(title="pass@1", numeric=False),
        *(Column(title=name, help=f"{size} problems") for name, size in zip(names, sizes, strict=True)),
    )
    rows = [(Cell(text=p, kind="head", series=p), *(_share_cell(e) for e in row)) for p, row in found.items()]
    return Table(columns=columns, rows=tuple(rows))


def seed_table(data: Experiment) -> Table:
    """pass@1 of every policy in every seed, with the spread."""
    columns = (
        Column(title="Policy", numeric=False),
        *(Column(title=f"Seed {run.recipe.seed}", help="pass@1, − baseline") for run in data.runs),
        Column(title="Spread", help="standard deviation, points"),
    )
    rows = []
    for policy in data.policies:
        cells = [Cell(text=policy, kind="head", series=policy)]
        values: list[float] = []
        for run in data.runs:
            alone = Experiment(runs=(run,))
            own, against = pass_at_1(alone, policy), difference(alone, policy)
            if own is None:
                cells.append(MISSING)
                continue
            values.append(own.mean)
            note = "" if policy == BASELINE or against is None else f"{points(against.mean)}"
            cells.append(Cell(text=percent(own.mean), note=note))
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        rows.append((*cells, cell(100 * spread)))
    return Table(columns=columns, rows=tuple(rows))


def _seeds_cell(found: Estimate | None) -> Cell:
    """A share over seeds: Student's t is of little use for a bounded value of two or three seeds, so the range."""
    if found is None:
        return MISSING
    low, high = min(found.per_seed), max(found.per_seed)
    return Cell(text=percent(found.mean), note=f"{percent_bare(low)} to {percent_bare(high)}")


def _share_cell(found: Estimate | None) -> Cell:
    return MISSING if found is None else Cell(text=percent(found.mean), note=_between(found, percent_bare))


def signed_cell(found: Estimate | None) -> Cell:
    """A difference of shares in points, marked when its interval excludes zero."""
    if found is None:
        return MISSING
    kind = {1: "up", 0: "", -1: "down"}[found.sign]
    return Cell(text=points(found.mean), note=_between(found, points), kind=kind)


def _between(found: Estimate, show: Callable[[float], str]) -> str:
    if math.isnan(found.low) or found.low == found.high:  # one seed of several, or no problem differs from another
        return ""
    return f"{show(found.low)} to {show(found.high)}"


def percent_bare(value: float) -> str:
    """A share in percent without the sign, for intervals."""
    return plain(100 * value)


def mean(values: Sequence[float]) -> float:
    """Mean over seeds; NaN when one is undefined: a missing seed is not averaged away."""
    return float(np.mean(values)) if values else math.nan


def _value(found: Mapping[str, Any] | None) -> float:
    return math.nan if found is None else number(found["value"])
