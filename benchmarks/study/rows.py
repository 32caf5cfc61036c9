"""The rows of the tables of arms: each against its references, paired by seed and problem, from results alone."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from psgpo.evaluation.metrics import NAN
from study.cells import BASELINE, Study
from study.compare import Array, Pairs, Side, over_seeds, pair, present, share_of_gain, two_level_bootstrap
from study.naming import missing, named, named_reference, said
from study.results import Result, Results
from study.tables import Level, Row

OPERATIONS = ((1, 2), (3, 4), (5, 6), (7, 8))
"""Groups of problems by length, in operations."""
MANY = 8
"""How many samples the tables' pass@k is about, beside pass@1."""
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
            named(study, side)
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


def by_seed(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """pass@1 of every policy on every seed of the group: what all means and intervals are made of."""
    seeds = sorted({seed for cell in cells for seed in study.seeds(cell)})
    rows: list[Row] = []
    for cell in cells:
        for arm in dict.fromkeys(("sft", BASELINE, *study.arms(cell))):
            side = Side(cell=cell, arm=arm)
            alone = present(study, results, side)
            levels = dict(zip(alone.seeds, alone.first, strict=True))
            rows.append(
                named(study, side)
                | {f"seed {seed}": float(levels[seed].mean()) if seed in levels else NAN for seed in seeds}
                | {"missing": missing(study, alone)}
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
            named(study, side)
            | {"against": named_reference(side, reference), "pairs": len(kept)}
            | {"difference, bootstrap": two_level_bootstrap(kept), "difference, t over seeds": over_seeds(kept)}
            | {"missing": said(study, lack)}
        )
    return rows


def decoding(study: Study, results: Results, cells: Sequence[str]) -> list[Row]:
    """Whether a gain at temperature 1 is there under greedy decoding too, and among several samples."""
    rows: list[Row] = []
    for side, reference in sides(study, cells):
        pairs = pair(study, results, side, reference)
        row = named(study, side) | {"against": named_reference(side, reference), "pairs": len(pairs.seeds)}
        for name, rates in (("greedy", Result.greedy), (f"pass@{MANY}", functools.partial(Result.pass_at, k=MANY))):
            ours, theirs = ([rates(results[of.cell, seed], of.arm) for seed in pairs.seeds] for of in (side, reference))
            row[name] = statistics.fmean(float(rate_P.mean()) for rate_P in ours) if ours else NAN
            differences = [a - b for a, b in zip(ours, theirs, strict=True)]
            alone = side == reference
            row[f"{name}: difference"] = "–" if alone else two_level_bootstrap(differences)
            row[f"{name}: difference, t over seeds"] = "–" if alone else over_seeds(differences)
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
                named(study, Side(cell=cell, arm=arm))
                | {"gain": two_level_bootstrap(part), "of the gain of": bound, "which is": two_level_bootstrap(whole)}
                | {"seeds": len(common)}
                | {"share": Level(value=share.value, low=share.low, high=share.high, count=share.count)}
                | {"missing": said(study, parts.missing | wholes.missing)}
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
            named(study, side)
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
        found = quarters(results, pairs, reference) or [(NAN, [])] * len(QUARTERS)
        rows.append(
            named(study, side)
            | {"against": named_reference(side, reference), "pairs": len(pairs.seeds)}
            | {
                name if value == "difference" else f"{name}: tokens": shown
                for name, (tokens, difference_SP) in zip(QUARTERS, found, strict=True)
                for value, shown in (
                    ("tokens", f"{tokens:.0f}" if pairs.seeds else "–"),
                    ("difference", two_level_bootstrap(difference_SP)),
                )
            }
            | {"missing": missing(study, pairs)}
        )
    return rows


def quarters(results: Results, pairs: Pairs, reference: Side) -> list[tuple[float, list[Array]]]:
    """Mean tokens, and per seed the differences, of quarters of each seed's problems by the tokens that the reference
    writes for them, the shortest first; nothing without seeds."""
    parts: list[list[Array]] = [[] for _ in QUARTERS]
    tokens: list[list[float]] = [[] for _ in QUARTERS]
    for seed, difference_P in zip(pairs.seeds, pairs.differences(), strict=True):
        tokens_P = results[reference.cell, seed].lengths(reference.arm)[0].mean(axis=1)
        for number, quarter in enumerate(np.array_split(np.argsort(tokens_P, kind="stable"), len(QUARTERS))):
            parts[number].append(difference_P[quarter])
            tokens[number].append(float(tokens_P[quarter].mean()))
    return [(statistics.fmean(of), part) for of, part in zip(tokens, parts, strict=True)] if pairs.seeds else []


def _mean(alone: Pairs) -> float:
    return statistics.fmean(float(rate_P.mean()) for rate_P in alone.first) if alone.first else NAN
