"""Figures of policies: training, best-of-K, differences by length and by difficulty. Each returns None without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from psgpo.report.aggregate import BASELINE, Bins, Experiment, SeedEstimate, difference, pass_at_k
from psgpo.report.frames import Value
from psgpo.report.load import Array
from psgpo.report.style import INK, MUTED, PALETTE, Plot, Series, end_labels, finish, new_figure, styled

PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %".replace("-", "−"))
POINTS = FuncFormatter(lambda value, _: f"{100 * value:+.3g}".replace("-", "−") if abs(value) > 1e-9 else "0")


def series_of(data: Experiment) -> dict[str, Series]:
    """Colour and dash of every policy, the same in the whole report. Oracle arms are dashed."""
    series = {
        "sft": Series(label="sft", colour=MUTED, dash=":", variable="var(--muted)"),
        BASELINE: Series(label=BASELINE, colour=INK, dash="-", variable="var(--ink)"),
    }
    for index, arm in enumerate(arm for arm in data.arms if arm != BASELINE):
        oracle = data.is_oracle(arm)
        dash: str | tuple[float, tuple[float, ...]] = "-" if index < len(PALETTE) else (0, (4, 1, 1, 1))
        number = index % len(PALETTE)
        series[arm] = Series(
            label=f"{arm} (exact oracle)" if oracle else arm,
            colour=PALETTE[number],
            dash="--" if oracle else dash,
            variable=f"var(--c{number})",
        )
    return series


def smooth(values: Array, window: int) -> Array:
    """Mean of the last `window` values at every step (fewer at the start), NaN left out. Shape: as `values`."""
    tails = [values[max(0, stop - window) : stop] for stop in range(1, len(values) + 1)]
    known = [tail[np.isfinite(tail)] for tail in tails]
    return np.array([tail.mean() if len(tail) else np.nan for tail in known])


def _widen(axes: Axes) -> None:
    """A constant gets an axis around it, not one that magnifies rounding."""
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    if high - low < 1e-3 * max(abs(middle), 1e-3):
        axes.set_ylim(middle - max(abs(middle), 0.1) / 2, middle + max(abs(middle), 0.1) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One training metric, as one small figure."""

    metric: str
    title: str
    caption: str
    """What the number is."""
    percent: bool = False
    floor: float = -math.inf
    """The axis goes no lower: a critic that has learned nothing yet can be arbitrarily bad."""
    where_used: bool = False
    """Not drawn where it is 0 throughout: no arm has it."""


LEARNING = (
    Curve(
        metric="pass_rate",
        title="Training pass rate",
        percent=True,
        caption="Share of the step's responses that pass all tests of their training problem.",
    ),
    Curve(
        metric="kl",
        title="KL to the SFT policy, nats",
        caption="How far the policy has moved, summed over a response.",
    ),
    Curve(metric="lines_per_response", title="Lines per response", caption="Code lines, comments among them."),
)
DIAGNOSTICS = (
    Curve(
        metric="reward_unit_test",
        title="Reward from unit tests",
        caption="Mean over responses; without line rewards this is all there is.",
    ),
    Curve(
        metric="reward_partial",
        title="Reward from tests passed in part",
        where_used=True,
        caption="Partial credit of responses that fail, mean over responses. 0 for arms without it.",
    ),
    Curve(
        metric="reward_lines",
        title="Reward from lines",
        caption="Sum over a response's lines, mean over responses. 0 for arms without line rewards.",
    ),
    Curve(
        metric="explained_variance",
        title="Explained variance of the critic",
        floor=-1.0,
        caption="1: the critic predicts every return; 0: no better than their mean. Cut off at −1.",
    ),
    Curve(
        metric="entropy",
        title="Entropy, nats per token",
        caption="At 0 the policy always writes the same.",
    ),
    Curve(
        metric="clip_fraction",
        title="Clipped policy ratios",
        percent=True,
        caption="Share of tokens at which PPO's clip held the update back.",
    ),
    Curve(
        metric="all_fail_share",
        title="Prompts whose responses all fail",
        percent=True,
        caption="Unit tests alone teach nothing from these.",
    ),
    Curve(
        metric="truncated_share",
        title="Responses cut off",
        percent=True,
        caption="Share that reached the most tokens allowed without an end.",
    ),
    Curve(
        metric="comment_ratio",
        title="Comment and blank lines",
        percent=True,
        caption="Share of lines that do nothing; rises where a policy games line rewards.",
    ),
    Curve(
        metric="noop_share",
        title="Code lines that do nothing",
        percent=True,
        caption="Share of code lines, such as pass or x = x; rises where a policy games line rewards.",
    ),
    Curve(metric="tokens_per_response", title="Tokens per response", caption="Sampled tokens, mean over responses."),
)


def training_curve(data: Experiment, series: Mapping[str, Series], curve: Curve) -> Plot | None:
    """One metric over RL steps, a line per arm; with several seeds their mean and the range between them."""
    lines = [(arm, series[arm], columns) for arm in data.arms if (columns := _of_all_seeds(data, arm, curve))]
    return _over_steps(lines, curve, title=curve.title, name=f"rl-{_slug(curve.metric)}", what="arm")


