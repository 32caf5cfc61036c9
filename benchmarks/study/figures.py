"""Figures of the study, in the report's style. Each returns None without data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import Formatter

from psgpo.evaluation.metrics import Estimate
from psgpo.report.figures import PERCENT, POINTS, smooth
from psgpo.report.style import INK, MUTED, PALETTE, Plot, Series, end_labels, finish, new_figure, styled
from study.cells import BASELINE, Study
from study.compare import Side, curve, pair, present, two_level_bootstrap
from study.measures import best_of_curves
from study.naming import named_reference
from study.results import Results
from study.rows import OPERATIONS, sides

CURVES = {
    "pass_rate": "Training pass rate",
    "reward_lines": "Reward from lines",
    "lines_per_response": "Lines per response",
    "comment_ratio": "Comment and blank lines, share",
    "noop_share": "Lines that do nothing, share",
}


@styled
def forest(study: Study, results: Results, cells: Sequence[str], name: str) -> Plot | None:
    """Every arm's paired difference to its reference with its interval, a row each."""
    rows: list[tuple[str, Estimate]] = []
    for side, reference in sides(study, cells):
        if side != reference:
            found = two_level_bootstrap(pair(study, results, side, reference).differences())
            if found.count:
                named = _label(study, cells, side.cell, side.arm)
                rows.append((f"{named} − {named_reference(side, reference)}", found))
    if not rows:
        return None
    figure, axes = new_figure("full")
    figure.set_size_inches(7.2, 1.0 + 0.22 * len(rows))
    figure.set_layout_engine("constrained", w_pad=0.15)  # long labels are wider in the PNG than in the SVG
    for place, (_, found) in enumerate(rows):
        if not math.isnan(found.low):
            axes.plot([found.low, found.high], [place, place], color=PALETTE[0])
        axes.plot(found.value, place, marker="o", markersize=4, color=PALETTE[0])
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{label} (n={found.count})" for label, found in rows])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(POINTS)
    axes.set_xlabel("pass@1 minus the reference's, points")
    alt = "Difference of pass@1: " + ", ".join(f"{label} {100 * found.value:+.1f}" for label, found in rows)
    numbers = [(label, found.value, found.low, found.high, found.count) for label, found in rows]
    columns = ("arm", "difference", "low", "high", "seeds")
    return finish(figure, name=name, caption="", alt=alt, size="full", columns=columns, rows=numbers)


def _series(labels: Sequence[str]) -> dict[str, Series]:
    """The baseline in ink, arms with exact labels dashed."""
    styles = itertools.cycle(enumerate(PALETTE))
    found = {}
    for label in labels:
        if label.rpartition(": ")[2] == BASELINE and "var(--ink)" not in {series.variable for series in found.values()}:
            found[label] = Series(label=label, colour=INK, dash="-", variable="var(--ink)")
            continue
        number, colour = next(styles)
        dash = "--" if "oracle" in label else "-" if len(found) <= len(PALETTE) else (0, (4, 1, 1, 1))
        found[label] = Series(label=label, colour=colour, dash=dash, variable=f"var(--c{number})")
    return found


