"""Figures of `psgpo prm eval`, from its summary: reliability, and how lines are told apart along the program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from psgpo.report.figures import PERCENT
from psgpo.report.frames import Value
from psgpo.report.stage_figures import diagonal
from psgpo.report.style import MUTED, PALETTE, Plot, Series, end_labels, finish, new_figure, styled, write_plot

Json = Mapping[str, Any]


def write_prm_figures(summary: Json, out: Path) -> list[Path]:
    """reliability.png and by_position.png with their CSV files, from a `summary.json` of `psgpo prm eval`."""
    plots = (reliability(summary["scorers"]), by_position(summary["scorers"]))
    return [write_plot(plot, out) for plot in plots if plot is not None]


@styled
def reliability(scorers: Json) -> Plot | None:
    """Mean prediction against the share of good lines per bin, before and after calibration, of models."""
    figure, axes = new_figure("half")
    diagonal(axes)
    drawn: list[tuple[str, Any]] = []
    kinds = [(name, way) for name, s in scorers.items() if "own" in s for way in s["calibration"]]
    largest = max((b["lines"] for name, way in kinds for b in scorers[name]["calibration"][way]["bins"]), default=0)
    for number, (name, way) in enumerate(kinds):
        found = scorers[name]["calibration"][way]
        bins = [b for b in found["bins"] if b["lines"]]
        if not bins:
            continue
        colour = PALETTE[number % len(PALETTE)]
        xs, ys = [b["predicted"] for b in bins], [b["true"] for b in bins]
        axes.plot(xs, ys, color=colour, linewidth=1, linestyle="-" if way == "calibrated" else "--")
        axes.scatter(
            xs,
            ys,
            s=[12 + 90 * b["lines"] / largest for b in bins],
            color=colour,
            alpha=0.55,
            linewidths=0,
            clip_on=False,
            label=f"{name}, {way}: ECE {found['ece']:.3f}",
        )
        drawn.append((f"{name}, {way}", found))
    if not drawn:
        return None
    axes.set_xlabel("predicted share of good lines")
    axes.set_ylabel("good lines")
    axes.set_title("Reliability")
    axes.legend(loc="upper left", markerscale=0.6)
    alt = "Reliability in ten bins of " + "; ".join(f"{name} (ECE {found['ece']:.3f})" for name, found in drawn)
    caption = "Ten bins, area by number of lines. On the diagonal scores mean what they say."
    rows = [(name, b["predicted"], b["true"], b["lines"]) for name, found in drawn for b in found["bins"] if b["lines"]]
    columns = ("scorer", "predicted", "true", "lines")
    return finish(figure, name="reliability", caption=caption, alt=alt, size="half", columns=columns, rows=rows)


@styled
def by_position(scorers: Json) -> Plot | None:
    """AUROC of every scorer per fifth of the program."""
    figure, axes = new_figure("half")
    ends: list[tuple[float, float, Series]] = []
    rows: list[tuple[Value, ...]] = []
    for number, (name, scorer) in enumerate(scorers.items()):
        fifths = scorer["fitted"]["by_position"]
        values = np.array([np.nan if f["auroc"] is None else f["auroc"] for f in fifths])
        if not np.isfinite(values).any() or (values[np.isfinite(values)] == 0.5).all():
            continue  # nothing to draw, or a constant: the line of chance stands for it
        colour, dash = PALETTE[number % len(PALETTE)], "-" if "own" in scorer else ":"
        axes.plot([(f["from"] + f["to"]) / 2 for f in fifths], values, color=colour, linestyle=dash, marker="o", ms=3.5)
        last = float(values[np.isfinite(values)][-1])
        rows += [(name, f["from"], f["to"], float(value)) for f, value in zip(fifths, values, strict=True)]
        ends.append((1.0, last, Series(label=name, colour=colour, dash=dash, variable="")))
    if not ends:
        return None
    axes.axhline(0.5, color=MUTED, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(min(0.4, axes.get_ylim()[0]), 1.02)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("share of the program written")
    axes.set_title("AUROC of lines along the program")
    end_labels(axes, ends)
    alt = "AUROC per fifth of the program, for " + ", ".join(series.label for *_, series in ends)
    return finish(
        figure,
        name="by_position",
        caption="0.5 is chance; dotted: baselines.",
        alt=alt,
        size="half",
        columns=("scorer", "from", "to", "auroc"),
        rows=rows,
    )
