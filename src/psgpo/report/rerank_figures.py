"""Figures of `psgpo rerank`, from its summary: pass@1 of the chosen program over n, and over sampled tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, MaxNLocator

from psgpo.report.figures import PERCENT
from psgpo.report.load import number
from psgpo.report.style import INK, MUTED, PALETTE, Plot, Series, end_labels, finish, new_figure, styled, write_plot

Json = Mapping[str, Any]
FRAME = {
    "random": Series(label="random", colour=MUTED, dash=":", variable="var(--muted)"),
    "oracle": Series(label="oracle", colour=INK, dash="--", variable="var(--ink)"),
}
"""What no method can fall below by choosing well, or rise above."""
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = ("-", (0, (4, 1, 1, 1)), (0, (1, 1)))
"""The colours go round with the next dash."""


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
    """Every method over `axis` (n or tokens), with the 95 % interval of those that do not frame the others."""
    figure, axes = new_figure("half")
    figure.set_size_inches(7.2, 4.2)  # up to a dozen names stand beside the curves
    ends: list[tuple[float, float, Series]] = []
    numbered = [name for name in methods if name not in FRAME]
    for name, method in methods.items():
        series = FRAME[name] if name in FRAME else _series(name, numbered.index(name))
        points = method["curve"]
        xs, ys = [point[axis] for point in points], [point["value"] for point in points]
        axes.plot(xs, ys, color=series.colour, linestyle=series.dash)
        if name not in FRAME and len(numbered) <= len(PALETTE):
            low, high = [point["low"] for point in points], [point["high"] for point in points]
            axes.fill_between(xs, low, high, color=series.colour, alpha=0.08, linewidth=0)
        ends.append((float(xs[-1]), float(ys[-1]), series))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.yaxis.set_major_formatter(PERCENT)
    if axis == "n" and ends[0][0] > 16:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("n responses drawn" if axis == "n" else "sampled tokens per problem")
    axes.set_title("pass@1 of the chosen program")
    end_labels(axes, ends, gap=0.05)
    caption = "Exact over all subsets of the responses." if axis == "n" else "At equal sampled tokens."
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


def _series(name: str, number: int) -> Series:
    turn, colour = divmod(number, len(PALETTE))
    return Series(label=name, colour=PALETTE[colour], dash=DASHES[turn % len(DASHES)], variable=f"var(--c{colour})")
