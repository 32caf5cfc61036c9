"""Tables of single stages: training, labels, PRMs, the strength of the hidden tests. Pure.

With several seeds a cell is the mean over seeds, or missing as soon as one seed lacks it. Under an estimate stands its
95 % interval: over problems with one seed, over seeds (Student t) with several; under a count the range of the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from psgpo.evaluation.metrics import bootstrap_ratio, wilson
from psgpo.labeling.quality import shares_by_problem
from psgpo.records import LineLabels
from psgpo.report.aggregate import Experiment, SeedEstimate, over_seeds, share
from psgpo.report.cells import (
    MISSING,
    NAN,
    Cell,
    Column,
    Show,
    Table,
    between,
    cell,
    estimate_cell,
    percent,
    plain,
    three,
    two,
    whole,
)
from psgpo.report.load import Run, number, response_key

Bounds = tuple[float, float]
UNKNOWN: Bounds = (NAN, NAN)


def dig(record: Mapping[str, Any] | None, path: str) -> float:
    """`dig(r, "a.b")` is r["a"]["b"] as a float; NaN when it, or anything on the way, is null or absent."""
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return number(value)


def counted(values: Sequence[float], show: Show) -> Cell:
    """One count or cost per seed as one cell."""
    if not values or any(math.isnan(value) for value in values):
        return MISSING
    return cell(float(np.mean(values)), show, between(min(values), max(values), show))


def estimated(values: Sequence[float], bounds: Sequence[Bounds], show: Show) -> Cell:
    """One estimate per seed, each with its own interval, as one cell."""
    if not values or any(math.isnan(value) for value in values):
        return MISSING
    each = [
        SeedEstimate(mean=value, low=low, high=high, n_problems=None, per_seed=(value,))
        for value, (low, high) in zip(values, bounds, strict=True)
    ]
    found = share(over_seeds(each))  # every estimate here is a share or an AUROC
    assert found is not None
    return estimate_cell(found.mean, found.low, found.high, show)


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
    if not any(run.steps(arm) for run in data.runs for arm in data.arms):
        return None
    several = len(data.runs) > 1
    columns = (
        Column(title="Arm", numeric=False),
        Column(title="Steps", help="slowest seed" if several else "done"),
        *(Column(title=title, help=help) for _, title, help, _ in TRAINING),
    )
    rows = []
    for arm in data.arms:
        cells = [Cell(text=arm, kind="head", series=arm), _steps(data, arm)]
        for metric, _, _, show in TRAINING:
            cells.append(counted([_last_tenth(run, arm, metric) for run in data.with_training(arm)], show))
        rows.append(tuple(cells))
    caption = "What the training of every arm wrote, averaged over its last tenth."
    if not all(run.trained(arm) for run in data.runs for arm in data.arms):
        caption += (
            " An arm that a seed has not finished has no mean." if several else " Where it is unfinished: so far."
        )
    return Table(name="training", caption=caption, columns=columns, rows=tuple(rows))


def _steps(data: Experiment, arm: str) -> Cell:
    """How far the training is, in the seed where it is least far."""
    fewest, steps = min(run.steps(arm) for run in data.runs), data.first.recipe.rl_of(arm).steps
    done = all(run.trained(arm) for run in data.runs)
    return Cell(text=f"{fewest} of {steps}", note="" if done else "unfinished", value=fewest)


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


def cost_table(data: Experiment) -> Table | None:
    """What labels cost, as it was spent."""
    records = [(run.label_summary or {}).get("cost") for run in data.runs]
    if not any(records):
        return None
    rows = tuple(
        (Cell(text=title, kind="label"), counted([dig(record, key) for record in records], show))
        for key, title, show in COST
    )
    columns = (Column(title="", numeric=False), Column(title=strategy_of(data)))
    return Table(name="label-cost", caption="What the labels cost.", columns=columns, rows=rows)


def quality_table(data: Experiment) -> Table | None:
    """Labels against exact ones, with intervals over problems."""
    records = [(run.label_summary or {}).get("quality") for run in data.runs]
    if not any(records):
        return None
    bounds = [label_intervals(run, run.labels) for run in data.runs]
    rows = tuple(
        (
            Cell(text=title, kind="label"),
            estimated([dig(record, key) for record in records], [found.get(key, UNKNOWN) for found in bounds], show),
        )
        for key, title, show in QUALITY
    )
    columns = (Column(title="On failed responses", numeric=False), Column(title=strategy_of(data)))
    caption = "Labels against the oracle's, on the lines of failed responses; 95 % intervals draw whole problems."
    return Table(name="label-quality", caption=caption, columns=columns, rows=rows)


def strategy_of(data: Experiment) -> str:
    """The labels' strategy as a heading."""
    return data.first.recipe.labels.strategy.replace("-", " ").capitalize()


