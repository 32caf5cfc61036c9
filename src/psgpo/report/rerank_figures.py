"""Figures of `psgpo rerank`, from its summary: pass@1 of the chosen program over n, and over sampled tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from psgpo.report.figures import PERCENT
from psgpo.report.load import number
from psgpo.report.style import INK, MUTED, PALETTE, Plot, Series, finish, new_figure, styled, write_plot

Json = Mapping[str, Any]
FRAME = {
    "random": Series(label="random", colour=MUTED, dash=":", variable="var(--muted)"),
    "oracle": Series(label="oracle", colour=INK, dash="--", variable="var(--ink)"),
}
"""What no method can fall below by choosing well, or rise above."""
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (4, 1.2)),
    (0, (1, 1)),
    (0, (4, 1.2, 1, 1.2)),
    (0, (4, 1.2, 1, 1.2, 1, 1.2)),
    (0, (8, 1.2)),
)
"""One after the other for the methods of one colour."""
AGGREGATES = ("-last", "-mean", "-min", "-product", "-sum")
"""What is behind a judge's name: one colour for each judge."""


def write_rerank_figures(summary: Json, out: Path) -> list[Path]:
    """`over-n.png` where the curves have n, and `over-tokens.png`; the curves as CSV beside them."""
    written = []
    has_n = "n" in summary["methods"]["random"]["curve"][0]
    for axis in ("n", "tokens") if has_n else ("tokens",):
        plot = curves(summary["methods"], axis)
        written.append(write_plot(plot, out))
    return written


@styled
def curves(methods: Json, axis: str) -> Plot:
    """Every method over `axis` (n or tokens); behind the end of the curves, side by side, the 95 % interval of each."""
    figure, axes = new_figure("half")
    figure.set_size_inches(7.2, 4.2)  # up to a dozen names stand beside the curves
    ends: list[tuple[float, float, Series]] = []
    for series, method in zip(series_of(list(methods)), methods.values(), strict=True):
        points = method["curve"]
        xs, ys = [point[axis] for point in points], [point["value"] for point in points]
        axes.plot(xs, ys, color=series.colour, linestyle=series.dash)
        ends.append((float(xs[-1]), float(ys[-1]), series))
    first, last = (float(methods["random"]["curve"][place][axis]) for place in (0, -1))
    if axis == "n" and last > 16:
        axes.set_xscale("log", base=2)
        ticks = LogLocator(base=2).tick_values(first, last)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ticks = MaxNLocator(8, integer=True).tick_values(first, last)
    axes.set_xticks([tick for tick in ticks if first <= tick <= last])  # none among the intervals
    best_first = sorted(ends, key=lambda end: -end[1])
    _intervals(axes, [(series, methods[series.label]["curve"][-1]) for *_, series in best_first], first, last)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PERCENT)
    largest = "n" if axis == "n" else "budget"
    bars = f"bars, best first: 95 % over problems at the largest {largest}"
    axes.set_xlabel(f"{'n responses drawn' if axis == 'n' else 'sampled tokens per problem'}\n{bars}")
    axes.set_title("pass@1 of the chosen program")
    axes.legend(
        handles=[Line2D([], [], color=s.colour, linestyle=s.dash, label=s.label) for *_, s in best_first],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.0,
        handlelength=2.4,
        labelcolor="linecolor",
    )
    exact = "Exact over all subsets of the responses." if axis == "n" else "At equal sampled tokens."
    beam = " Of beam only the last point is a run of its budget." if "beam" in methods else ""
    caption = f"{exact}{beam} B{bars[1:]}; those of every point are in the CSV file."
    alt = f"pass@1 of the chosen program over {axis}, for " + ", ".join(
        f"{s.label} ({100 * y:.1f} %)" for _, y, s in ends
    )
    return finish(
        figure,
        name=f"over-{axis}",
        caption=caption,
        alt=alt,
        size="half",
        columns=("method", axis, "value", "low", "high"),
        rows=[
            (name, *(number(p.get(key)) for key in (axis, "value", "low", "high")))
            for name in methods
            for p in methods[name]["curve"]
        ],
    )


def _intervals(axes: Axes, found: Sequence[tuple[Series, Json]], first: float, last: float) -> None:
    """The interval of each method at the end of the curves, right of it: more than a few bands would hide each other.

    Args:
        found: each method's series and last point, from left to right.
        first, last: where the curves begin and end on the horizontal axis, in its own scale.
    """
    there, back = axes.xaxis.get_transform(), axes.xaxis.get_transform().inverted()
    begin, end = there.transform([first, last])
    width = max(end - begin, 1.0) / 50
    xs = back.transform(end + width * np.arange(1, len(found) + 1))
    for x, (series, point) in zip(xs, found, strict=True):
        axes.vlines(x, point["low"], point["high"], color=series.colour, linewidth=1.2)
        axes.plot([x], [point["value"]], "o", color=series.colour, markersize=2.5)
    axes.set_xlim(*back.transform([begin - width, end + width * (len(found) + 1)]))


def series_of(names: Sequence[str]) -> list[Series]:
    """A colour for each judge, a dash for each of its aggregates; an eighth judge goes on with the first one's."""
    colours, used, found = dict[str, int](), [0] * len(PALETTE), []
    for name in names:
        if name in FRAME:
            found.append(FRAME[name])
            continue
        judge = next((name.removesuffix(end) for end in AGGREGATES if name.endswith(end)), name)
        colour = colours.setdefault(judge, len(colours) % len(PALETTE))
        dash = DASHES[used[colour] % len(DASHES)]
        found.append(Series(label=name, colour=PALETTE[colour], dash=dash, variable=f"var(--c{colour})"))
        used[colour] += 1
    return found
