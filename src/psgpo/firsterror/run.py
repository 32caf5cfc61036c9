"""`psgpo firsterror run`: a judge over all items, resumable, one line per item."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.firsterror.items import Item
from psgpo.firsterror.judges import BASELINES, ChatJudge, LineScorer, named_line, scores_of
from psgpo.firsterror.measure import cross_fitted, figures, summary
from psgpo.job import check_job
from psgpo.jsonl import JsonlAppender, finite, read_jsonl, write_json, write_jsonl

Json = dict[str, Any]
Progress = Callable[[int, int], None]
BATCH = 32


def run_scorer(
    items: Sequence[Item],
    scorer: LineScorer,
    out: Path,
    *,
    name: str = "scorer",
    threshold: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Json:
    """Score every line, name the first line below the threshold, write results and summary.

    Args:
        name: of the scorer, for the record.
        threshold: None chooses it on one half of the problems for the other, both ways round. What the scorer's own
            threshold would give, where it has one, is then in the summary beside it: `own_threshold`.

    Raises:
        UserError: `out` holds results of another judge or other items.
    """
    _claim(out, items, {"judge": name})
    scores: list[list[float]] = []
    for start in range(0, len(items), BATCH):
        scores += scores_of(scorer, items[start : start + BATCH])
        progress(len(scores), len(items))

    def below(cut: float) -> list[int]:
        return [named_line(item, row, cut) for item, row in zip(items, scores, strict=True)]

    named, thresholds = cross_fitted(items, scores) if threshold is None else (below(threshold), [threshold])
    more: Json = {"thresholds": thresholds, "cross_fitted": threshold is None}
    own = getattr(scorer, "threshold", None)
    if threshold is None and own is not None:
        more["own_threshold"] = {"threshold": own} | figures(items, below(own))
    rows = [{"id": i.id, "named": n, "scores": s} for i, n, s in zip(items, named, scores, strict=True)]
    return _finish(items, named, rows, out, more)


def run_baseline(items: Sequence[Item], name: str, out: Path) -> Json:
    """One of `BASELINES`.

    Raises:
        UserError: there is none of this name; `out` holds results of another judge or other items.
    """
    if name not in BASELINES:
        raise UserError(f"baseline {name!r}: choose one of {', '.join(BASELINES)}")
    _claim(out, items, {"judge": f"baseline {name}"})
    named = [BASELINES[name](item) for item in items]
    return _finish(items, named, [{"id": i.id, "named": n} for i, n in zip(items, named, strict=True)], out, {})


def run_judge(
    items: Sequence[Item],
    judge: ChatJudge,
    out: Path,
    *,
    concurrency: int = 8,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Json:
    """Ask a model about every item. Goes on where an earlier run stopped.

    Raises:
        UserError: the server does not answer; `out` holds answers of another judge or other items.
    """
    _claim(out, items, judge.settings() | {"seed": seed})
    journal = out / "answers.jsonl"
    with JsonlAppender(journal) as appender:
        rows = {row["id"]: row for row in read_jsonl(journal, dict)}
        left = [item for item in items if item.id not in rows]
        with ThreadPoolExecutor(max_workers=concurrency) as threads:
            for start in range(0, len(left), BATCH):
                progress(len(rows), len(items))
                batch = left[start : start + BATCH]
                answers = threads.map(lambda item: judge.name_line(item, seed=seed), batch)
                for item, (line, words) in zip(batch, answers, strict=True):
                    rows[item.id] = {"id": item.id, "named": line, "reply": words}
                    appender.append(rows[item.id])
    progress(len(items), len(items))
    named = [rows[item.id]["named"] for item in items]
    return _finish(items, named, [rows[item.id] for item in items], out, {})


def _claim(out: Path, items: Sequence[Item], job: Json) -> None:
    """Write down whose results `out` holds; refuse a folder of another judge or of other items."""
    digest = sha256("\n".join(json.dumps(item.to_json(), sort_keys=True) for item in items).encode()).hexdigest()[:16]
    check_job(out / "job.json", job | {"items": digest})


def _finish(items: Sequence[Item], named: Sequence[int], rows: Sequence[Json], out: Path, more: Json) -> Json:
    """Write one line per item and the summary."""
    result = summary(items, named) | more
    errors = {item.id: item.first_error for item in items}
    write_jsonl(out / "results.jsonl", (finite(row | {"first_error": errors[row["id"]]}) for row in rows))
    write_json(out / "summary.json", result)
    return result