def label_intervals(run: Run, labels: Sequence[LineLabels]) -> dict[str, Bounds]:
    """95 % bootstrap intervals over problems of the labels' shares; empty where exact labels are not there."""
    known = [(label, run.exact[response_key(label)]) for label in labels if response_key(label) in run.exact]
    shares = shares_by_problem([label for label, _ in known], [exact.last_on_track for _, exact in known])
    options = {"resamples": run.recipe.evaluation.bootstrap, "seed": run.recipe.seed}
    found = {name: bootstrap_ratio(*zip(*counts, strict=True), **options) for name, counts in shares.items()}
    return {name: (interval.low, interval.high) for name, interval in found.items()}


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
    rows = []
    for ours, theirs, title, show in SCAN:
        pair = [counted([dig(summary, key) for summary in summaries], show) for key in (ours, theirs)]
        if pair != [MISSING, MISSING]:
            rows.append((Cell(text=title, kind="label"), *pair))
    columns = (Column(title="", numeric=False), Column(title=strategy_of(data)), Column(title="Linear scan"))
    caption = "The same failed responses, labelled in two ways: a small, fixed part of all, so without intervals."
    return Table(name="label-scan", caption=caption, columns=columns, rows=tuple(rows))


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
        (Cell(text=title, kind="label"), counted([dig(summary, key) for summary in summaries], whole))
        for key, title in MUTANTS
    )
    caption = "Mutants of reference solutions, counted."
    return Table(
        name="mutants", caption=caption, columns=(Column(title="", numeric=False), Column(title="Mutants")), rows=rows
    )


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
INTERVALS = {
    "lines.accuracy": "accuracy",
    "lines.auroc": "auroc",
    "lines.f1_good": "f1_good",
    "lines.f1_bad": "f1_bad",
    "first_error.exact": "first_error_exact",
    "first_error.within_one": "first_error_within_one",
    "processbench.f1": "processbench_f1",
}
"""Where the interval of a measure stands under `intervals`."""
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
            values = (_measured(measures, key, show) for key, _, _, show in PRM)
            first, against = (head, source) if truth == "search" else (Cell(text=""), truth)
            rows.append((first, Cell(text=against), *values))
    caption = "Every PRM on held-out responses; 95 % intervals draw whole problems."
    return Table(name="prm", caption=caption, columns=columns, rows=tuple(rows))


def _measured(measures: Sequence[Mapping[str, Any] | None], key: str, show: Show) -> Cell:
    name = INTERVALS.get(key, "")
    bounds = [prm_interval(measure, name) for measure in measures]
    return estimated([dig(measure, key) for measure in measures], bounds, show)


def prm_interval(measure: Mapping[str, Any] | None, name: str) -> Bounds:
    """An interval of a PRM's measure; NaN where it has none."""
    found = ((measure or {}).get("intervals") or {}).get(name)
    return (number(found[0]), number(found[1])) if found else UNKNOWN


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
        found = wilson(int(survivors), int(mutants)) if mutants > 0 else None
        head = Cell(text=FAMILIES.get(name, name), kind="label")
        shown = MISSING if found is None else estimate_cell(found.value, found.low, found.high, lambda v: percent(v, 2))
        rows.append((head, cell(mutants, whole), cell(survivors, whole), shown))
    caption = "Wrong programs that pass every hidden test, with Wilson's 95 % interval (programs taken as independent)."
    return Table(name="test-strength", caption=caption, columns=columns, rows=tuple(rows))