def training_curve_of_runs(
    groups: Sequence[tuple[str, Experiment]], series: Mapping[str, Series], arm: str, curve: Curve, suffix: str
) -> Plot | None:
    """One metric of one arm over RL steps, a line per recipe; None unless two recipes have it."""
    trained = [(label, data) for label, data in groups if arm in data.arms]
    lines = [(label, series[label], columns) for label, data in trained if (columns := _of_all_seeds(data, arm, curve))]
    if len(lines) < 2:
        return None
    name = f"runs-{_slug(curve.metric)}-{arm}{suffix}"
    return _over_steps(lines, curve, title=f"{curve.title}: {arm}", name=name, what="run")


def _of_all_seeds(data: Experiment, arm: str, curve: Curve) -> list[Array]:
    """The metric of every run, or nothing: a missing seed, or one that is unfinished, is not averaged away."""
    columns = [run.rl[arm][curve.metric] for run in data.with_training(arm) if curve.metric in run.rl[arm]]
    columns = [column for column in columns if np.isfinite(column).any()]
    return columns if len(columns) == len(data.runs) else []


def _slug(metric: str) -> str:
    return metric.replace("_", "-")


@styled
def _over_steps(
    lines: Sequence[tuple[str, Series, Sequence[Array]]], curve: Curve, *, title: str, name: str, what: str
) -> Plot | None:
    """`lines`: what each is called, how it is drawn, the metric of each of its seeds."""
    drawn_values = [column for *_, columns in lines for column in columns]
    if not lines or (curve.where_used and not any(np.any(column > 0) for column in drawn_values)):
        return None
    figure, axes = new_figure("third")
    seeds = max(len(columns) for *_, columns in lines)
    rows: list[tuple[Value, ...]] = []
    for label, style, columns in lines:
        length = len(columns[0])
        window = max(1, length // 10)
        values = np.stack([smooth(column, window) for column in columns])
        steps = np.arange(1, length + 1)
        mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
        axes.plot(steps, mean, color=style.colour, linestyle=style.dash)
        if len(values) > 1:
            axes.fill_between(steps, low, high, color=style.colour, alpha=0.15, linewidth=0)
        drawn = (steps, mean, low, high) if seeds > 1 else (steps, mean)
        rows += [(label, *map(float, row)) for row in zip(*drawn, strict=True)]
    axes.set_title(title)
    axes.set_xlabel("RL step")
    axes.margins(x=0.02)
    _widen(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(bottom=max(curve.floor, low))
    if curve.percent:  # a share: nothing below 0 or above 1 but a margin
        margin = 0.04 * min(high - low, 1.0)
        axes.set_ylim(max(low, -margin), min(high, 1 + margin))
        axes.yaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return finish(
        figure,
        name=name,
        caption=curve.caption,
        alt=f"{title} over RL steps for {', '.join(label for label, *_ in lines)}.",
        size="third",
        columns=(what, "step", curve.metric, *(("lowest seed", "highest seed") if seeds > 1 else ())),
        rows=rows,
    )


@styled
def forest(
    rows: Sequence[tuple[Series, SeedEstimate]], *, name: str, title: str, xlabel: str, caption: str
) -> Plot | None:
    """Differences with their 95 % intervals, one under the other, and each seed's value."""
    if not rows:
        return None
    figure, axes = new_figure("half")
    figure.set_figheight(max(figure.get_figheight(), 0.9 + 0.26 * len(rows)))
    axes.axvline(0, color=INK, linewidth=1)
    for y, (style, estimate) in enumerate(reversed(rows)):
        axes.plot([estimate.low, estimate.high], [y, y], color=style.colour, linestyle=style.dash, linewidth=2)
        axes.plot([estimate.mean], [y], "o", color=style.colour, markersize=6)
        if len(estimate.per_seed) > 1:
            axes.plot(estimate.per_seed, [y - 0.22] * len(estimate.per_seed), "|", color=style.colour, markersize=6)
    clipped = _limit(axes, [estimate for _, estimate in rows])
    axes.set_yticks(range(len(rows)), [style.label for style, _ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(POINTS)
    axes.set_xlabel(xlabel)
    axes.set_title(title)
    seeds = max(len(estimate.per_seed) for _, estimate in rows)
    what = "seeds and problems; ticks are the seeds" if seeds > 1 else "problems"
    alt = "; ".join(
        f"{s.label} {100 * e.mean:+.1f} points ({100 * e.low:+.1f} to {100 * e.high:+.1f})" for s, e in rows
    )
    edge = "; bars that reach the edge go on" if clipped else ""
    return finish(
        figure,
        name=name,
        caption=f"{caption} Bars: 95 % interval over {what}{edge}.",
        alt=f"{title}. {alt}",
        size="half",
        columns=("policy", "difference", "low", "high", *(f"seed {number + 1}" for number in range(seeds))),
        rows=[
            (s.label, e.mean, e.low, e.high, *e.per_seed, *([math.nan] * (seeds - len(e.per_seed)))) for s, e in rows
        ],
    )


def difference_to_baseline(data: Experiment, series: Mapping[str, Series]) -> Plot | None:
    """Every arm against the baseline of the same run."""
    found = [(series[arm], difference(data, arm)) for arm in ("sft", *data.arms) if arm != BASELINE]
    return forest(
        [(style, estimate) for style, estimate in found if estimate is not None],
        name="difference-to-baseline",
        title="Difference to the RL baseline",
        xlabel="pass@1 minus the baseline's, percentage points",
        caption="Right of zero is better than RL with unit tests alone, on the same problems.",
    )


def _limit(axes: Axes, estimates: Sequence[SeedEstimate]) -> bool:
    """Let the values set the axis: intervals of two seeds can be ten times as wide. True when one is cut off."""
    values = [0.0, *(value for estimate in estimates for value in (estimate.mean, *estimate.per_seed))]
    room = max(0.02, max(values) - min(values))
    low, high = min(values) - room, max(values) + room
    ends = [(e.low, e.high) for e in estimates if math.isfinite(e.low)]
    axes.set_xlim(
        max(low, min([low / 2 + high / 2, *(a for a, _ in ends)]) - 0.05 * room),
        min(high, max([low / 2 + high / 2, *(b for _, b in ends)]) + 0.05 * room),
    )
    return any(a < low or b > high for a, b in ends)


@styled
def best_of_k(data: Experiment, series: Mapping[str, Series]) -> Plot | None:
    """Paper, figure 3: share of problems with at least one passing response among K, over K."""
    figure, axes = new_figure("half")
    ends: list[tuple[float, float, Series]] = []
    rows: list[tuple[Value, ...]] = []
    for policy in data.policies:
        most = data.first.recipe.evaluation.samples
        found = [(k, e) for k in range(1, most + 1) if (e := pass_at_k(data, policy, k)) is not None]
        if not found:
            continue
        ks, style = [k for k, _ in found], series[policy]
        mean, low, high = ([getattr(e, part) for _, e in found] for part in ("mean", "low", "high"))
        axes.plot(ks, mean, color=style.colour, linestyle=style.dash, marker="o", markersize=2.5)
        axes.fill_between(ks, low, high, color=style.colour, alpha=0.1, linewidth=0)
        rows += [(policy, *map(float, row)) for row in zip(ks, mean, low, high, strict=True)]
        ends.append((float(ks[-1]), mean[-1], style))
    if not ends:
        return None
    if ends[0][0] > 16:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("K responses drawn")
    axes.set_title("Problems with a passing response among K")
    end_labels(axes, ends)
    over = "seeds and problems" if len(data.runs) > 1 else "problems"
    return finish(
        figure,
        name="best-of-k",
        caption="Best-of-K with a perfect judge (PSGPO, figure 3): unbiased pass@K over the test problems. Bands: 95 % "
        f"interval of each policy over {over}; they share the problems, so bands that overlap may still differ.",
        alt="Share of problems solved by the best of K responses, for " + ", ".join(s.label for *_, s in ends),
        size="half",
        columns=("policy", "k", "pass@k", "low", "high"),
        rows=rows,
    )


@styled
def difference_by(
    data: Experiment, series: Mapping[str, Series], bins: Bins, *, name: str, title: str, xlabel: str, caption: str
) -> Plot | None:
    """pass@1 difference to the baseline within bins of problems (paper, figure 4), with 95 % intervals."""
    found = {arm: [difference(data, arm, keep) for _, keep in bins] for arm in data.arms if arm != BASELINE}
    shown = {arm: row for arm, row in found.items() if any(row)}
    if not shown:
        return None
    figure, axes = new_figure("half")
    axes.axhline(0, color=INK, linewidth=1)
    width = 0.7 / len(shown)
    rows: list[tuple[Value, ...]] = []
    for index, (arm, row) in enumerate(shown.items()):
        colour = series[arm].colour
        points = [(x + (index - (len(shown) - 1) / 2) * width, e) for x, e in enumerate(row) if e is not None]
        axes.vlines([x for x, _ in points], [e.low for _, e in points], [e.high for _, e in points], color=colour)
        axes.plot([x for x, _ in points], [e.mean for _, e in points], "o", color=colour, markersize=4)
        named = [(label, e) for (label, _), e in zip(bins, row, strict=True) if e is not None]
        rows += [(arm, label, e.n_problems, e.mean, e.low, e.high) for label, e in named]
    counts = [max((e.n_problems for e in column if e), default=0) for column in zip(*shown.values(), strict=True)]
    axes.set_xticks(range(len(bins)), [f"{label}\n({n})" for (label, _), n in zip(bins, counts, strict=True)])
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(f"{xlabel} (problems)")
    axes.set_title(title)
    axes.yaxis.set_major_formatter(POINTS)
    axes.set_ylabel("percentage points")
    return finish(
        figure,
        name=name,
        caption=caption,
        alt=f"{title}, for {', '.join(shown)}.",
        size="half",
        columns=("arm", xlabel, "problems", "difference", "low", "high"),
        rows=rows,
    )
