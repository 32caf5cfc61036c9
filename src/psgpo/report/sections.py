"""The report's sections in reading order: which tables and figures, under which words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from psgpo.report import figures, stage_figures, stage_tables, tables
from psgpo.report.aggregate import BASELINE, Experiment, difficulty_bins, length_bins
from psgpo.report.answer import seed_note
from psgpo.report.cells import Table
from psgpo.report.commands import report_command, run_command, seed_command, seed_folder
from psgpo.report.load import Run
from psgpo.report.programs import Program, background, choose_programs
from psgpo.report.style import Plot, Series


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One piece of a section: a table, figures, a box, programs, or columns of blocks."""

    title: str = ""
    table: Table | None = None
    plots: tuple[Plot, ...] = ()
    key: tuple[str, ...] = ()
    """Policies whose key stands above figures that have no labels of their own."""
    missing: str = ""
    """What is not there yet."""
    commands: tuple[str, ...] = ()
    """Commands that make it, or go on from here."""
    notes: tuple[str, ...] = ()
    """A box of remarks."""
    programs: tuple[Program, ...] = ()
    columns: tuple[tuple[Block, ...], ...] = ()
    """Blocks side by side where the page is wide enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A titled part of the page."""

    id: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


def build_sections(data: Experiment, series: dict[str, Series]) -> list[Section]:
    """All sections; a part without data says so and names the command that makes it."""
    builders = (_results, _learning, _where, _labels, _prm, _diagnostics, _programs, _benchmark)
    return [builder(data, series) for builder in builders]


def _missing(what: str, stages: Mapping[str, Sequence[Run]]) -> Block:
    """`stages`: per stage that makes it, the runs that lack it."""
    commands: list[str] = []
    for run in {run.path: run for lacking in stages.values() for run in lacking}.values():
        names = [stage for stage, lacking in stages.items() if run in lacking]
        commands.append(run_command(run, until=names[0] if len(names) == 1 else ""))
    return Block(missing=what, commands=tuple(commands))


def _lacking(data: Experiment, names: Sequence[str], have: Callable[[Run, str], object]) -> dict[str, list[Run]]:
    """Per name that is not there in every run, the runs without it."""
    found = {name: [run for run in data.runs if not have(run, name)] for name in names}
    return {name: runs for name, runs in found.items() if runs}


def _results(data: Experiment, series: dict[str, Series]) -> Section:
    blocks = [Block(table=tables.main_table(data))]
    missing = _lacking(data, data.policies, lambda run, policy: policy in run.evaluations)
    if missing:
        stages = {f"evaluate-{policy}": runs for policy, runs in missing.items()}
        blocks.append(_missing(f"Evaluation of {', '.join(missing)}", stages))
    plots = tuple(
        plot for plot in (figures.difference_to_baseline(data, series), figures.best_of_k(data, series)) if plot
    )
    if plots:
        blocks.append(Block(plots=plots))
    for part in data.parts:
        assert part.part is not None
        blocks.append(Block(title=part.part.title, table=tables.part_table(part)))
    if len(data.runs) > 1:
        blocks.append(Block(title="Every seed", table=tables.seed_table(data)))
    else:
        commands = _more_seeds(data.first)
        blocks.append(
            Block(title="What one seed can and cannot show", notes=tuple(seed_note(data)), commands=tuple(commands))
        )
    interval = "over seeds and problems" if len(data.runs) > 1 else "over test problems (bootstrap)"
    settings = data.first.recipe.evaluation
    lead = (
        f"{settings.samples} responses per problem at temperature {settings.temperature:g}. Intervals are 95 % "
        f"{interval}. Differences are paired: the same problems for both policies."
    )
    if data.part is not None:
        lead = f"{data.part.title}. {lead} Other test sets, and what was trained on too, stand below, each for itself."
    return Section(id="results", title="Results", lead=lead, blocks=tuple(blocks))


def _more_seeds(run: Run) -> list[str]:
    seeds = (run.recipe.seed + 1, run.recipe.seed + 2)
    folders = [seed_folder(run, seed) for seed in seeds]
    together = report_command([run.path, *folders], run.path.with_name(f"{run.path.resolve().name}-seeds"))
    return [*(seed_command(run, seed) for seed in seeds), together]


