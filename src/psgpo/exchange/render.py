"""Counts and costs of labels, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def render_summary(summary: Json) -> str:
    """What `psgpo labels make` prints."""
    cost, failed = summary["cost"], summary["cost"]["per_failed_response"]
    rates = ", ".join(f"{name} {rate:.1%}" for name, rate in summary["pass_rate"].items())
    lines = [
        f"{summary['problems']}, {summary['strategy']}: pass rate {rates}",
        render_counts({"labels": summary["counts"]}),
        f"cost: {cost['completions']:,} completions, {cost['tokens']:,} tokens, {cost['executions']:,} executions",
    ]
    if cost["failed_responses"]:
        lines.append(
            f"per failed response: {failed['completions']:.1f} completions, {failed['executions']:.1f} executions, "
            f"{failed['cpu_seconds']:.3f} CPU seconds"
        )
    refused = summary.get("refused", {})
    if any(refused.get(key) for key in ("replies", "responses")):
        lines.append(
            f"not labelled: {refused['responses']:,} failed responses (all their labels are 0), and "
            f"{refused['replies']:,} replies that became no response: {next(iter(refused['reasons']))}"
        )
    quality = summary.get("quality")
    if quality and quality["agreement"] is not None:
        lines.append(
            f"exact labels: {quality['agreement']:.3f} of the lines of failed responses agree "
            f"(a constant label: {quality['majority']:.3f})"
        )
    return "\n".join([*lines, ""])


def render_counts(rows: Mapping[str, Mapping[str, int]]) -> str:
    """A line of counts (`LabelCounts`) per name."""
    columns = ("problems", "responses", "passing", "salvaged", "lines", "positive", "negative", "unlabelled")
    width = max(12, *map(len, rows))
    head = " " * width + "".join(f"{name:>11}" for name in columns)
    return "\n".join(
        [head, *(f"{name:<{width}}" + "".join(f"{row[c]:>11,}" for c in columns) for name, row in rows.items())]
    )
