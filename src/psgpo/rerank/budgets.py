"""Curves over budgets of sampled tokens, from the programs that strategies finished (pure).

A row is what `psgpo.rerank.search` keeps of one strategy and problem; of it are read `problem_id` and `candidates`:
`tokens` spent when the program was finished, `scores` by aggregate, mean `logprob`, `response` with its verdict.
"""

# P problems

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.evaluation.metrics import bootstrap_mean
from psgpo.rerank.choose import best_of_n, majority_of_n
from psgpo.rerank.curves import LIKELIHOOD, MAJORITY, ORACLE, RANDOM, compared

Json = dict[str, Any]
Array = NDArray[np.float64]
BEST_OF_N = "best-of-n"
"""The strategy whose programs the other judges choose among."""
POINTS = 8
"""Budgets of a curve."""


def measure_search(
    rows: Mapping[str, Sequence[Json]],
    votes: Mapping[str, Sequence[int | None]] | None,
    budget: int,
    choose: str,
    *,
    judged: Mapping[str, Mapping[str, Sequence[float]]] = MappingProxyType({}),
    resamples: int,
    seed: int,
) -> Json:
    """`curve` over tokens, and `minus` and `closed` (`curves.compared`) at the largest budget, of every method.

    What a point below the largest budget says of beam: see `psgpo.rerank.search`.

    Args:
        rows: by strategy, those of the same problems in the same order.
        judged: by judge and problem, scores of the candidates of best-of-n.
    """
    options = {"resamples": resamples, "seed": seed}
    budgets = sorted({max(1, budget * k // POINTS) for k in range(1, POINTS + 1)})
    chosen = [
        {name: np.array([by_prm(row, tokens, choose) for row in found]) for name, found in rows.items()}
        | _of_pool(rows[BEST_OF_N], votes, judged, tokens)
        for tokens in budgets
    ]
    references = (RANDOM, LIKELIHOOD[0], BEST_OF_N, *judged)
    return {
        method: {
            "curve": [
                {"tokens": tokens, **bootstrap_mean(at[method], **options).to_json()}
                for tokens, at in zip(budgets, chosen, strict=True)
            ],
            **compared(method, chosen[-1], references, **options),
        }
        for method in chosen[-1]
    }


def by_prm(row: Json, budget: int, choose: str) -> float:
    """P(the candidate with the highest score passes); 0 where nothing was finished within the budget."""
    pool = _within(row, budget)
    return float(best_of_n([c["scores"][choose] for c in pool], _passed(pool))[-1]) if pool else 0.0


def _of_pool(
    rows: Sequence[Json],
    votes: Mapping[str, Sequence[int | None]] | None,
    judged: Mapping[str, Mapping[str, Sequence[float]]],
    budget: int,
) -> dict[str, Array]:
    """What other judges choose among the same candidates. Shapes: (P,)."""
    found: dict[str, list[float]] = {}
    for row in rows:
        pool = _within(row, budget)
        passed = _passed(pool)
        majority = () if votes is None else (MAJORITY,)
        values = dict.fromkeys((RANDOM, LIKELIHOOD[0], *majority, *judged, ORACLE), 0.0)
        if pool:
            values |= {RANDOM: float(np.mean(passed)), ORACLE: max(passed)}
            values[LIKELIHOOD[0]] = float(best_of_n([c["logprob"] for c in pool], passed)[-1])
            if votes is not None:
                values[MAJORITY] = float(majority_of_n(votes[row["problem_id"]][: len(pool)], passed)[-1])
            for judge, scores in judged.items():
                values[judge] = float(best_of_n(scores[row["problem_id"]][: len(pool)], passed)[-1])
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def _within(row: Json, budget: int) -> list[Json]:
    """The candidates that were finished by then; they are in that order."""
    return [candidate for candidate in row["candidates"] if candidate["tokens"] <= budget]


def _passed(pool: Sequence[Json]) -> list[float]:
    return [float(candidate["response"].verdict.passed) for candidate in pool]
