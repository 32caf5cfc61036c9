"""`summary.json` of `psgpo eval`, from the rows of `results.jsonl` alone. No torch; the schema is in docs/eval.md."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from psgpo.evaluation.metrics import bootstrap_mean, mean_pass_at_k

Json = dict[str, Any]


def summarise_grades(
    rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> Json:
    """Coverage, pass@k, partial credit and counts.

    pass@k is the mean over the tasks *that have samples*; coverage says which have none. It is defined for every k up
    to the fewest samples of such a task and NaN (null) from there to the most: a task with fewer than k samples has no
    pass@k, and leaving it out would quietly change the benchmark.

    Args:
        rows: as in `results.jsonl`.
        tasks: ids of all tasks of the benchmark, in its order.
    """
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["index"]):
        grouped.setdefault(row["task_id"], []).append(row)
    grouped = {task: grouped[task] for task in tasks if task in grouped}
    sizes = [len(group) for group in grouped.values()]
    curve = functools.partial(_curve, grouped, resamples=resamples, seed=seed)
    shares = [
        sum(row["tests_passed"] / max(row["tests_total"], 1) for row in group) / len(group)
        for group in grouped.values()
    ]
    missing = [task for task in tasks if task not in grouped]
    return {
        "coverage": {"tasks": len(tasks), "with_samples": len(grouped), "missing": missing},
        "samples": {
            "total": len(rows),
            "fewest_per_task": min(sizes, default=0),
            "most_per_task": max(sizes, default=0),
        },
        "pass_at_k": curve("status"),
        **({"base_pass_at_k": curve("base_status")} if rows and all("base_status" in row for row in rows) else {}),
        "tests_passed": bootstrap_mean(shares, resamples=resamples, seed=seed).to_json(),
        "statuses": _counts(rows, "status"),
        "modes": _counts(rows, "mode"),
        "confinement": _counts(rows, "confinement"),
    }


def _curve(grouped: Mapping[str, Sequence[Mapping[str, Any]]], key: str, *, resamples: int, seed: int) -> list[Json]:
    results = {task: [row[key] == "PASSED" for row in group] for task, group in grouped.items()}
    sizes = [len(group) for group in grouped.values()]
    return [
        {"k": k}
        | mean_pass_at_k(results, k, resamples=resamples, seed=seed).to_json()
        | {"tasks_with_k": sum(size >= k for size in sizes)}
        for k in range(1, max(sizes, default=0) + 1)
    ]


def _counts(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, int]:
    """How often each value occurs, most often first."""
    counts = Counter(str(row[name]) for row in rows)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
