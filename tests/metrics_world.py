"""What is compared of the metrics of two trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psgpo.jsonl import read_jsonl


def without_times(out: Path) -> list[dict[str, Any]]:
    """The rows of `out`/metrics.jsonl without what depends on the machine (seconds, tokens per second) and nulls."""
    rows = read_jsonl(out / "metrics.jsonl", dict)
    return [{k: v for k, v in row.items() if "second" not in k and v is not None} for row in rows]
