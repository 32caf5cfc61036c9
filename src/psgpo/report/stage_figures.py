"""Figures of the labels and the PRMs. Each returns None without data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from psgpo.labeling.quality import shares_by_problem
from psgpo.report.aggregate import Experiment, SeedEstimate, over_seeds, share
from psgpo.report.cells import percent
from psgpo.report.figures import PERCENT
from psgpo.report.frames import Value
from psgpo.report.load import Array, Run, number, response_key
from psgpo.report.stage_tables import UNKNOWN, dig, label_intervals
from psgpo.report.style import INK, MUTED, PALETTE, Plot, Series, end_labels, finish, new_figure, styled

SEARCH, EXACT = PALETTE[1], INK
PRM_COLOURS = (PALETTE[0], PALETTE[6], PALETTE[2], PALETTE[4])
BINS = 10
UNDEFINED = (math.nan, math.nan, math.nan)


@styled
def agreement_by_operations(data: Experiment) -> Plot | None:
    """Share of lines whose label has the exact label's sign, by the problem's difficulty."""
    rows: list[tuple[int, float, float, float]] = []
    for level in sorted({level for run in data.runs for level in run.difficulty.values()}):
        found = [_agreement(run, level) for run in data.runs]
        known = share(over_seeds([each for each in found if each is not None])) if all(found) else None
        if known is not None:
            rows.append((level, known.mean, known.low, known.high))
    if not rows:
        return None
    figure, axes = new_figure("third")
    levels, means, lows, highs = zip(*rows, strict=True)
    axes.vlines(levels, lows, highs, color=SEARCH, linewidth=1)
    axes.plot(levels, means, color=SEARCH, marker="o", markersize=3.5)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("operations in the problem")
    axes.set_title("Lines that agree with exact labels")
    return finish(
        figure,
        name="label-agreement",
        caption=f"Labelled lines of failed responses. Bars: 95 % interval over {'problems' if one(data) else 'seeds'}.",
        alt="Share of lines of failed responses on which search and exact labels agree, by number of operations.",
        size="third",
        columns=("operations", "agreement", "low", "high"),
        rows=rows,
    )


def _agreement(run: Run, level: int) -> SeedEstimate | None:
    """Of one run, on the problems of one difficulty; None without a labelled line there."""
    of_level = [label for label in run.labels if run.difficulty.get(label.response.problem_id) == level]
    known = [(label, run.exact[response_key(label)]) for label in of_level if response_key(label) in run.exact]
    counts = shares_by_problem([a for a, _ in known], [b.last_on_track for _, b in known]).get("agreement", [])
    labelled = sum(all_lines for _, all_lines in counts)
    if not labelled:
        return None
    value = sum(agreeing for agreeing, _ in counts) / labelled
    low, high = label_intervals(run, of_level)["agreement"]
    return SeedEstimate(mean=value, low=low, high=high, n_problems=len(counts), per_seed=(value,))


def one(data: Experiment) -> bool:
    """Whether intervals are over problems: there is one run."""
    return len(data.runs) == 1


@styled
def last_good_line(data: Experiment) -> tuple[Plot, Plot] | None:
    """Where the last good line of failed responses lies: as the labels say and exactly, and by how much they differ."""
    per_run = [_last_lines(run) for run in data.runs]
    if not all(per_run):  # a seed that lacks labels is not left out
        return None
    found = [row for rows in per_run for row in rows]
    search, truth, apart = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    return _positions(search, truth), _distances(apart)


def _last_lines(run: Run) -> list[tuple[float, float, int]]:
    """Of every failed response: where its last good line is by its labels, and exactly, and how many lines apart."""
    found = []
    for label in run.labels:
        exact = run.exact.get(response_key(label))
        if exact is not None and exact.lines and not label.response.verdict.passed:
            lines = exact.lines
            distance = label.last_solvable - exact.last_on_track
            found.append((label.last_solvable / lines, exact.last_on_track / lines, distance))
    return found


def _positions(search: Array, truth: Array) -> Plot:
    figure, axes = new_figure("third")
    edges = np.linspace(0, 1, BINS + 1)
    rows: list[tuple[Value, ...]] = []
    for values, offset, colour, label in ((truth, -0.021, EXACT, "exact"), (search, 0.021, SEARCH, "labels")):
        part = np.histogram(np.clip(values, 0, 1 - 1e-9), edges)[0] / len(values)
        rows += [(label, *map(float, row)) for row in zip(edges[:-1], edges[1:], part, strict=True)]
        axes.bar((edges[:-1] + edges[1:]) / 2 + offset, part, width=0.04, color=colour, label=label)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("share of the program")
    axes.set_title("Where the last good line is")
    axes.legend()
    alt = f"Histogram over {len(search)} failed responses of the last good line's position, by labels and exactly."
    return finish(
        figure,
        name="last-good-line",
        caption=f"{len(search)} failed responses, by where their last good line lies.",
        alt=alt,
        size="third",
        columns=("source", "from", "to", "share of responses"),
        rows=rows,
    )


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
    found = f"{percent(float(np.mean(apart == 0)), 0)} exact, mean {apart.mean():+.1f}".replace("-", "−")
    alt = f"Difference in lines over {len(apart)} failed responses: {found}."
    return finish(
        figure,
        name="last-good-line-distance",
        caption=f"{found} lines. Left of zero the labels call good lines bad.",
        alt=alt,
        size="third",
        columns=("lines", "share of responses"),
        rows=[(float(x), float(share)) for x, share in zip(xs, counts, strict=True)],
    )


@styled
def auroc_by_position(data: Experiment) -> Plot | None:
    """AUROC of every PRM per fifth of the program, against both truths."""
    figure, axes = new_figure("half")
    ends: list[tuple[float, float, Series]] = []
    drawn: list[tuple[Value, ...]] = []
    for index, name in enumerate(data.first.recipe.prm):
        for truth, dash in (("exact", "-"), ("search", ":")):
            rows = _measures(data, name, truth)
            if not rows:
                continue
            found = [_fifth(rows, fifth) for fifth in range(len(rows[0]["by_position"]))]
            means = np.array([math.nan if e is None else e.mean for e in found])
            colour = PRM_COLOURS[index % len(PRM_COLOURS)]
            places = [(fifth["from"], fifth["to"]) for fifth in rows[0]["by_position"]]
            xs = [(start + stop) / 2 for start, stop in places]
            axes.plot(xs, means, color=colour, linestyle=dash, marker="o", markersize=3.5)
            bounds = [(x, e) for x, e in zip(xs, found, strict=True) if e is not None and math.isfinite(e.low)]
            lows, highs = [e.low for _, e in bounds], [e.high for _, e in bounds]
            axes.fill_between([x for x, _ in bounds], lows, highs, color=colour, alpha=0.1, linewidth=0)
            drawn += [
                (name, truth, *place, *(UNDEFINED if e is None else (e.mean, e.low, e.high)))
                for place, e in zip(places, found, strict=True)
            ]
            known = np.flatnonzero(np.isfinite(means))
            if len(known):
                label = f"{name}, {truth}"
                ends.append((1.0, float(means[known[-1]]), Series(label=label, colour=colour, dash=dash, variable="")))
    if not ends:
        return None
    axes.axhline(0.5, color=MUTED, linewidth=1)
    axes.set_ylim(min(0.4, axes.get_ylim()[0]), 1.02)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("share of the program written")
    axes.set_title("AUROC of line scores along the program")
    end_labels(axes, ends)
    over = "problems" if one(data) else "seeds"
    return finish(
        figure,
        name="prm-auroc",
        caption=f"Solid: against exact labels; dotted: against search labels; 0.5 is chance. Bands: 95 % over {over}.",
        alt="AUROC of PRM scores per fifth of the program.",
        size="half",
        columns=("prm", "against", "from", "to", "auroc", "low", "high"),
        rows=drawn,
    )


def _fifth(rows: Sequence[dict[str, Any]], fifth: int) -> SeedEstimate | None:
    """AUROC in one fifth of the program; None as soon as one seed has one class only in it."""
    found = []
    for row in rows:
        value = dig(row["by_position"][fifth], "auroc")
        intervals = (row.get("intervals") or {}).get("auroc_by_position")
        low, high = map(number, intervals[fifth]) if intervals else UNKNOWN
        found.append(SeedEstimate(mean=value, low=low, high=high, n_problems=None, per_seed=(value,)))
    return None if any(math.isnan(e.mean) for e in found) else share(over_seeds(found))


@styled
def reliability(data: Experiment) -> Plot | None:
    """Mean prediction against mean truth per bin of prediction, against exact labels where there are any."""
    figure, axes = new_figure("half")
    diagonal(axes)
    ends: list[tuple[float, float, Series]] = []
    truths: set[str] = set()
    drawn: list[tuple[Value, ...]] = []
    for index, name in enumerate(data.first.recipe.prm):
        truth = "exact" if _measures(data, name, "exact") else "search"
        bins = [b for row in _measures(data, name, truth) for b in row["calibration"]["bins"] if b["lines"]]
        if not bins:
            continue
        truths.add(truth)
        drawn += [(name, truth, b["predicted"], b["true"], b["lines"]) for b in bins]
        colour = PRM_COLOURS[index % len(PRM_COLOURS)]
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
        figure,
        name="prm-reliability",
        caption=caption,
        alt="Reliability of PRM scores in ten bins.",
        size="half",
        columns=("prm", "against", "predicted", "true", "lines"),
        rows=drawn,
    )


def diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _measures(data: Experiment, name: str, truth: str) -> list[dict[str, Any]]:
    """One measure per seed, or none at all when a seed lacks it."""
    found = [(run.prm[name].measure or {}).get(truth) if name in run.prm else None for run in data.runs]
    return [measure for measure in found if measure is not None] if all(found) else []