def _learning(data: Experiment, series: dict[str, Series]) -> Section:
    lead = "On training problems, with sampling."
    return _curves(data, series, figures.LEARNING, "learning", "Learning curves", lead)


def _diagnostics(data: Experiment, series: dict[str, Series]) -> Section:
    lead = "How the optimisation went. Reward parts are sums over a response; line rewards are the PRM's, after λ."
    section = _curves(data, series, figures.DIAGNOSTICS, "diagnostics", "RL diagnostics", lead)
    table = stage_tables.training_table(data)
    if table is None:
        return section
    last = Block(title="Last tenth of the steps", table=table)
    return dataclasses.replace(section, blocks=(*section.blocks, last))


def _curves(
    data: Experiment, series: dict[str, Series], curves: Sequence[figures.Curve], id: str, title: str, lead: str
) -> Section:
    drawn = tuple(plot for curve in curves if (plot := figures.training_curve(data, series, curve)) is not None)
    shown = tuple(arm for arm in data.arms if data.with_training(arm))
    blocks = [*([Block(plots=drawn, key=shown)] if drawn else []), *untrained(data, data.arms)]
    band = "; bands reach from the lowest to the highest seed" if len(data.runs) > 1 else ""
    smoothing = f"Each point averages the tenth of the run before it{band}."
    return Section(id=id, title=title, lead=f"{lead} {smoothing}", blocks=tuple(blocks))


def untrained(data: Experiment, arms: Sequence[str]) -> list[Block]:
    """Which of the arms are not trained to their end, how far each is, and the commands that go on."""
    absent = _lacking(data, arms, lambda run, arm: run.trained(arm))
    if not absent:
        return []
    stages = {f"rl-{arm}": runs for arm, runs in absent.items()}
    return [_missing(f"Training of {', '.join(_how_far(data, arm, runs) for arm, runs in absent.items())}", stages)]


def _how_far(data: Experiment, arm: str, runs: Sequence[Run]) -> str:
    """The arm's name, and at which step the runs are that have not finished it; the name alone before the first."""
    if not any(run.steps(arm) for run in runs):
        return arm
    several = len(data.runs) > 1
    places = [
        f"{f'seed {run.recipe.seed} ' if several else ''}unfinished, step {run.steps(arm)} of "
        f"{run.recipe.rl_of(arm).steps}"
        for run in runs
    ]
    return f"{arm} ({'; '.join(places)})"


def _where(data: Experiment, series: dict[str, Series]) -> Section:
    unit = "operations" if data.first.recipe.problems.kind == "opchain" else "difficulty"
    levels = difficulty_bins(data)
    by_length = figures.difference_by(
        data,
        series,
        length_bins(data),
        name="difference-by-length",
        title="Difference by response length",
        xlabel="tokens per response of the baseline",
        caption="As PSGPO's figure 4. Problems are grouped by the mean length of the baseline's responses to them. "
        "Bars: 95 % intervals.",
    )
    by_level = figures.difference_by(
        data,
        series,
        levels,
        name="difference-by-difficulty",
        title=f"Difference by {'number of operations' if unit == 'operations' else unit}",
        xlabel=unit,
        caption="Above zero an arm beats the baseline on problems of this size. Bars: 95 % intervals.",
    )
    drawn = tuple(plot for plot in (by_length, by_level) if plot)
    arms = tuple(arm for arm in data.arms if arm != BASELINE and data.with_evaluation(arm))
    blocks = [Block(plots=drawn, key=arms)] if drawn else []
    table = tables.group_table(data, levels, unit)
    if table is not None:
        blocks.append(Block(table=table))
    if not drawn:
        blocks.append(
            _missing("Evaluations of the baseline and another arm", {"evaluate-*": data.runs, "*": data.runs})
        )
    over = "problems" if len(data.runs) == 1 else "seeds and problems"
    lead = f"pass@1 within groups of problems. Groups are small: mind the 95 % intervals, over {over}."
    return Section(id="where", title="Where the difference lies", lead=lead, blocks=tuple(blocks))


