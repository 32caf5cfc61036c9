"""The tables of policies: pass@1, differences, groups of problems, seeds. Pure."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from psgpo.report.aggregate import (
    BASELINE,
    Bins,
    Experiment,
    SeedEstimate,
    difference,
    of_responses,
    pass_at_1,
    pass_at_k,
    shown_k,
)
from psgpo.report.cells import MISSING, Cell, Column, Show, Table, cell, estimate_cell, percent, plain, points
from psgpo.report.frames import slug

ORACLE_NOTE = "exact oracle (upper bound, not the method)"
INTERVAL = "95 % interval"


REWARD_WORDS = {
    "none": "",
    "sum": "λ/T · line score",
    "progress": "λ · progress of the line score",
    "difference": "λ · difference of line scores",
    "redistribute": "−λ where the line score falls",
    "min-form": "λ · least line score",
    "first-error": "±λ/T up to the first error",
    "program": "λ · score of the whole program",
}
"""What each form of line reward pays; without `length_norm` there is no /T."""


def describe_arm(data: Experiment, policy: str) -> str:
    """What a policy is, from its recipe settings, in a few words."""
    if policy == "sft":
        return "supervised fine-tuning, where every arm starts"
    settings = data.first.recipe.arms[policy]
    reward = REWARD_WORDS[settings.line_reward].replace("/T", "/T" if settings.length_norm else "")
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
    if settings.value_map == "head":
        parts.append("its head fitted to returns" if settings.value_init else "critic's head fitted to returns")
    if settings.prm is not None and not settings.neutral_lines:
        parts.append("comments rewarded")
    if settings.rl is not None:
        parts += [f"{key} {value}" for key, value in settings.model_dump(mode="json")["rl"].items()]
    return ", ".join(parts)


def _kind_of(data: Experiment, prm: str) -> str:
    return "PRM" if data.first.recipe.prm[prm].scope == "line" else "ORM"


def part_table(data: Experiment) -> Table:
    """Policies × pass@1, difference to the baseline and pass@k, on one part of a test set."""
    assert data.part is not None
    ks = shown_k(data)
    columns = (
        Column(title="Policy", numeric=False),
        Column(title="pass@1", help=INTERVAL),
        Column(title="− baseline", help="points, paired"),
        *(Column(title=f"pass@{k}", help=INTERVAL) for k in ks),
    )
    rows = []
    for policy in data.policies:
        head = Cell(text=policy, kind="head", series=policy)
        at_k = (shown(pass_at_k(data, policy, k), percent) for k in ks)
        rows.append((head, shown(pass_at_1(data, policy), percent), _against(data, policy), *at_k))
    caption = f"{data.part.title}. Differences are paired: the same problems for both policies."
    name = slug(f"part {data.part.test} {data.part.which}")
    return Table(name=name, caption=caption, columns=columns, rows=tuple(rows))


def main_table(data: Experiment) -> Table:
    """Policies × pass@1, difference to the baseline, pass@K, greedy, and what the responses look like."""
    k = data.first.recipe.evaluation.samples
    columns = (
        Column(title="Policy", numeric=False),
        Column(title="pass@1", help=INTERVAL),
        Column(title="− baseline", help="points, paired"),
        Column(title=f"pass@{k}"),
        Column(title="Greedy", help="pass rate"),
        Column(title="Tokens", help="per response"),
        Column(title="Lines", help="per response"),
        Column(title="Comments", help="share of lines"),
    )
    rows = tuple(_main_row(data, policy, k) for policy in data.policies)
    over = "seeds and problems" if len(data.runs) > 1 else "problems"
    caption = f"Every policy on the test problems; under each number its 95 % interval over {over}."
    return Table(name="results", caption=caption, columns=columns, rows=rows)


def _main_row(data: Experiment, policy: str, k: int) -> tuple[Cell, ...]:
    note = describe_arm(data, policy)
    if data.is_oracle(policy):
        note = f"{ORACLE_NOTE}: {note}"
    head = Cell(text=policy, note=note, kind="head", series=policy)
    if not data.with_evaluation(policy):
        return (head, *[MISSING] * 7)
    return (
        head,
        shown(pass_at_1(data, policy), percent),
        _against(data, policy),
        shown(pass_at_k(data, policy, k), percent),
        shown(of_responses(data, policy, "greedy"), percent),
        shown(of_responses(data, policy, "mean_tokens"), plain),
        shown(of_responses(data, policy, "mean_lines"), plain),
        shown(of_responses(data, policy, "comment_ratio"), percent),
    )


def _against(data: Experiment, policy: str) -> Cell:
    return Cell(text="reference", kind="quiet") if policy == BASELINE else signed_cell(difference(data, policy))


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
    rows = [(Cell(text=p, kind="head", series=p), *(shown(e, percent) for e in row)) for p, row in found.items()]
    caption = f"pass@1 of every policy by {title}, with 95 % intervals."
    return Table(name=slug(f"pass-at-1 by {title}"), caption=caption, columns=columns, rows=tuple(rows))


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
            note = "" if policy == BASELINE or against is None else points(against.mean)
            cells.append(dataclasses.replace(shown(own, percent), note=note))
        spread = float(np.std(values, ddof=1)) if len(values) == len(data.runs) > 1 else math.nan
        rows.append((*cells, cell(spread, lambda share: plain(100 * share))))
    caption = (
        "pass@1 of every policy in every seed, under it the difference to the baseline of the same seed in points."
    )
    return Table(name="seeds", caption=caption, columns=columns, rows=tuple(rows))


def shown(found: SeedEstimate | None, show: Show) -> Cell:
    """An estimate with its interval."""
    return MISSING if found is None else estimate_cell(found.mean, found.low, found.high, show)


def signed_cell(found: SeedEstimate | None) -> Cell:
    """A difference of shares in points, marked when its interval excludes zero."""
    if found is None:
        return MISSING
    kind = {1: "up", 0: "", -1: "down"}[found.sign]
    return estimate_cell(found.mean, found.low, found.high, points, kind)
