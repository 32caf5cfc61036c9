"""Figures of the study, in the report's style. Each returns None without data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.ticker import Formatter

from psgpo.evaluation.metrics import Estimate
from psgpo.report.figures import PERCENT, POINTS, smooth
from psgpo.report.style import INK, PALETTE, Plot, Series, end_labels, finish, new_figure, styled
from study.cells import BASELINE, Study
from study.compare import Side, curve, pair, present, two_level_bootstrap
from study.measures import best_of_curves
from study.naming import named_reference
from study.results import Results
from study.rows import sides

Curve = tuple[Sequence[float], Sequence[float]]
"""x and y of a seed."""
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
                named = label_of(study, cells, side.cell, side.arm)
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


def styles_of(labels: Sequence[str]) -> dict[str, Series]:
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


def _counted(series: Series, seeds: int) -> Series:
    return replace(series, label=f"{series.label} ({seeds} seed{'s' if seeds > 1 else ''})")


@styled
def lines_figure(
    data: Mapping[str, Sequence[Curve]],
    *,
    name: str,
    title: str,
    xlabel: str,
    form: Formatter | None = None,
    log: bool = False,
) -> Plot | None:
    """A line per label: the mean over seeds, and the range between them; how many seeds, where lines differ in it.

    Args:
        data: per label, of every seed its x and y; seeds of one label have the same x.
        form: of the numbers along y.
    """
    data = {label: seeds for label, seeds in data.items() if seeds}
    if not data:
        return None
    figure, axes = new_figure("half")
    alike = len({len(seeds) for seeds in data.values()}) == 1
    ends = []
    numbers: list[tuple[str, float, float, float, float, int]] = []
    for label, series in styles_of(list(data)).items():
        xs = np.array(data[label][0][0], dtype=float)
        ys = np.array([y for _, y in data[label]], dtype=float)
        mean = ys.mean(axis=0)
        axes.plot(xs, mean, color=series.colour, linestyle=series.dash)
        if len(ys) > 1:
            axes.fill_between(xs, ys.min(axis=0), ys.max(axis=0), color=series.colour, alpha=0.12, linewidth=0)
        ends.append((float(xs[-1]), float(mean[-1]), series if alike else _counted(series, len(ys))))
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
        data = _trained(study, results, cells, metric)
        form = None if metric in ("reward_lines", "lines_per_response") else PERCENT
        name = f"{prefix}-{metric.replace('_', '-')}"
        plot = lines_figure(data, name=name, title=title, xlabel="PPO step", form=form)
        found += [plot] if plot else []
    return found


def _trained(study: Study, results: Results, cells: Sequence[str], metric: str) -> dict[str, list[Curve]]:
    """A metric over PPO steps, smoothed, of every seed of every arm that has it."""
    data: dict[str, list[Curve]] = {}
    for side in _policies(study, cells):
        columns = [results[side.cell, s].data["training"] for s in present(study, results, side).seeds]
        columns = [of[side.arm] for of in columns if metric in of.get(side.arm, {})]
        smoothed = [smooth(np.array(of[metric], dtype=float), max(1, len(of[metric]) // 10)) for of in columns]
        data[label_of(study, cells, side.cell, side.arm)] = [
            (of["step"], y.tolist()) for of, y in zip(columns, smoothed, strict=True)
        ]
    return data


@styled
def paths(study: Study, results: Results, cells: Sequence[str], name: str) -> Plot | None:
    """Where training leads each arm with line rewards: what its lines earn, against what passes, means over seeds.

    A policy that learns to be paid without learning to pass goes right and not up.
    """
    both = [_trained(study, results, cells, metric) for metric in ("reward_lines", "pass_rate")]
    earned, passed = ({label: [y for _, y in seeds] for label, seeds in data.items() if seeds} for data in both)
    steps = {label: seeds[0][0] for label, seeds in both[0].items() if seeds}
    labels = [label for label, seeds in earned.items() if np.any(seeds)]
    if not labels:
        return None
    figure, axes = new_figure("half")
    numbers: list[tuple[str, float, float, float, int]] = []
    for label, series in styles_of(labels).items():
        x, y = (np.mean(of[label], axis=0) for of in (earned, passed))
        axes.plot(x, y, color=series.colour, linestyle=series.dash, label=label)
        axes.plot(x[-1], y[-1], marker="o", markersize=4, color=series.colour)
        numbers += [(label, *map(float, point), len(earned[label])) for point in zip(steps[label], x, y, strict=True)]
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_title("Training pass rate over what lines earn; dot: the end")
    axes.set_xlabel("reward from lines, of a response")
    axes.legend(loc="best", fontsize=8)
    ends = {label: (x, y) for label, _, x, y, _ in numbers}
    alt = "Training pass rate over reward from lines: " + ", ".join(
        f"{label} ends at {100 * y:.1f} %, {x:.2f}" for label, (x, y) in ends.items()
    )
    columns = ("line", "PPO step", "reward from lines", "pass rate", "seeds")
    return finish(figure, name=name, caption="", alt=alt, size="half", columns=columns, rows=numbers)


def label_of(study: Study, cells: Sequence[str], cell: str, arm: str) -> str:
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
            data[label_of(study, cells, cell, arm)] = [
                ([x for x, _ in of], [y for _, y in of]) for of in points if of is not None
            ]
    return lines_figure(data, name=name, title="pass@1, held-out problems", xlabel="PPO step", form=PERCENT)


def best_of(study: Study, results: Results, cells: Sequence[str], name: str) -> Plot | None:
    """pass@k of every policy over k, and pass@1 of what the PRM takes of k responses by their least line score."""
    data = {}
    for cell in cells:
        for policy in study.cells[cell].best_of:
            seeds = present(study, results, Side(cell=cell, arm=policy)).seeds
            for method, curves in best_of_curves(study, results, cell, policy, seeds).items():
                if method.startswith("any") or method.endswith("-min"):
                    label = label_of(study, cells, cell, policy)
                    data[f"{label}, {'pass@k' if method.startswith('any') else method}"] = [
                        (list(range(1, len(values) + 1)), values) for values in curves
                    ]
    return lines_figure(data, name=name, title="Best of k responses", xlabel="k", form=PERCENT, log=True)