@styled
def lines_figure(
    data: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    *,
    name: str,
    title: str,
    xlabel: str,
    form: Formatter | None = None,
    log: bool = False,
) -> Plot | None:
    """A line per label: the mean over seeds, and the range between them.

    Args:
        data: per label, of every seed its x and y; seeds of one label have the same x.
        form: of the numbers along y.
    """
    data = {label: seeds for label, seeds in data.items() if seeds}
    if not data:
        return None
    figure, axes = new_figure("half")
    ends = []
    numbers: list[tuple[str, float, float, float, float, int]] = []
    for label, series in _series(list(data)).items():
        xs = np.array(data[label][0][0], dtype=float)
        ys = np.array([y for _, y in data[label]], dtype=float)
        mean = ys.mean(axis=0)
        axes.plot(xs, mean, color=series.colour, linestyle=series.dash)
        if len(ys) > 1:
            axes.fill_between(xs, ys.min(axis=0), ys.max(axis=0), color=series.colour, alpha=0.12, linewidth=0)
        ends.append((float(xs[-1]), float(mean[-1]), series))
        spread = zip(xs, mean, ys.min(axis=0), ys.max(axis=0), strict=True)
        numbers += [(label, *map(float, point), len(ys)) for point in spread]
    if log:
        axes.set_xscale("log", base=2)
        places = sorted({x for seeds in data.values() for x in seeds[0][0]})
        axes.set_xticks(places if len(places) < 10 else [x for x in places if math.log2(x).is_integer()])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
    if form is not None:
        axes.yaxis.set_major_formatter(form)
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    end_labels(axes, ends)
    alt = f"{title} over {xlabel}: " + ", ".join(f"{series.label} ends at {y:.3g}" for _, y, series in ends)
    columns = ("line", xlabel, "mean", "least", "most", "seeds")
    return finish(figure, name=name, caption="", alt=alt, size="half", columns=columns, rows=numbers)


