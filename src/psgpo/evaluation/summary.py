"""The summary of an evaluation, from its samples alone. No torch; the schema is in `psgpo.evaluation.evaluate`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from psgpo.evaluation.metrics import (
    Estimate,
    best_of_k_curve,
    bootstrap_mean,
    bootstrap_ratio,
    mean_pass_at_k,
    pass_at_k_by_group,
)
from psgpo.evaluation.sets import EvalSet
from psgpo.jsonl import read_jsonl

Json = dict[str, Any]
TOKEN_EDGES = (0, 25, 50, 100, 200, 400, 800, 1600, 3200, 1 << 30)
"""Length buckets (from, to]; the paper's figure 4 cuts at 100."""


def summarise(rows: Sequence[Mapping[str, Any]], *, resamples: int = 2000, seed: int = 0) -> Json:
    """The part of `summary.json` that follows from the samples alone; `rows` as in `samples.jsonl`."""
    options = {"resamples": resamples, "seed": seed}
    sampled: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted((row for row in rows if not row["greedy"]), key=lambda row: row["index"]):
        sampled.setdefault(row["problem_id"], []).append(row)
    sampled = dict(sorted(sampled.items()))
    results = {name: [_passed(row) for row in group] for name, group in sampled.items()}
    greedy = [float(_passed(row)) for row in sorted(rows, key=lambda row: row["problem_id"]) if row["greedy"]]
    curve = best_of_k_curve(results, **options)
    flat = [row for group in sampled.values() for row in group]

    def per_response(value: Callable[[Mapping[str, Any]], float]) -> Json:
        means = [sum(map(value, group)) / len(group) for group in sampled.values()]
        return bootstrap_mean(means, **options).to_json()

    return {
        "problems": len(sampled),
        "samples": len(curve),
        "pass_at_1": mean_pass_at_k(results, 1, **options).to_json(),
        "pass_at_k": [{"k": k} | estimate.to_json() for k, estimate in enumerate(curve, start=1)],
        "greedy": bootstrap_mean(greedy, **options).to_json() if greedy else None,
        "by_difficulty": _by_difficulty(sampled, results, len(curve), options),
        "by_tokens": _by_tokens(sampled, len(flat), options),
        "mean_tokens": per_response(lambda row: len(row["token_ids"])),
        "mean_lines": per_response(lambda row: row["lines"]),
        "comment_ratio": bootstrap_ratio(
            [sum(row["comment_lines"] for row in group) for group in sampled.values()],
            [sum(row["lines"] for row in group) for group in sampled.values()],
            **options,
        ).to_json(),
        "finished": sum(row["finished"] for row in flat) / len(flat) if flat else None,
        "statuses": dict(sorted(Counter(row["verdict"]["status"] for row in flat).items())),
    }


def summarise_tests(
    rows: Sequence[Mapping[str, Any]], tests: Mapping[str, EvalSet], *, resamples: int = 2000, seed: int = 0
) -> Json:
    """`summarise` of every test set, as a whole and without the problems that were trained on (null without any)."""

    def part(ids: frozenset[str]) -> Json | None:
        chosen = [row for row in rows if row["problem_id"] in ids]
        return summarise(chosen, resamples=resamples, seed=seed) if chosen else None

    return {
        "tests": {
            name: {"trained_on": len(test.trained_on), "all": part(test.part("all")), "clean": part(test.part("clean"))}
            for name, test in tests.items()
        }
    }


def read_results(path: Path | str, *, greedy: bool = False) -> dict[str, list[bool]]:
    """Which responses of every problem passed, from a `samples.jsonl`, for `psgpo.evaluation.metrics`."""
    results: dict[str, dict[int, bool]] = {}
    for row in read_jsonl(path, dict, torn_tail_ok=True):
        if row["greedy"] == greedy:
            results.setdefault(row["problem_id"], {})[row["index"]] = _passed(row)
    return {name: [passed[index] for index in sorted(passed)] for name, passed in sorted(results.items())}


def _by_difficulty(
    sampled: Mapping[str, Sequence[Mapping[str, Any]]],
    results: Mapping[str, list[bool]],
    n: int,
    options: dict[str, int],
) -> list[Json]:
    groups = {name: group[0]["difficulty"] for name, group in sampled.items()}
    one = pass_at_k_by_group(results, groups, 1, **options)
    best: dict[Any, Estimate] = pass_at_k_by_group(results, groups, n, **options) if n else {}
    return [
        {"difficulty": group, "pass_at_1": one[group].to_json(), "pass_at_n": best[group].to_json()} for group in one
    ]


def _by_tokens(
    sampled: Mapping[str, Sequence[Mapping[str, Any]]], responses: int, options: dict[str, int]
) -> list[Json]:
    buckets = []
    for low, high in itertools.pairwise(TOKEN_EDGES):
        inside = [[row for row in group if low < len(row["token_ids"]) <= high] for group in sampled.values()]
        count = sum(map(len, inside))
        if count:
            passed = [float(sum(map(_passed, group))) for group in inside]
            rate = bootstrap_ratio(passed, [float(len(group)) for group in inside], **options)
            share = {"responses": count, "share": count / responses}
            buckets.append(
                {"from": low, "to": high if high < 1 << 30 else None} | share | {"pass_rate": rate.to_json()}
            )
    return buckets


def _passed(row: Mapping[str, Any]) -> bool:
    return bool(row["verdict"]["status"] == "PASSED")