def _labels(data: Experiment, series: dict[str, Series]) -> Section:
    if data.first.recipe.labels.source == "mutation":
        return _mutants(data)
    settings = data.first.recipe.labels
    cost, quality = stage_tables.cost_table(data), stage_tables.quality_table(data)
    scan = stage_tables.scan_table(data)
    left = (Block(title="Cost", table=cost), Block(title="The same failed responses, two ways", table=scan))
    right = (Block(title="Quality against exact labels", table=quality),)
    columns = tuple(tuple(block for block in column if block.table) for column in (left, right))
    blocks = [Block(columns=tuple(column for column in columns if column))] if any(columns) else []
    if lacking := _lacking(data, ["labels"], lambda run, _: run.label_summary):
        blocks.append(_missing("Line labels", lacking))
    shown = (*(stage_figures.last_good_line(data) or ()), stage_figures.agreement_by_operations(data))
    plots = tuple(plot for plot in shown if plot)
    if plots:
        blocks.append(Block(plots=plots))
    lead = (
        f"{settings.strategy.replace('-', ' ').capitalize()} over lines, at most {settings.k} completions per probe, "
        f"{settings.draw} at a time; a line is +1 when a completion of the program up to it passes all tests. "
        "Exact labels come from the embedded benchmark's oracle and serve to measure only."
    )
    return Section(id="labels", title="Line labels", lead=lead, blocks=tuple(blocks))


def _mutants(data: Experiment) -> Section:
    table = stage_tables.mutant_table(data)
    blocks = (Block(table=table),) if table is not None else (_missing("Mutants", {"mutants": data.runs}),)
    lead = (
        "From mutants (PRLCoder): a planted bug or a rewrite of one line of a reference solution, judged by its tests. "
        "A line is + where the whole program passes, − where the changed line makes it fail."
    )
    return Section(id="labels", title="Line labels", lead=lead, blocks=blocks)


def _prm(data: Experiment, series: dict[str, Series]) -> Section:
    table = stage_tables.prm_table(data)
    blocks = [Block(table=table)] if table is not None else []
    if absent := _lacking(
        data, list(data.first.recipe.prm), lambda run, name: name in run.prm and run.prm[name].measure
    ):
        stages = {f"prm-{name}": runs for name, runs in absent.items()}
        blocks.append(_missing(f"PRM {', '.join(absent)}", stages))
    plots = tuple(p for p in (stage_figures.auroc_by_position(data), stage_figures.reliability(data)) if p)
    if plots:
        blocks.append(Block(plots=plots))
    if not data.first.recipe.prm:
        blocks.append(Block(notes=("This recipe trains no PRM.",)))
    mutants = data.first.recipe.labels.source == "mutation"
    lead = (
        f"On {'mutants of solutions' if mutants else 'responses'} to problems the PRM was not trained on; comments and "
        "blank lines are left out. ProcessBench F1 is the harmonic mean of the accuracy on wrong programs (first error "
        "found exactly) and on right ones (none reported)."
    )
    return Section(id="prm", title="Process reward models", lead=lead, blocks=tuple(blocks))


def _programs(data: Experiment, series: dict[str, Series]) -> Section:
    programs = tuple(choose_programs(data.first))
    block = Block(programs=programs)
    if data.first.recipe.labels.source == "mutation":
        block = Block(notes=("Labels come from mutants here; mutants/programs.jsonl has them line by line.",))
    elif data.first.recipe.prm and not any(prm.from_policy for prm in data.first.recipe.prm.values()):
        block = Block(notes=("The PRMs of this recipe read text; psgpo prm eval shows their scores line by line.",))
    elif not programs:
        block = _missing("Labelled programs with PRM scores", {"labels": data.runs, "prm-*": data.runs})
    lead = (
        "Held-out responses, chosen by a rule: the passing one of median length, then failing ones whose first bad "
        f"line lies at the 5th, 35th, 65th and 95th percentile of all. {background(data.first)} Labels: + can be "
        "completed, − cannot, · neutral."
    )
    return Section(id="programs", title="Programs, line by line", lead=lead, blocks=(block,))


def _benchmark(data: Experiment, series: dict[str, Series]) -> Section:
    table = stage_tables.strength_table(data.first)
    if data.first.recipe.problems.kind != "opchain":
        block = Block(notes=("Test strength is measured on the embedded benchmark only.",))
    else:
        block = Block(table=table) if table is not None else _missing("Test strength", {"problems": [data.first]})
    lead = "Weak hidden tests would reward wrong programs. How many programs with a planted mistake pass all of them?"
    return Section(id="tests", title="Strength of the hidden tests", lead=lead, blocks=(block,))