def training(study: Study, results: Results, cells: Sequence[str], prefix: str) -> list[Plot]:
    """Curves of training metrics over PPO steps, a figure for each metric, a line for each arm."""
    found = []
    for metric, title in CURVES.items():
        data: dict[str, list[tuple[Sequence[float], Sequence[float]]]] = {}
        for side in _policies(study, cells):
            columns = [results[side.cell, s].data["training"] for s in present(study, results, side).seeds]
            columns = [of[side.arm] for of in columns if metric in of.get(side.arm, {})]
            smoothed = [smooth(np.array(of[metric], dtype=float), max(1, len(of[metric]) // 10)) for of in columns]
            data[_label(study, cells, side.cell, side.arm)] = [
                (of["step"], y.tolist()) for of, y in zip(columns, smoothed, strict=True)
            ]
        form = None if metric in ("reward_lines", "lines_per_response") else PERCENT
        name = f"{prefix}-{metric.replace('_', '-')}"
        plot = lines_figure(data, name=name, title=title, xlabel="PPO step", form=form)
        found += [plot] if plot else []
    return found


def _label(study: Study, cells: Sequence[str], cell: str, arm: str) -> str:
    return arm if len(cells) == 1 else f"{study.cells[cell].title}: {arm}"


def _policies(study: Study, cells: Sequence[str]) -> list[Side]:
    """Arms that are trained: those of the tables, and each cell's baseline where it is a reference."""
    found = []
    for side, reference in sides(study, cells):
        found += [one for one in (reference, side) if one.arm != "sft" and one.cell in cells and one not in found]
    return found


def checkpoints(study: Study, results: Results, cells: Sequence[str], name: str) -> Plot | None:
    """pass@1 on the held-out problems over PPO steps."""
    data = {}
    for cell in cells:
        for arm in study.cells[cell].curve_arms:
            seeds = present(study, results, Side(cell=cell, arm=arm)).seeds
            points = [curve(results, cell, seed, arm) for seed in seeds]
            data[_label(study, cells, cell, arm)] = [
                ([x for x, _ in of], [y for _, y in of]) for of in points if of is not None
            ]
    return lines_figure(data, name=name, title="pass@1, held-out problems", xlabel="PPO step", form=PERCENT)


def best_of(study: Study, results: Results, cells: Sequence[str], name: str) -> Plot | None:
    """pass@k of every policy over k."""
    data = {}
    for cell in cells:
        for policy in study.cells[cell].best_of:
            seeds = present(study, results, Side(cell=cell, arm=policy)).seeds
            for method, curves in best_of_curves(study, results, cell, policy, seeds).items():
                if method.startswith("any") or method.endswith("-mean"):
                    label = _label(study, cells, cell, policy)
                    data[f"{label}, {'pass@k' if method.startswith('any') else method}"] = [
                        (list(range(1, len(values) + 1)), values) for values in curves
                    ]
    return lines_figure(data, name=name, title="Best of k responses", xlabel="k", form=PERCENT, log=True)


def along(study: Study, results: Results, cells: Sequence[str], axis: str, name: str) -> Plot | None:
    """Paired difference of every arm over the cells' place on `axis`, of the seeds that every place has."""
    arms = list(dict.fromkeys(side.arm for side, reference in sides(study, cells) if side != reference))
    data: dict[str, list[tuple[list[float], list[float]]]] = {}
    placed = sorted((cell for cell in cells if axis in study.cells[cell].at), key=lambda c: study.cells[c].at[axis])
    for arm in arms:
        pairs = {}
        for cell in (cell for cell in placed if arm in study.arms(cell)):
            other, reference = study.references(cell, arm)[0]
            pairs[cell] = pair(study, results, Side(cell=cell, arm=arm), Side(cell=other, arm=reference))
        kept = {cell: of for cell, of in pairs.items() if of.seeds}
        common = sorted(set.intersection(*(set(of.seeds) for of in kept.values()))) if kept else []
        xs = [float(study.cells[cell].at[axis]) for cell in kept]
        data[arm] = [
            (xs, [float(of.differences()[of.seeds.index(seed)].mean()) for of in kept.values()]) for seed in common
        ]
    return lines_figure(
        data, name=name, title="pass@1 minus the reference's, points", xlabel=axis, form=POINTS, log=True
    )


@styled
def heat(study: Study, results: Results, cells: Sequence[str], arm: str, name: str) -> Plot | None:
    """The difference of one arm: rows are the cells' places on their axis, columns the operations of the problem."""
    placed = [cell for cell in cells if study.cells[cell].at and arm in study.arms(cell)]
    if not placed:
        return None
    row_axis, column_axis = next(iter(study.cells[placed[0]].at)), "operations of the problem"
    rows = [study.cells[cell].at[row_axis] for cell in placed]
    columns = [f"{fewest}–{most}" for fewest, most in OPERATIONS]
    found: dict[tuple[int, int], tuple[Estimate, float]] = {}
    for row, cell in enumerate(placed):
        other, reference = study.references(cell, arm)[0]
        pairs = pair(study, results, Side(cell=cell, arm=arm), Side(cell=other, arm=reference))
        for column, (fewest, most) in enumerate(OPERATIONS if pairs.seeds else ()):
            found[row, column] = two_level_bootstrap(pairs.differences(fewest, most)), pairs.level(fewest, most)
    if not found:
        return None
    figure, axes = new_figure("half")
    grid = np.full((len(rows), len(columns)), np.nan)
    for place, (estimate, level) in found.items():
        grid[place] = estimate.value
        clear = estimate.low > 0 or estimate.high < 0
        text = f"{100 * estimate.value:+.1f}{'*' if clear else ''}\n(from {100 * level:.1f} %)".replace("-", "−")
        axes.text(place[1], place[0], text, ha="center", va="center", fontsize=7.5, color=INK)
    for row, column in np.argwhere(np.isnan(grid)):
        axes.text(column, row, "missing", ha="center", va="center", fontsize=7.5, color=MUTED)
    most = float(np.nanmax(np.abs(grid))) or 1.0
    axes.imshow(grid, cmap="PuOr_r", vmin=-2 * most, vmax=2 * most, aspect="auto")
    axes.set_xticks(range(len(columns)), [str(column) for column in columns])
    axes.set_yticks(range(len(rows)), [str(row) for row in rows])
    axes.set_xlabel(column_axis)
    axes.set_ylabel(row_axis)
    axes.grid(False)
    axes.tick_params(color=MUTED)
    axes.set_title(f"{arm}: points of pass@1 over the reference's (its level)")
    alt = f"{arm} minus its reference: " + ", ".join(
        f"{row_axis} {rows[r]}, {column_axis} {columns[c]}: {100 * e.value:+.1f}" for (r, c), (e, _) in found.items()
    )
    numbers = [(rows[r], columns[c], e.value, e.low, e.high, e.count, level) for (r, c), (e, level) in found.items()]
    headings = (row_axis, column_axis, "difference", "low", "high", "seeds", "reference's pass@1")
    return finish(figure, name=name, caption="", alt=alt, size="half", columns=headings, rows=numbers)
