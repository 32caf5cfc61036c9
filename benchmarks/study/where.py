"""Figures of where line rewards help: over a cell's place on an axis, the length of the problem, of the response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from psgpo.evaluation.metrics import Estimate
from psgpo.report.figures import POINTS
from psgpo.report.style import INK, MUTED, Plot, finish, new_figure, styled
from study.cells import BASELINE, Study
from study.compare import Array, Side, pair, two_level_bootstrap
from study.figures import label_of, lines_figure, styles_of
from study.results import Results
from study.rows import OPERATIONS, quarters, sides


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
    short: dict[int, int] = {}
    for row, cell in enumerate(placed):
        other, reference = study.references(cell, arm)[0]
        pairs = pair(study, results, Side(cell=cell, arm=arm), Side(cell=other, arm=reference))
        if pairs.missing:
            short[row] = len(pairs.seeds)
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
    counted = [f"{at:,}" + (f"\n({short[row]} seeds)" if row in short else "") for row, at in enumerate(rows)]
    axes.set_yticks(range(len(rows)), counted)
    axes.set_xlabel(column_axis)
    axes.set_ylabel(row_axis)
    axes.grid(False)
    axes.tick_params(color=MUTED)
    axes.set_title(f"{arm}: points over the reference (its level); * clear of zero")
    alt = f"{arm} minus its reference: " + ", ".join(
        f"{row_axis} {rows[r]}, {column_axis} {columns[c]}: {100 * e.value:+.1f}" for (r, c), (e, _) in found.items()
    )
    numbers = [(rows[r], columns[c], e.value, e.low, e.high, e.count, level) for (r, c), (e, level) in found.items()]
    headings = (row_axis, column_axis, "difference", "low", "high", "seeds", "reference's pass@1")
    return finish(figure, name=name, caption="", alt=alt, size="half", columns=headings, rows=numbers)


@styled
def by_length(study: Study, results: Results, cells: Sequence[str], name: str) -> Plot | None:
    """Differences by the length of the response (PSGPO, Figure 4), of the arms whose curves the cells draw, each beside
    its first reference: quarters of each seed's problems by the tokens that the reference writes for them."""
    drawn: list[tuple[Side, list[tuple[float, list[Array]]]]] = []
    for side in (Side(cell=cell, arm=arm) for cell in cells for arm in study.cells[cell].curve_arms if arm != BASELINE):
        other, arm = study.references(side.cell, side.arm)[0]
        reference = Side(cell=other, arm=arm)
        found = quarters(results, pair(study, results, side, reference), reference)
        drawn += [(side, found)] if found else []
    if not drawn:
        return None
    figure, axes = new_figure("half")
    numbers: list[tuple[str, float, float, float, float, int]] = []
    labels = [label_of(study, cells, side.cell, side.arm) for side, _ in drawn]
    for number, ((_, found), series) in enumerate(zip(drawn, styles_of(labels).values(), strict=True)):
        points = [(tokens, two_level_bootstrap(difference_SP)) for tokens, difference_SP in found]
        x = np.array([tokens for tokens, _ in points])
        off = x * (1 + 0.012 * (number - (len(drawn) - 1) / 2))  # intervals side by side
        values, low, high = (np.array([getattr(e, of) for _, e in points]) for of in ("value", "low", "high"))
        drawing = {"color": series.colour, "linestyle": series.dash, "label": series.label}
        axes.errorbar(
            off, values, yerr=np.nan_to_num([values - low, high - values]), marker="o", markersize=4, **drawing
        )
        numbers += [(series.label, tokens, e.value, e.low, e.high, e.count) for tokens, e in points]
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.yaxis.set_major_formatter(POINTS)
    axes.set_title("Points over the reference, by length of the response")
    axes.set_xlabel("tokens of the reference's responses, mean of a quarter")
    axes.legend(loc="best", fontsize=8)
    alt = "Difference of pass@1 by tokens of the response: " + ", ".join(
        f"{label} at {tokens:.0f} {100 * value:+.1f}" for label, tokens, value, *_ in numbers
    )
    columns = ("arm", "tokens", "difference", "low", "high", "seeds")
    return finish(figure, name=name, caption="", alt=alt, size="half", columns=columns, rows=numbers)
