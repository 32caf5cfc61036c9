"""Figures of the labels and the PRMs. Each returns None without data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from psgpo.report.aggregate import Experiment
from psgpo.report.figures import PERCENT
from psgpo.report.load import Array, response_key
from psgpo.report.stage_tables import dig
from psgpo.report.style import INK, MUTED, PALETTE, Plot, Series, end_labels, finish, new_figure, styled

SEARCH, EXACT = PALETTE[1], INK
PRM_COLOURS = (PALETTE[0], PALETTE[6], PALETTE[2], PALETTE[4])
BINS = 10


@styled
def agreement_by_operations(data: Experiment) -> Plot | None:
    """Share of lines whose search label has the exact label's sign, by the problem's difficulty."""
    tables = [_table(run.label_summary, "quality.agreement_by_operations") for run in data.runs]
    levels = sorted({int(level) for table in tables for level in table})
    points = [(n, [share for table in tables if not math.isnan(share := dig(table, str(n)))]) for n in levels]
    points = [(n, shares) for n, shares in points if shares]
    if not points:
        return None
    figure, axes = new_figure("third")
    means = [float(np.mean(shares)) for _, shares in points]
    axes.plot([n for n, _ in points], means, color=SEARCH, marker="o", markersize=3.5)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("operations in the problem")
    axes.set_title("Lines that agree with exact labels")
    alt = "Share of lines of failed responses on which search and exact labels agree, by number of operations."
    return finish(figure, name="label-agreement", caption="", alt=alt, size="third")


def _table(record: Any, path: str) -> dict[str, Any]:
    for key in path.split("."):
        record = record.get(key) if isinstance(record, dict) else None
    return record if isinstance(record, dict) else {}


@styled
def last_good_line(data: Experiment) -> tuple[Plot, Plot] | None:
    """Where the last good line of failed responses lies: as the labels say and exactly, and by how much they differ."""
    found: list[tuple[float, float, int]] = []
    for run in data.runs:
        for label in run.labels:
            exact = run.exact.get(response_key(label))
            if exact is not None and exact.lines and not label.response.verdict.passed:
                lines = exact.lines
                distance = label.last_solvable - exact.last_on_track
                found.append((label.last_solvable / lines, exact.last_on_track / lines, distance))
    if not found:
        return None
    search, truth, apart = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    return _positions(search, truth), _distances(apart)


def _positions(search: Array, truth: Array) -> Plot:
    figure, axes = new_figure("third")
    edges = np.linspace(0, 1, BINS + 1)
    for values, offset, colour, label in ((truth, -0.021, EXACT, "exact"), (search, 0.021, SEARCH, "labels")):
        share = np.histogram(np.clip(values, 0, 1 - 1e-9), edges)[0] / len(values)
        axes.bar((edges[:-1] + edges[1:]) / 2 + offset, share, width=0.04, color=colour, label=label)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("share of the program")
    axes.set_title("Where the last good line is")
    axes.legend()
    alt = f"Histogram over {len(search)} failed responses of the last good line's position, by labels and exactly."
    return finish(figure, name="last-good-line", caption="", alt=alt, size="third")


def _distances(apart: Array) -> Plot:
    figure, axes = new_figure("third")
    reach = 8
    clipped = np.clip(apart, -reach, reach).astype(int)
    counts = np.bincount(clipped + reach, minlength=2 * reach + 1) / len(apart)
    xs = np.arange(-reach, reach + 1)
    axes.bar(xs, counts, width=0.75, color=[EXACT if x == 0 else SEARCH for x in xs])
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xticks([-8, -4, 0, 4, 8], ["≤ −8", "−4", "0", "+4", "≥ 8"])
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("labels minus exact, lines")
    axes.set_title("How far off the last good line is")
    found = f"{np.mean(apart == 0):.0%} exact, mean {apart.mean():+.1f}"
    alt = f"Difference in lines over {len(apart)} failed responses: {found}."
    return finish(figure, name="last-good-line-distance", caption="", alt=alt, size="third")


@styled
def auroc_by_position(data: Experiment) -> Plot | None:
    """AUROC of every PRM per fifth of the program, against both truths."""
    figure, axes = new_figure("half")
    ends: list[tuple[float, float, Series]] = []
    for number, name in enumerate(data.first.recipe.prm):
        for truth, dash in (("exact", "-"), ("search", ":")):
            rows = _measures(data, name, truth)
            if not rows:
                continue
            values = np.array([[dig(fifth, "auroc") for fifth in row["by_position"]] for row in rows])
            means = values.mean(axis=0)  # NaN as soon as one seed has one class only in that fifth
            colour = PRM_COLOURS[number % len(PRM_COLOURS)]
            xs = np.array([(fifth["from"] + fifth["to"]) / 2 for fifth in rows[0]["by_position"]])
            axes.plot(xs, means, color=colour, linestyle=dash, marker="o", markersize=3.5)
            known = np.flatnonzero(np.isfinite(means))
            if len(known):
                label = f"{name}, {truth}"
                ends.append((1.0, float(means[known[-1]]), Series(label=label, colour=colour, dash=dash, variable="")))
    if not ends:
        return None
    axes.axhline(0.5, color=MUTED, linewidth=1)
    axes.set_ylim(0.4, 1.02)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("share of the program written")
    axes.set_title("AUROC of line scores along the program")
    end_labels(axes, ends)
    caption = "Solid: against exact labels; dotted: against search labels; 0.5 is chance."
    return finish(
        figure, name="prm-auroc", caption=caption, alt="AUROC of PRM scores per fifth of the program.", size="half"
    )


@styled
def reliability(data: Experiment) -> Plot | None:
    """Mean prediction against mean truth per bin of prediction, against exact labels where there are any."""
    figure, axes = new_figure("half")
    diagonal(axes)
    ends: list[tuple[float, float, Series]] = []
    truths: set[str] = set()
    for number, name in enumerate(data.first.recipe.prm):
        truth = "exact" if _measures(data, name, "exact") else "search"
        bins = [b for row in _measures(data, name, truth) for b in row["calibration"]["bins"] if b["lines"]]
        if not bins:
            continue
        truths.add(truth)
        colour = PRM_COLOURS[number % len(PRM_COLOURS)]
        xs, ys = [b["predicted"] for b in bins], [b["true"] for b in bins]
        largest = max(b["lines"] for b in bins)
        axes.scatter(
            xs,
            ys,
            s=[8 + 90 * b["lines"] / largest for b in bins],
            color=colour,
            alpha=0.55,
            linewidths=0,
            clip_on=False,
        )
        if len(data.runs) == 1:
            axes.plot(xs, ys, color=colour, linewidth=1)
        last = max(bins, key=lambda b: b["predicted"])
        ends.append((last["predicted"], last["true"], Series(label=name, colour=colour, dash="-", variable="")))
    if not ends:
        return None
    of_text = not all(prm.from_policy for prm in data.first.recipe.prm.values())
    calibrated = ", calibrated P where it reads text" if of_text else ""
    axes.set_xlabel(f"predicted: (R + 1)/2, or R for a progress PRM{calibrated}")
    axes.set_ylabel("good lines, or true progress")
    axes.set_title("Reliability")
    end_labels(axes, ends)
    if data.first.recipe.labels.source == "mutation":
        truths = {"mutants'" if truth == "search" else truth for truth in truths}
    caption = (
        f"Against {' and '.join(sorted(truths))} labels, ten bins, area by number of lines. On the diagonal "
        "scores mean what they say."
    )
    return finish(
        figure, name="prm-reliability", caption=caption, alt="Reliability of PRM scores in ten bins.", size="half"
    )


def diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _measures(data: Experiment, name: str, truth: str) -> list[dict[str, Any]]:
    """One measure per seed, or none at all when a seed lacks it."""
    found = [(run.prm[name].measure or {}).get(truth) if name in run.prm else None for run in data.runs]
    return [measure for measure in found if measure is not None] if all(found) else []
