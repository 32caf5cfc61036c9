"""docs/results/study: a page for each group, with its tables as CSV and its figures as PNG, from results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from psgpo.report.style import Plot, write_plot
from study import figures, measures, pace, rows, where
from study.cells import Study
from study.compare import MIN_SEEDS, RESAMPLES
from study.results import Results, load_all, unfinished
from study.tables import Row, Table, fenced

Rows = Callable[[Study, Results, Sequence[str]], list[Row]]
INTERVALS = (
    f"Differences are paired by seed and problem. Intervals are 95 %: a percentile bootstrap of {RESAMPLES:,} draws of "
    f"seeds and, within them, of problems, widened for few seeds (Hesterberg 2015), from {MIN_SEEDS} seeds on; not "
    "corrected for how many there are. Bold: clear of zero. A seed that lacks one side takes no part and is named."
)
TABLES: dict[str, tuple[str, str, Rows]] = {
    "arms": (
        "Every arm against its reference",
        f"Mean pass@1 over seeds. {INTERVALS} Beside it Student's t over seeds.",
        rows.arms,
    ),
    "seeds": (
        "Seed by seed",
        "pass@1 of every policy; seeds that the cell has not are left open.",
        rows.by_seed,
    ),
    "decoding": (
        "Greedy, and any of several samples",
        "The arms of the first table under greedy decoding (one program a problem), and pass@8 of the same samples at "
        f"temperature 1. {INTERVALS} Beside it Student's t over seeds.",
        rows.decoding,
    ),
    "shares": (
        "Shares of gains",
        f"Gains are over the baseline. The share's interval takes both gains from the same draws. {INTERVALS}",
        rows.shares,
    ),
    "operations": (
        "By length of the problem",
        f"The same differences by number of operations, and the factor by which pass@1 changes. {INTERVALS}",
        rows.by_operations,
    ),
    "length": (
        "By length of the response",
        "Each seed's problems in quarters by the tokens that the reference writes for them (PSGPO, Figure 4); a pair "
        f"of columns has the mean tokens and the difference. {INTERVALS}",
        rows.by_length,
    ),
    "fresh": (
        "On seeds that nothing was chosen by",
        f"The same differences. {INTERVALS}",
        rows.fresh,
    ),
    "steps": (
        "PPO steps to the reference's final pass@1",
        "On the held-out problems, interpolated between evaluated checkpoints; the SFT policy is step 0. `share of the "
        "steps`: median over all of the run's steps. A seed that never gets there counts as later than any step.",
        pace.steps,
    ),
    "equal-cost": (
        "At equal CPU time",
        "Both at the CPU time of the reference, seed by seed. `price in steps`: CPU time before the arm's first step "
        "(the baseline whose responses are labelled, responses, labels, its PRM), in steps of that baseline; `steps "
        "left`: what is left of the reference's; `pass@1 then`: interpolated between checkpoints. `steps to it`: those "
        "that the arm takes, without the price, to the reference's last pass@1.",
        pace.equal_cost,
    ),
    "best-of": (
        "Best of n responses",
        "Means over seeds with the 95 % t interval. pass@k is unbiased; other rows are pass@1 of the response that the "
        "PRM ranks first of n.",
        measures.best_of,
    ),
    "prm": (
        "PRMs against exact labels",
        "Lines of held-out problems; means over seeds, for the AUROC with the 95 % t interval over seeds. `position`: "
        "AUROC of the share of good lines in the same fifth of a program, which no PRM is needed for. `majority`: "
        "accuracy of the better constant. `first error`: share of wrong programs whose first wrong line is found. "
        "`f1`: harmonic mean of that and of the share of right programs left alone. `ece`: calibration error.",
        measures.prms,
    ),
    "labels": (
        "Labels: cost and quality",
        "Means over seeds. Agreement with exact labels is over lines of failed responses; `majority`: that of the "
        "better constant; `labelled`: share of those lines that have a label.",
        measures.labels,
    ),
    "costs": (
        "CPU-seconds of a seed",
        "Means over seeds, by kind of stage; `taken over`: what another cell computed and this one did not. Evaluation "
        "is of checkpoints and best of n too. Labels are counted with the programs that they judge. In published "
        "results the other stages, and mutants, are without theirs: in one run anew RL took a fifth more, responses "
        "and evaluation more than twice as much.",
        measures.costs,
    ),
}


def write_pages(study: Study, cells: Sequence[str], out: Path) -> list[Path]:
    """Write the pages of the groups that `cells` belong to; a page always shows its whole group. Returns the files."""
    results = load_all(study)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for group in study.groups:
        if any(study.cells[cell].group == group for cell in cells):
            written += _page(study, results, group, out)
    written.append(_index(study, results, out))
    return written


def _page(study: Study, results: Results, group: str, out: Path) -> list[Path]:
    cells = study.chosen(None, group)
    about = study.groups[group]
    command = f"{study.command_of('table')} --group {group}"
    parts = [f"# {about.title}", "", about.question, "", *fenced(f"{study.command_of('run')} --group {group}"), ""]
    parts += [
        f"{_counted(study, results, cells)} runs are there; their results lie in `{_place(study)}`.",
        "",
    ]
    written = []
    for name, (title, note, make) in TABLES.items():
        found = make(study, results, cells)
        if found:
            table = Table(name=f"{group}-{name}", title=title, note=note, rows=found)
            parts.append(table.markdown(command))
            written.append(table.write_csv(out))
    plots = _plots(study, results, cells, group)
    if plots:
        parts += ["## Figures", "", *fenced(command), ""]
        parts += [
            "Lines are means over seeds, bands the range from seed to seed, bars 95 % intervals; arms with exact "
            "labels are dashed. Over steps of training, a point is the mean of the last steps, a tenth of the run's.",
            "",
        ]
    for plot in plots:
        path = write_plot(plot, out)
        written.append(path)
        parts += [f"![{plot.alt}]({path.name})", "", f"Data: [{plot.name}.csv]({plot.name}.csv)", ""]
    page = out / f"{group}.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    return [page, *written]


def _index(study: Study, results: Results, out: Path) -> Path:
    """Every group: its page, or the command that makes what the page needs."""
    lines = ["# The study", "", *fenced(*(study.command_of(verb) for verb in ("plan", "run", "table"))), ""]
    lines += ["| page | what it asks | runs |", "|---|---|---|"]
    for name, group in study.groups.items():
        there = (out / f"{name}.md").is_file()
        title = f"[{group.title}]({name}.md)" if there else f"{group.title}: `{study.command_of('run')} --group {name}`"
        asks = " ".join(group.question.split())
        lines.append(f"| {title} | {asks} | {_counted(study, results, study.chosen(None, name))} |")
    path = out / "README.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _place(study: Study) -> str:
    return "benchmarks/study/results/" if study.into is None else f"{study.results}/"


def _counted(study: Study, results: Results, cells: Sequence[str]) -> str:
    wanted = [(cell, seed) for cell in cells for seed in study.seeds(cell)]
    there = sum(not unfinished(study, results, *pair) for pair in wanted)
    return f"{there} of {len(wanted)}"


def _plots(study: Study, results: Results, cells: Sequence[str], group: str) -> list[Plot]:
    found = [
        figures.forest(study, results, cells, f"{group}-differences"),
        figures.checkpoints(study, results, cells, f"{group}-checkpoints"),
        figures.best_of(study, results, cells, f"{group}-best-of-k"),
    ]
    axes = list(dict.fromkeys(axis for cell in cells for axis in study.cells[cell].at))
    if axes and study.groups[group].heat:
        arms = dict.fromkeys(arm for cell in cells for arm in study.arms(cell) if arm != "sft")
        found += [where.heat(study, results, cells, arm, f"{group}-{arm}") for arm in arms]
    elif axes:
        found.append(where.along(study, results, cells, axes[0], f"{group}-along"))
    if study.groups[group].curves:
        found.append(where.by_length(study, results, cells, f"{group}-by-length"))
        found += figures.training(study, results, cells, group)
    if study.groups[group].paths:
        found.append(figures.paths(study, results, cells, f"{group}-paths"))
    return [plot for plot in found if plot is not None]
