"""How figures look: one palette, one set of sizes; inline SVG whose colours follow the page (light, dark, print).

Matplotlib draws with the light palette. In the SVG every palette colour becomes a CSS variable, so the figure changes
with the page's theme; the PNG beside the report keeps the light palette. Line colours are distinct for the common
colour-vision deficiencies, and every series also has its own dash pattern or direct label.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psgpo.report.frames import Frame, Value

INK, MUTED, RULE = "#1d2129", "#667085", "#e3e6eb"
PALETTE = ("#0072b2", "#d55e00", "#00875f", "#b4508c", "#8c6d00", "#3d8fd1", "#7a4fbf")
"""Series colours, light theme. The dark ones stand in templates/tokens.css under the same numbers."""
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(PALETTE)
}
SIZES = {"third": (3.4, 2.55), "half": (5.2, 3.1), "full": (10.6, 3.4)}
"""Inches. All are shown at the same scale on a wide page, so text has one size."""

RC: Any = {
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "psgpo",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """How one policy is drawn, everywhere in the report."""

    label: str
    """What the figure writes beside it."""
    colour: str
    dash: str | tuple[float, tuple[float, ...]]
    """Matplotlib line style."""
    variable: str
    """The CSS variable of its colour, for the page's own keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One finished figure."""

    name: str
    """File name without `.png` and `.csv`."""
    caption: str
    alt: str
    """What the figure shows, for those who cannot see it."""
    size: str
    svg: str
    png: bytes
    frame: Frame
    """What is drawn, as numbers."""


P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Run a drawing function in the report's style and leave matplotlib's own settings alone."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return inside


def new_figure(size: str) -> tuple[Figure, Axes]:
    """An empty figure of one of `SIZES`. Call it inside a `styled` function."""
    figure = Figure(figsize=SIZES[size], layout="constrained")
    return figure, figure.add_subplot()


def finish(
    figure: Figure,
    *,
    name: str,
    caption: str,
    alt: str,
    size: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Value]],
) -> Plot:
    """Render to SVG for the page and PNG for the folder; `columns` and `rows` are what is drawn (see `Frame`)."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    figure.set_layout_engine("none")  # the places are found; finding them again would double the time
    figure.savefig(png, format="png", dpi=150, facecolor="white")
    frame = Frame(name=name, columns=tuple(columns), rows=tuple(map(tuple, rows)))
    inline = _inline(svg.getvalue(), alt)
    return Plot(name=name, caption=caption, alt=alt, size=size, svg=inline, png=png.getvalue(), frame=frame)


def write_plot(plot: Plot, folder: Path) -> Path:
    """The PNG, and beside it what is drawn as CSV. Returns the path of the PNG."""
    path = folder / f"{plot.name}.png"
    path.write_bytes(plot.png)
    path.with_suffix(".csv").write_text(plot.frame.csv(), encoding="utf-8")
    return path


def _inline(svg: str, alt: str) -> str:
    """An SVG document as an element of the page: theme colours, page font, no prologue, no names that clash."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sid="[a-z]+[0-9a-zA-Z]*_[0-9]+"', "", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([0-9.]+px|bold [0-9.]+px) [^;\"]*", _font, svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    # The header matplotlib writes: its size in points and two namespace declarations that HTML does not need.
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    assert view_box is not None
    body = svg[svg.index(">") + 1 :]
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    body = re.sub(r">\s+<", "><", body).strip()
    return f'<svg viewBox="{view_box.group(1)}" role="img" aria-label="{label}">{body}'


def _font(match: re.Match[str]) -> str:
    *weight, size = match.group(1).split()
    return f"font-size: {size}" + ("; font-weight: bold" if weight else "")


def end_labels(axes: Axes, labels: Sequence[tuple[float, float, Series]], *, gap: float = 0.075) -> None:
    """Write every series' name at the end of its line (x, y), moved apart where they would touch.

    Args:
        gap: smallest distance between two names, as a share of the axis' height.
    """
    if not labels:
        return
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda item: item[1])
    places: list[float] = []
    for _, y, _ in ordered:
        place = (y - low) / (high - low)
        places.append(max(place, places[-1] + gap) if places else place)
    overflow = places[-1] - 1.0
    if overflow > 0:  # push back down from the top
        places[-1] = 1.0
        for index in range(len(places) - 2, -1, -1):
            places[index] = min(places[index], places[index + 1] - gap)
    for (_, _, series), place in zip(ordered, places, strict=True):
        axes.annotate(
            series.label,
            xy=(1.0, place),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            fontsize=8,
            color=series.colour,
        )
