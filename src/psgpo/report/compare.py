"""Several recipes side by side: what differs in their settings, and what came of it. Pure.

Differences are between runs of the same seed on the same test problems; everything else stands apart, and says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from psgpo.report.aggregate import BASELINE, SeedEstimate, difference, pass_at_1
from psgpo.report.answer import join, named
from psgpo.report.cells import MISSING, Cell, Column, Table, percent
from psgpo.report.commands import run_command, seed_command
from psgpo.report.figures import LEARNING, forest, training_curve_of_runs
from psgpo.report.groups import Apart, Comparison, Group, between, comparisons, pairs, settings_that_differ
from psgpo.report.sections import Block, Section, untrained
from psgpo.report.style import PALETTE, Plot, Series
from psgpo.report.tables import INTERVAL, shown, signed_cell


def compare_sections(groups: Sequence[Group]) -> list[tuple[Section, dict[str, Series]]]:
    """A section for all groups that can be compared, one for each that stands apart; and how the groups are drawn."""
    found = comparisons(groups)
    sections = [_section(comparison, number) for number, comparison in enumerate(found)]
    settings = Block(title="Settings that differ", table=settings_table(groups))
    first, series = sections[0]
    return [(dataclasses.replace(first, blocks=(settings, *first.blocks)), series), *sections[1:]]


def _section(comparison: Comparison, number: int) -> tuple[Section, dict[str, Series]]:
    """`number` is that of the comparison on the page, from 0; the first one has no number in its file names."""
    groups, suffix = comparison.groups, f"-{number + 1}" if number else ""
    series = {group.label: _series(index, group.label) for index, group in enumerate(groups)}
    title = "Side by side" if not number else f"Apart: {join([group.label for group in groups])}"
    blocks: list[Block] = []
    if comparison.apart is not None:
        blocks.append(_apart(comparison.apart))
    blocks.append(Block(title="Policies", table=policy_table(groups, f"side-by-side{suffix}")))
    blocks += _missing(groups)
    plots = tuple(plot for plot in (_own(groups, series, suffix), _other(groups, series, suffix)) if plot is not None)
    if plots:
        blocks.append(Block(plots=plots))
    blocks += _curves(groups, series, suffix)
    lead = (
        "Differences between runs are of the same seed on the same test problems. A policy of the same name is "
        "another one wherever its settings differ: nothing here is averaged over runs of different recipes."
    )
    return Section(id=f"compare{suffix}", title=title, lead=lead, blocks=tuple(blocks)), series


def compared(comparison: Comparison) -> list[str]:
    """What the comparison shows, in sentences; a difference is called one only when its interval excludes zero."""
    found = []
    if comparison.apart is not None:
        found.append(f"{comparison.apart.why}: no difference is taken between them.")
    for group in comparison.groups[1:]:
        known = [(policy, e) for policy in group.data.policies if (e := between(comparison.reference, group, policy))]
        where = f"{group.label} against {comparison.reference.label}, the same problems and seeds:"
        clear = [pair for pair in known if pair[1].sign]
        if not known:
            found.append(f"{where} nothing is evaluated in both yet.")
        elif not clear:
            found.append(f"{where} no policy differs clearly.")
        else:
            found.append(f"{where} {named(clear)}.")
    return found


def settings_table(groups: Sequence[Group]) -> Table:
    """Settings × groups, only those that differ; seeds first."""
    seeds = ("seed", tuple(", ".join(map(str, group.seeds)) for group in groups))
    rows = [
        (Cell(text=key, kind="label"), *(Cell(text=value) for value in values))
        for key, values in (seeds, *settings_that_differ(groups))
    ]
    columns = (
        Column(title="Setting", numeric=False),
        *(Column(title=group.label, numeric=False) for group in groups),
    )
    caption = "Every setting in which the recipes differ, and nothing else; — is not set, or not there."
    return Table(name="settings", caption=caption, columns=columns, rows=tuple(rows))


def policy_table(groups: Sequence[Group], name: str) -> Table:
    """Policies × groups: pass@1, the difference to the run's own baseline, and to the first group's same policy."""
    reference = groups[0]
    columns = [
        Column(title="Policy", numeric=False),
        Column(title="Run", numeric=False),
        Column(title="Seeds", numeric=False),
        Column(title="pass@1", help=INTERVAL),
        Column(title="− baseline", help="of the same run"),
    ]
    if len(groups) > 1:
        columns.append(Column(title=f"− {reference.label}", help="the same policy"))
    rows = []
    for policy in dict.fromkeys(policy for group in groups for policy in group.data.policies):
        for group in groups:
            if policy not in group.data.policies:
                continue
            own = difference(group.data, policy)
            row = [
                Cell(text=policy, kind="head"),
                Cell(text=group.label, series=group.label),
                Cell(text=", ".join(map(str, group.seeds))),
                shown(pass_at_1(group.data, policy), percent),
                Cell(text="reference", kind="quiet") if policy == BASELINE else signed_cell(own),
            ]
            rows.append((*row, *([_against(reference, group, policy)] if len(groups) > 1 else [])))
    caption = "Differences in points, paired; coloured where the 95 % interval excludes zero."
    return Table(name=name, caption=caption, columns=tuple(columns), rows=tuple(rows))


def _against(reference: Group, group: Group, policy: str) -> Cell:
    if policy not in reference.data.policies:
        return Cell(text=f"not in {reference.label}", kind="quiet")
    if group is reference:
        return Cell(text="reference", kind="quiet")
    found = signed_cell(between(reference, group, policy))
    common = [a.recipe.seed for a, _ in pairs(reference, group)]
    if found is MISSING or (len(common) == len(group.seeds) == len(reference.seeds)):
        return found
    seeds = f"seed{'s' if len(common) > 1 else ''} {', '.join(map(str, common))} only"
    return dataclasses.replace(found, note=f"{found.note}; {seeds}" if found.note else seeds)


def _missing(groups: Sequence[Group]) -> list[Block]:
    """What the comparison lacks: seeds that one side has not, and evaluations."""
    blocks = []
    seeds = sorted({seed for group in groups for seed in group.seeds})
    for group in groups:
        lacking = [seed for seed in seeds if seed not in group.seeds]
        if lacking:
            commands = tuple(seed_command(group.data.first, seed) for seed in lacking)
            blocks.append(Block(missing=f"{group.label} with seed {', '.join(map(str, lacking))}", commands=commands))
        for run in group.data.runs:
            policies = [policy for policy in group.data.policies if policy not in run.evaluations]
            if policies:
                what = f"Evaluation of {join(policies)} in {run.path}"
                only = f"evaluate-{policies[0]}" if len(policies) == 1 else ""
                blocks.append(Block(missing=what, commands=(run_command(run, until=only),)))
    return blocks


def _apart(apart: Apart) -> Block:
    says = f"{apart.why}. No difference is taken between them; each is compared with its own baseline."
    if not apart.seeds:
        return Block(notes=(says,))
    commands = tuple(seed_command(apart.run, seed) for seed in apart.seeds)
    return Block(missing=f"{says} Runs of the same seeds", commands=commands)


def _own(groups: Sequence[Group], series: dict[str, Series], suffix: str) -> Plot | None:
    rows = []
    for policy in dict.fromkeys(policy for group in groups for policy in group.data.policies if policy != BASELINE):
        for group in groups:
            found = difference(group.data, policy) if policy in group.data.policies else None
            if found is not None:
                rows.append((_labelled(series[group.label], policy), found))
    return forest(
        rows,
        name=f"runs-to-baseline{suffix}",
        title="Difference to the baseline of the same run",
        xlabel="pass@1 minus the baseline's, percentage points",
        caption="Every arm against the baseline it was trained beside.",
    )


def _other(groups: Sequence[Group], series: dict[str, Series], suffix: str) -> Plot | None:
    reference = groups[0]
    rows: list[tuple[Series, SeedEstimate]] = []
    for policy in reference.data.policies:
        for group in groups[1:]:
            found = between(reference, group, policy) if policy in group.data.policies else None
            if found is not None:
                rows.append((_labelled(series[group.label], policy), found))
    return forest(
        rows,
        name=f"runs-to-reference{suffix}",
        title=f"Difference to the same policy of {reference.label}",
        xlabel=f"pass@1 minus {reference.label}'s, percentage points",
        caption=f"Right of zero is better than the policy of this name in {reference.label}, seed by seed.",
    )


def _curves(groups: Sequence[Group], series: dict[str, Series], suffix: str) -> list[Block]:
    """How every arm that two groups have learned: the training pass rate, a line per group."""
    trained = [(group.label, group.data) for group in groups]
    curve = LEARNING[0]
    arms = dict.fromkeys(arm for _, data in trained for arm in data.arms)
    drawn = [training_curve_of_runs(trained, series, arm, curve, suffix) for arm in arms]
    plots = tuple(plot for plot in drawn if plot is not None)
    blocks = [Block(title="Learning curves", plots=plots, key=tuple(series))] if plots else []
    for label, data in trained:
        shared = [arm for arm in data.arms if sum(arm in other.arms for _, other in trained) > 1]
        blocks += [dataclasses.replace(each, missing=f"{label}: {each.missing}") for each in untrained(data, shared)]
    return blocks


def _series(index: int, label: str) -> Series:
    colour = index % len(PALETTE)
    dash: str | tuple[float, tuple[float, ...]] = "-" if index < len(PALETTE) else (0, (4, 1, 1, 1))
    return Series(label=label, colour=PALETTE[colour], dash=dash, variable=f"var(--c{colour})")


def _labelled(style: Series, policy: str) -> Series:
    return dataclasses.replace(style, label=f"{policy} · {style.label}")
