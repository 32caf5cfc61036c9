"""Tables of single stages: training, labels, PRMs, the strength of the hidden tests. Pure.

With several seeds a cell is the mean over seeds with the smallest and largest value under it, or missing as soon as one
seed lacks it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from psgpo.report.aggregate import Experiment
from psgpo.report.load import Run, number
from psgpo.report.tables import MISSING, Cell, Column, Table, cell, percent, plain

Show = Callable[[float], str]


def two(value: float) -> str:
    """Two decimals."""
    return plain(value, 2)


def three(value: float) -> str:
    """Three decimals."""
    return plain(value, 3)


def whole(value: float) -> str:
    """No decimals."""
    return plain(value, 0)


def dig(record: Mapping[str, Any] | None, path: str) -> float:
    """`dig(r, "a.b")` is r["a"]["b"] as a float; NaN when it, or anything on the way, is null or absent."""
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return number(value)


def over_seeds(values: Sequence[float], show: Show) -> Cell:
    """One value per seed as one cell."""
    if not values or any(math.isnan(value) for value in values):
        return MISSING
    low, high = show(min(values)).removesuffix(" %"), show(max(values)).removesuffix(" %")
    note = f"{low} to {high}" if low != high else ""
    return cell(float(np.mean(values)), show, note)


TRAINING: tuple[tuple[str, str, str, Show], ...] = (
    ("pass_rate", "Pass rate", "", percent),
    ("kl", "KL", "nats", two),
    ("entropy", "Entropy", "nats/token", two),
    ("clip_fraction", "Clipped", "ratios", percent),
    ("explained_variance", "Explained", "variance", two),
    ("all_fail_share", "All fail", "prompts", percent),
    ("truncated_share", "Cut off", "responses", percent),
    ("comment_ratio", "Comments", "lines", percent),
    ("tokens_per_second", "Tokens", "per second", whole),
    ("seconds_step", "Step", "seconds", two),
)


def training_table(data: Experiment) -> Table | None:
    """Metrics of every arm over the last tenth of its RL steps."""
    if not any(run.rl[arm] for run in data.runs for arm in data.arms):
        return None
    columns = (Column(title="Arm", numeric=False), *(Column(title=title, help=help) for _, title, help, _ in TRAINING))
    rows = []
    for arm in data.arms:
        cells = [Cell(text=arm, kind="head", series=arm)]
        for metric, _, _, show in TRAINING:
            found = [_last_tenth(run, arm, metric) for run in data.runs]
            cells.append(cell(float(np.mean(found)), show))
        rows.append(tuple(cells))
    return Table(columns=columns, rows=tuple(rows))


def _last_tenth(run: Run, arm: str, metric: str) -> float:
    column = run.rl[arm].get(metric)
    if column is None or not len(column):
        return math.nan
    tail = column[-max(1, len(column) // 10) :]
    return float(np.nanmean(tail)) if np.isfinite(tail).any() else math.nan


COST: tuple[tuple[str, str, Show], ...] = (
    ("responses", "Responses labelled", whole),
    ("failed_responses", "Failed among them (only these are searched)", whole),
    ("per_failed_response.completions", "Completions per failed response", plain),
    ("per_failed_response.tokens", "Tokens generated per failed response", whole),
    ("per_failed_response.executions", "Programs run per failed response", plain),
    ("per_failed_response.cpu_seconds", "CPU seconds per failed response", two),
    ("per_line.completions", "Completions per line of a failed response", two),
    ("early_stop_saving", "Saved by stopping a probe at its first pass", percent),
    ("sharing_saving", "Probes answered without drawing (shared or known)", percent),
)
QUALITY: tuple[tuple[str, str, Show], ...] = (
    ("labelled", "Lines that have a label", percent),
    ("agreement", "… with the same sign as the exact one", percent),
    ("majority", "… the best constant label would agree on", percent),
    ("precision_positive", "Lines labelled +1 that are exactly +1", percent),
    ("precision_negative", "Lines labelled −1 that are exactly −1", percent),
    ("last_line_exact", "Last good line found exactly", percent),
    ("last_line_within_one", "… within one line", percent),
    ("relative_position", "Mean position of the last good line, labels", two),
    ("relative_position_exact", "… exact", two),
    ("nothing_salvageable", "Responses with nothing salvageable, labels", percent),
    ("nothing_salvageable_exact", "… exact", percent),
    ("proved_off_track_lines", "Exact −1 lines proved completable by a passing completion", percent),
)


def label_table(data: Experiment, part: str) -> Table | None:
    """`cost` or `quality` (the `part`) of the labels."""
    records = [(run.label_summary or {}).get(part) for run in data.runs]
    if not any(records):
        return None
    strategy = data.first.recipe.labels.strategy.replace("-", " ").capitalize()
    rows = tuple(
        (Cell(text=title, kind="label"), over_seeds([dig(record, key) for record in records], show))
        for key, title, show in (COST if part == "cost" else QUALITY)
    )
    first = Column(title="" if part == "cost" else "On failed responses", numeric=False)
    return Table(columns=(first, Column(title=strategy)), rows=rows)


SCAN: tuple[tuple[str, str, str, Show], ...] = (
    ("linear_scan.cost.failed_responses", "linear_scan.cost.failed_responses", "Failed responses", whole),
    ("same_responses.completions", "linear_scan.completions", "Completions drawn", whole),
    *(
        (f"same_responses.quality.{key}", f"linear_scan.quality.{key}", title, show)
        for key, title, show in QUALITY
        if key == "last_line_exact" or not (key == "majority" or key.endswith("exact"))
    ),
)


def scan_table(data: Experiment) -> Table | None:
    """The search against a linear scan of the same failed responses, where that was run."""
    summaries = [run.label_summary for run in data.runs]
    if not any(summary and summary.get("linear_scan") for summary in summaries):
        return None
    strategy = data.first.recipe.labels.strategy.replace("-", " ").capitalize()
    rows = []
    for ours, theirs, title, show in SCAN:
        pair = [over_seeds([dig(summary, key) for summary in summaries], show) for key in (ours, theirs)]
        if pair != [MISSING, MISSING]:
            rows.append((Cell(text=title, kind="label"), *pair))
    columns = (Column(title="", numeric=False), Column(title=strategy))
    return Table(columns=(*columns, Column(title="Linear scan")), rows=tuple(rows))


MUTANTS: tuple[tuple[str, str], ...] = (
    ("problems.used", "Problems with a reference solution that passes"),
    ("candidates", "Changes proposed"),
    ("programs.pass", "Programs that pass everything"),
    ("programs.fail", "Programs that fail"),
    ("false_positives.bug.passed_all", "Planted bugs that no test found"),
)


def mutant_table(data: Experiment) -> Table | None:
    """How many mutants there are of which kind."""
    summaries = [run.mutant_summary for run in data.runs]
    if not all(summaries):
        return None
    rows = tuple(
        (Cell(text=title, kind="label"), over_seeds([dig(summary, key) for summary in summaries], whole))
        for key, title in MUTANTS
    )
    return Table(columns=(Column(title="", numeric=False), Column(title="Mutants")), rows=rows)


PRM: tuple[tuple[str, str, str, Show], ...] = (
    ("lines.accuracy", "Accuracy", "of lines", percent),
    ("lines.majority", "Majority", "constant guess", percent),
    ("lines.auroc", "AUROC", "", three),
    ("lines.f1_good", "F1", "good lines", three),
    ("lines.f1_bad", "F1", "bad lines", three),
    ("first_error.exact", "First error", "exactly", percent),
    ("first_error.within_one", "First error", "± 1 line", percent),
    ("processbench.f1", "F1", "ProcessBench", three),
    ("calibration.ece", "ECE", "10 bins", three),
)
TRUTHS = ("search", "exact")


def prm_table(data: Experiment) -> Table | None:
    """Every PRM against both truths, on held-out responses."""
    if not any(run.prm for run in data.runs):
        return None
    columns = (
        Column(title="PRM", numeric=False),
        Column(title="Against", help="labels", numeric=False),
        *(Column(title=title, help=help) for _, title, help, _ in PRM),
    )
    rows = []
    for name, settings in data.first.recipe.prm.items():
        source = "mutants" if data.first.recipe.labels.source == "mutation" else "search"
        trained = f"{source} labels" if source == "search" else "lines of mutants"
        if settings.labels == "oracle":
            trained = "exact labels (upper bound, not the method)"
        what = f"target {settings.target}" if settings.scope == "line" else "ORM: one score for a whole program"
        what = what if settings.kind == "causal" else f"{settings.kind}, {what}"
        for truth in TRUTHS:
            measures = [(run.prm[name].measure or {}).get(truth) if name in run.prm else None for run in data.runs]
            if truth == "exact" and not any(measures):
                continue
            head = Cell(text=name, note=f"{what}, trained on {trained}", kind="head")
            values = (over_seeds([dig(measure, key) for measure in measures], show) for key, _, _, show in PRM)
            first, against = (head, source) if truth == "search" else (Cell(text=""), truth)
            rows.append((first, Cell(text=against), *values))
    return Table(columns=columns, rows=tuple(rows))


FAMILIES = {
    "single": "one planted mistake (the tests were chosen against these)",
    "double": "two planted mistakes",
    "dropped": "one operation left out",
    "swapped": "two neighbouring operations exchanged",
}


def strength_table(run: Run) -> Table | None:
    """Wrong programs that pass every hidden test, by family of mistakes."""
    if run.strength is None:
        return None
    columns = (
        Column(title="Wrong programs", numeric=False),
        Column(title="Made"),
        Column(title="Pass all tests"),
        Column(title="Share"),
    )
    families = run.strength["families"]
    rows = []
    for name, counts in families.items():
        mutants, survivors = dig(counts, "mutants"), dig(counts, "survivors")
        share = survivors / mutants if mutants > 0 else math.nan
        head = Cell(text=FAMILIES.get(name, name), kind="label")
        rows.append((head, cell(mutants, whole), cell(survivors, whole), cell(share, lambda v: percent(v, 2))))
    return Table(columns=columns, rows=tuple(rows))
