"""From scores, votes and verdicts of many problems to curves over n and tokens, with intervals and differences.

Everything at one n has cost the same: the tokens of n sampled responses, whoever chooses among them. What a PRM, an ORM
or the tests' inputs cost is not counted. Intervals resample problems; a difference is paired, problem by problem.
"""

# P problems, N responses of one, n of them drawn

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.evaluation.metrics import NAN, Estimate, bootstrap_mean, pass_at_k
from psgpo.rerank.choose import best_of_n, majority_of_n

Array = NDArray[np.float64]
Json = dict[str, Any]
RANDOM, ORACLE, MAJORITY = "random", "oracle", "majority"
LIKELIHOOD = ("likelihood-mean", "likelihood-sum")
REFERENCES = (RANDOM, LIKELIHOOD[0], MAJORITY)
"""What every other method is compared with, where it was measured; beside every ORM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """The responses to one problem. All shapes: (N,)."""

    passed: Array
    """1 where all tests held, else 0."""
    tokens: Array
    """Sampled tokens, the end-of-sequence token included."""
    scores: Mapping[str, Array] = field(default_factory=dict)
    """Of each method that takes the highest score; the same methods for every problem."""
    votes: Sequence[int | None] | None = None
    """Clusters of equal outputs; None where no majority is asked for."""


def fewest_of(counts: Mapping[str, int]) -> int:
    """The fewest responses of a problem.

    Raises:
        UserError: fewer than two, so there is nothing to choose from.
    """
    least = min(counts, key=counts.__getitem__)
    if counts[least] < 2:
        raise UserError(
            f"rerank: {least} has {counts[least]} sampled responses; every problem needs at least 2 to choose from; "
            "sample more (evaluation.samples of a recipe, --samples of psgpo eval), or leave the problem out"
        )
    return counts[least]


def expected_passes(drawn: Mapping[str, Drawn]) -> dict[str, Array]:
    """P(the response that is chosen among n passes), by method. Shapes: (P, n = 1..fewest responses of a problem).

    Raises:
        UserError: as `fewest_of`.
    """
    fewest = fewest_of({name: len(problem.passed) for name, problem in drawn.items()})
    found: dict[str, list[Array]] = {}
    for problem in drawn.values():
        for method, row in _problem(problem).items():
            found.setdefault(method, []).append(row[:fewest])
    return {method: np.stack(rows) for method, rows in found.items()}


def _problem(problem: Drawn) -> dict[str, Array]:
    N, passes = len(problem.passed), int(problem.passed.sum())
    rows = {RANDOM: np.full(N, problem.passed.mean())}
    rows |= {method: best_of_n(scores, problem.passed) for method, scores in problem.scores.items()}
    if problem.votes is not None:
        rows[MAJORITY] = majority_of_n(problem.votes, problem.passed)
    return rows | {ORACLE: np.array([pass_at_k(N, passes, k) for k in range(1, N + 1)])}


def expected_tokens(drawn: Mapping[str, Drawn], n: int) -> float:
    """Tokens of n responses to a problem, mean over problems."""
    return n * float(np.mean([problem.tokens.mean() for problem in drawn.values()]))


def measure(drawn: Mapping[str, Drawn], *, orms: Sequence[str] = (), resamples: int, seed: int) -> Json:
    """`curve`, `minus` and `closed` of every method: see docs/rerank.md.

    Args:
        orms: methods that the others are compared with too.

    Raises:
        UserError: as `expected_passes`.
    """
    found = expected_passes(drawn)
    options, references = {"resamples": resamples, "seed": seed}, (*REFERENCES, *orms)
    fewest = next(iter(found.values())).shape[1]
    tokens = [expected_tokens(drawn, n) for n in range(1, fewest + 1)]
    return {
        method: {
            "curve": [
                {"n": n, "tokens": tokens[n - 1], **bootstrap_mean(rows[:, n - 1], **options).to_json()}
                for n in range(1, fewest + 1)
            ],
            **compared(method, {name: rows[:, -1] for name, rows in found.items()}, references, **options),
        }
        for method, rows in found.items()
    }


def compared(method: str, last: Mapping[str, Array], references: Sequence[str], *, resamples: int, seed: int) -> Json:
    """Paired differences to the references, and the share of what a perfect choice gains that this one gains.

    Args:
        last: P(pass) of every problem at the largest n or budget, by method. Shapes: (P,).
    """
    options = {"resamples": resamples, "seed": seed}
    minus = {
        name: bootstrap_mean(last[method] - last[name], **options).to_json()
        for name in references
        if name in last and name != method
    }
    closed = share_of_gain(last[method] - last[RANDOM], last[ORACLE] - last[RANDOM], **options)
    return {"minus": minus, "closed": closed.to_json()}


def share_of_gain(gained: Array, possible: Array, *, resamples: int, seed: int) -> Estimate:
    """sum(gained) / sum(possible) over all problems, with a percentile bootstrap over problems. Shapes: (P,).

    Problems where nothing is possible count: a search may gain there, because the oracle is that of another pool. NaN
    where nothing is possible anywhere; resamples without anything possible are left out.
    """
    P = len(possible)
    if not possible.sum() > 0:
        return Estimate(value=NAN, low=NAN, high=NAN, count=P)
    rng = np.random.default_rng(seed)
    drawn_R = [rng.integers(P, size=P) for _ in range(resamples)]
    ratios = [float(gained[drawn].sum() / possible[drawn].sum()) for drawn in drawn_R if possible[drawn].sum() > 0]
    low, high = np.percentile(ratios, [2.5, 97.5]) if ratios else (NAN, NAN)
    return Estimate(value=float(gained.sum() / possible.sum()), low=float(low), high=float(high), count=P)
