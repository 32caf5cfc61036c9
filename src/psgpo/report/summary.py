"""`summary.json`: the numbers of a report for programs. NaN is null. Documented in docs/report.md.

    {"schema": 1, "command": what makes this report,
     "recipe": the recipe's name, "seeds": [0, ...],
     "pass_at_1": {policy: {"mean", "low", "high", "n_problems", "per_seed"}},    "sft" is one of the policies
     "difference_to_baseline": {policy: the same keys},                         paired, same problems
     "best_of_k": {policy: [{"k", "mean", "low", "high"}]},                      pass@k for k = 1, 2, ...
     "labels": {"cost": {...}, "quality": {...}} or null,                         as in labels/summary.json
     "prm": {name: {"search": {...}, "exact": {...}}},                            as in prm/<name>/measure.json
     "seconds_per_stage": {stage: seconds},                                     of what this run computed itself
     "taken_from": {stage: run},                                                what another run computed (--reuse)
     "problems": {"kind", "test", "surviving_mutants"}}

Where there are several test sets, or some problems were trained on, the two tables above are of the part that "part"
names: the first set without what was trained on. Every part is in

     "tests": [{"part": {"test", "which": "all" or "clean", "problems", "trained_on"}, "pass_at_1": {...},
                "difference_to_baseline": {...}, "pass_at_k": {policy: {k: mean over seeds}}}]

With several seeds `labels`, `prm`, `seconds_per_stage` and `taken_from` are lists over seeds, in the order of "seeds".
A policy that some run has not evaluated has null in both tables.

Several recipes side by side:

    {"schema": 1, "command": ...,
     "runs": [{"label": the name on the page, "runs": [paths], ... all of the above}],
     "settings": {key: {label: value}},                                            those that differ
     "comparisons": [{"run": label, "reference": label, "seeds": [in both], "difference": {policy: estimate or null}}],
     "apart": {label: why it is compared with none of the groups before it}}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from psgpo.jsonl import finite
from psgpo.report.aggregate import BASELINE, Experiment, SeedEstimate, difference, pass_at_1, pass_at_k, shown_k
from psgpo.report.groups import Group, between, comparisons, pairs, settings_that_differ

SCHEMA = 1


def summarise(groups: Sequence[Group], command: str) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        command: what makes the report.
    """
    head = {"schema": SCHEMA, "command": command}
    found = head | (_group(groups[0].data) if len(groups) == 1 else _side_by_side(groups))
    ready: dict[str, Any] = finite(found)
    return ready


def _side_by_side(groups: Sequence[Group]) -> dict[str, Any]:
    labels = [group.label for group in groups]
    together = comparisons(groups)
    return {
        "runs": [
            {"label": group.label, "runs": [str(run.path) for run in group.data.runs]} | _group(group.data)
            for group in groups
        ],
        "settings": {key: dict(zip(labels, values, strict=True)) for key, values in settings_that_differ(groups)},
        "comparisons": [_compared(each.reference, group) for each in together for group in each.groups[1:]],
        "apart": {each.reference.label: each.apart.why for each in together if each.apart is not None},
    }


def _compared(reference: Group, group: Group) -> dict[str, Any]:
    return {
        "run": group.label,
        "reference": reference.label,
        "seeds": [run.recipe.seed for run, _ in pairs(reference, group)],
        "difference": {
            policy: _plain(between(reference, group, policy))
            for policy in group.data.policies
            if policy in reference.data.policies
        },
    }


def _group(data: Experiment) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "recipe": data.first.recipe.name,
        "seeds": [run.recipe.seed for run in data.runs],
        **_rates(data),
        "best_of_k": {policy: _curve(data, policy) for policy in data.policies},
        "labels": [run.label_summary for run in data.runs],
        "prm": [{name: prm.measure for name, prm in run.prm.items()} for run in data.runs],
        "seconds_per_stage": [
            {name: stage.seconds for name, stage in run.stages.items() if not stage.taken_from} for run in data.runs
        ],
        "taken_from": [
            {name: stage.taken_from for name, stage in run.stages.items() if stage.taken_from} for run in data.runs
        ],
        "problems": _problems(data),
    }
    if len(data.runs) == 1:
        summary |= {key: summary[key][0] for key in ("labels", "prm", "seconds_per_stage", "taken_from")}
    if data.parts:
        summary["part"] = _part(data)
        summary["tests"] = [{"part": _part(part), **_rates(part), "pass_at_k": _at_k(part)} for part in data.parts]
    return summary


def _curve(data: Experiment, policy: str) -> list[dict[str, Any]]:
    found = [(k, pass_at_k(data, policy, k)) for k in range(1, data.first.recipe.evaluation.samples + 1)]
    return [{"k": k, "mean": e.mean, "low": e.low, "high": e.high} for k, e in found if e is not None]


def _rates(data: Experiment) -> dict[str, Any]:
    return {
        "pass_at_1": {policy: _plain(pass_at_1(data, policy)) for policy in data.policies},
        "difference_to_baseline": {p: _plain(difference(data, p)) for p in data.policies if p != BASELINE},
    }


def _part(data: Experiment) -> dict[str, Any]:
    assert data.part is not None
    return dataclasses.asdict(data.part)


def _at_k(data: Experiment) -> dict[str, dict[int, float | None]]:
    found = {policy: {k: pass_at_k(data, policy, k) for k in shown_k(data)} for policy in data.policies}
    return {policy: {k: None if e is None else e.mean for k, e in row.items()} for policy, row in found.items()}


def _plain(estimate: SeedEstimate | None) -> dict[str, Any] | None:
    return None if estimate is None else dataclasses.asdict(estimate)


def _problems(data: Experiment) -> dict[str, Any]:
    counts = [len(e.outcomes()) for run in data.runs for e in run.evaluations.values()]
    strength = data.first.strength or {}
    return {
        "kind": data.first.recipe.problems.kind,
        "test": counts[0] if counts else None,
        "surviving_mutants": strength.get("rate"),
    }
