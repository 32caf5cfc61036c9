"""Which runs belong together, in what the others differ, and who can be compared with whom. Pure.

Runs whose recipes agree in everything but seed and place are one *group*: seeds of one experiment, averaged. Runs with
any other setting are groups of their own and stand side by side. Two groups are compared seed by seed, and only where
the runs of a seed were evaluated on the same test problems, word for word and test for test.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psgpo.config import HOW_KEYS, Recipe, without_keys
from psgpo.errors import UserError
from psgpo.evaluation.sets import Part, parts_of
from psgpo.report.aggregate import Experiment, SeedEstimate, paired
from psgpo.report.load import Run

FREE_KEYS = HOW_KEYS | {"name", "seed", "device"}
"""Recipe keys in which seeds of one experiment may differ."""
ABSENT = "—"


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Seeds of one recipe, under the name they have in the report."""

    label: str
    data: Experiment

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.recipe.seed for run in self.data.runs)


def groups_of(runs: Sequence[Run]) -> tuple[Group, ...]:
    """Runs by recipe, in the order in which they are given.

    Raises:
        UserError: no runs, or one recipe with the same seed twice.
    """
    if not runs:
        raise UserError("no run directory given: name at least one, e.g. `psgpo report runs/demo`")
    members: list[list[Run]] = []
    for run in runs:
        home = next((group for group in members if _settings(group[0].recipe) == _settings(run.recipe)), None)
        if home is None:
            members.append([run])
        else:
            home.append(run)
    return tuple(
        Group(label=label, data=experiment(group)) for label, group in zip(_labels(members), members, strict=True)
    )


def experiment(runs: Sequence[Run]) -> Experiment:
    """Seeds of one recipe, in the order of their seeds, on the first test set without what was trained on.

    Raises:
        UserError: the same seed twice.
    """
    ordered = sorted(runs, key=lambda run: run.recipe.seed)
    for before, after in itertools.pairwise(ordered):
        if before.recipe.seed == after.recipe.seed:
            raise UserError(
                f"{after.path}: seed {after.recipe.seed} is already there from {before.path}, with the same settings; "
                "give each once"
            )
    # A run that has not made its problems yet has no test sets: what it lacks is missing, not on all of them.
    tests = next((run.tests for run in ordered if run.tests), {})
    parts = tuple(Experiment(runs=tuple(_cut(run, part) for run in ordered), part=part) for part in parts_of(tests))
    return dataclasses.replace(parts[0], parts=parts) if parts else Experiment(runs=tuple(ordered))


def _cut(run: Run, part: Part) -> Run:
    """The run as if it had been evaluated on these problems alone; not at all while it has no test sets."""
    if part.test not in run.tests:
        return dataclasses.replace(run, evaluations={})
    ids = run.tests[part.test].part(part.which)
    return dataclasses.replace(
        run,
        evaluations={
            name: dataclasses.replace(
                evaluation,
                summary=evaluation.summary["tests"][part.test][part.which],
                samples=tuple(sample for sample in evaluation.samples if sample.problem_id in ids),
            )
            for name, evaluation in run.evaluations.items()
        },
    )


def _settings(recipe: Recipe) -> dict[str, Any]:
    return without_keys(recipe.model_dump(mode="json"), FREE_KEYS)


def _labels(members: Sequence[Sequence[Run]]) -> list[str]:
    """The recipes' names where they tell the groups apart, else the folders' names, else their paths."""
    names = [group[0].recipe.name for group in members]
    folders = [group[0].path.resolve().name for group in members]
    paths = [str(group[0].path) for group in members]
    return next((found for found in (names, folders) if len(set(found)) == len(found)), paths)


def flatten(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A recipe as `key.path`, value pairs, as `--set` takes them."""
    pairs: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        elif value is not None:
            shown = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
            pairs.append((f"{prefix}{key}", shown or str(value)))
    return pairs


def settings_that_differ(groups: Sequence[Group]) -> list[tuple[str, tuple[str, ...]]]:
    """Every setting in which the groups differ, with its value in each; an arm or PRM that one lacks is one row."""
    tables = [_settings(group.data.first.recipe) for group in groups]
    rows: list[tuple[str, tuple[str, ...]]] = []
    for kind in ("arms", "prm"):
        for name in dict.fromkeys(name for table in tables for name in table[kind]):
            if any(name not in table[kind] for table in tables):
                there = tuple("there" if table[kind].pop(name, None) is not None else ABSENT for table in tables)
                rows.append((f"{kind}.{name}", there))
    flat = [dict(flatten(table)) for table in tables]
    for key in dict.fromkeys(key for table in flat for key in table):
        values = tuple(table.get(key, ABSENT) for table in flat)
        if len(set(values)) > 1:
            rows.append((key, values))
    return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """Why a group cannot be compared with the first one given."""

    why: str
    run: Run
    """A run of the group."""
    seeds: tuple[int, ...] = ()
    """Where no seed is in common: those that would make it comparable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Groups that can be compared: each shares a seed and its test problems with the first."""

    groups: tuple[Group, ...]
    apart: Apart | None = None
    """Why the first of them is compared with none of the groups before it."""

    @property
    def reference(self) -> Group:
        return self.groups[0]


def comparisons(groups: Sequence[Group]) -> tuple[Comparison, ...]:
    """The groups, each beside the first given one that it can be compared with."""
    found: list[Comparison] = []
    for group in groups:
        home = next((i for i, each in enumerate(found) if pairs(each.reference, group)), None)
        if home is None:
            found.append(Comparison(groups=(group,), apart=_why_not(found[0].reference, group) if found else None))
        else:
            found[home] = dataclasses.replace(found[home], groups=(*found[home].groups, group))
    return tuple(found)


def pairs(reference: Group, group: Group) -> tuple[tuple[Run, Run], ...]:
    """Per seed that both have, on the same test problems: the reference's run and the group's."""
    return tuple((a, b) for a, b in _same_seed(reference, group) if _same_problems(a, b))


def between(reference: Group, group: Group, policy: str) -> SeedEstimate | None:
    """pass@1 of a policy in `group` minus that in `reference`, paired by seed and problem.

    None where the two have not evaluated it in every seed that both have: a missing one is not averaged away.
    """
    both = pairs(reference, group)
    if not both or any(policy not in run.evaluations for pair in both for run in pair):
        return None
    return paired([(b, policy) for _, b in both], [(a, policy) for a, _ in both])


def _same_seed(reference: Group, group: Group) -> Iterator[tuple[Run, Run]]:
    others = {run.recipe.seed: run for run in group.data.runs}
    return ((run, others[run.recipe.seed]) for run in reference.data.runs if run.recipe.seed in others)


def _same_problems(a: Run, b: Run) -> bool:
    return bool(a.test_problems) and a.test_problems == b.test_problems and a.tests == b.tests


def _why_not(reference: Group, group: Group) -> Apart:
    """Why two groups cannot be compared; `pairs` of them is empty."""
    common = list(_same_seed(reference, group))
    run = group.data.first
    if not common:
        ours, theirs = (", ".join(map(str, each.seeds)) for each in (group, reference))
        why = f"{group.label} has seed {ours}, {reference.label} seed {theirs}: no seed in common"
        return Apart(why=why, run=run, seeds=reference.seeds)
    unmade = [run for pair in common for run in pair if not run.test_problems]
    if unmade:
        return Apart(why=f"The test problems of {unmade[0].path} are not there yet", run=run)
    return Apart(why=f"{group.label} is evaluated on other test problems than {reference.label}", run=run)
