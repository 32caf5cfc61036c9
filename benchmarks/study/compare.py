"""Paired comparison of two arms over seeds, and what is missing of it. Pure.

A seed takes part where both sides have a result of the present recipe, of the same evaluation problems and of the same
SFT policy. Any other seed is named with the reason; nothing is filled in.

The interval is a percentile bootstrap on two levels: seeds are drawn with replacement, then, within each drawn seed,
problems. So it covers the training seed and the choice of problems. It draws the noise of problems twice (the seeds'
means have it already), which widens it a little. Percentiles of few seeds are too narrow, so they are taken further
out, at Phi(-sqrt(S / (S - 1)) t) (Hesterberg, The American Statistician 69, 2015, the expanded percentile interval).
Fewer than `MIN_SEEDS` have no interval: drawing seeds with replacement cannot go beyond the extreme ones. The Student
t interval over the seeds' means stands beside it.
"""

# S seeds, P problems, R resamples

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psgpo.evaluation.metrics import NAN, Estimate, paired_seed_difference, t_quantile_95
from study.cells import Study
from study.results import Results, why_missing

Array = NDArray[np.float64]
RESAMPLES = 4000
MIN_SEEDS = 5
OTHER_PROBLEMS = "other evaluation problems"
OTHER_SFT = "another SFT policy (other processor?)"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A policy of a cell."""

    cell: str
    arm: str


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The seeds in which two policies can be compared."""

    seeds: tuple[int, ...]
    first: tuple[Array, ...]
    """pass@1 of every problem of every seed. Shape of each: (P,)."""
    second: tuple[Array, ...]
    operations: tuple[NDArray[np.int64], ...]
    missing: dict[int, tuple[str, str]]
    """Seed to (cell that lacks something, why)."""

    def differences(self, fewest: int = 0, most: int = 1 << 30) -> list[Array]:
        """First minus second of the problems with so many operations, per seed; seeds without any are left out."""
        chosen = [
            (a - b)[(operations >= fewest) & (operations <= most)]
            for a, b, operations in zip(self.first, self.second, self.operations, strict=True)
        ]
        return [difference_P for difference_P in chosen if len(difference_P)]

    def factor(self, fewest: int, most: int) -> float:
        """Mean pass@1 of the first over that of the second, of the problems with so many operations, over seeds; NaN
        where the second passes none of them."""
        first, second = (self._mean(side, fewest, most) for side in (self.first, self.second))
        return first / second if second else NAN

    def level(self, fewest: int, most: int) -> float:
        """Mean pass@1 of the second of the problems with so many operations, over seeds."""
        return self._mean(self.second, fewest, most)

    def _mean(self, side: Sequence[Array], fewest: int, most: int) -> float:
        chosen = [
            passed_P[(operations >= fewest) & (operations <= most)]
            for passed_P, operations in zip(side, self.operations, strict=True)
        ]
        return float(np.mean([part.mean() for part in chosen if len(part)] or [NAN]))


def pair(study: Study, results: Results, side: Side, reference: Side) -> Pairs:
    """Everything that can be paired of two policies, over the seeds that the first one's cell wants."""
    seeds, first, second, operations = [], [], [], []
    missing: dict[int, tuple[str, str]] = {}
    for seed in study.seeds(side.cell):
        lack = _lack(study, results, side, reference, seed)
        if lack is not None:
            missing[seed] = lack
            continue
        ours, theirs = results[side.cell, seed], results[reference.cell, seed]
        seeds.append(seed)
        first.append(ours.pass_rates(side.arm))
        second.append(theirs.pass_rates(reference.arm))
        operations.append(ours.operations)
    return Pairs(
        seeds=tuple(seeds), first=tuple(first), second=tuple(second), operations=tuple(operations), missing=missing
    )


def _lack(study: Study, results: Results, side: Side, reference: Side, seed: int) -> tuple[str, str] | None:
    for one in (side, reference):
        reason = why_missing(study, results, one.cell, seed, one.arm)
        if reason is not None:
            return one.cell, reason
    ours, theirs = results[side.cell, seed], results[reference.cell, seed]
    if ours.data["problems"] != theirs.data["problems"]:
        return side.cell, OTHER_PROBLEMS
    if ours.data["sft_sha256"] != theirs.data["sft_sha256"]:
        return side.cell, OTHER_SFT
    return None


def present(study: Study, results: Results, side: Side) -> Pairs:
    """A policy alone: `pair` with itself, so what is missing is said in the same way."""
    return pair(study, results, side, side)


def two_level_bootstrap(values: Sequence[Array], *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean over seeds of the mean over problems, with the 95 % interval described above; `count` seeds.

    Args:
        values: per seed, one value per problem. Shapes: (P,).
    """
    S = len(values)
    if S == 0:
        return Estimate(value=NAN, low=NAN, high=NAN, count=0)
    value = float(np.mean([value_P.mean() for value_P in values]))
    if S < MIN_SEEDS:
        return Estimate(value=value, low=NAN, high=NAN, count=S)
    mean_R = two_level_draws(values, resamples=resamples, seed=seed)
    low, high = np.percentile(mean_R, [_tail(S), 100 - _tail(S)])
    return Estimate(value=value, low=float(low), high=float(high), count=S)


def two_level_draws(values: Sequence[Array], *, resamples: int, seed: int) -> Array:
    """Means of resampled seeds and problems (R,), see `two_level_bootstrap`; alike for values of one shape."""
    S = len(values)
    rng = np.random.default_rng(seed)
    drawn_RS = rng.integers(S, size=(resamples, S)) if S else np.empty((resamples, 0))
    mean_RS = np.empty((resamples, S))
    for s, value_P in enumerate(values):
        here = drawn_RS == s
        problems = rng.integers(len(value_P), size=(int(here.sum()), len(value_P)), dtype=np.int32)
        mean_RS[here] = value_P[problems].mean(axis=1)
    return mean_RS.mean(axis=1)


def _tail(S: int) -> float:
    """Percentile of the lower end."""
    return 100 * statistics.NormalDist().cdf(-math.sqrt(S / (S - 1)) * t_quantile_95(S - 1))


def share_of_gain(
    part: Sequence[Array], whole: Sequence[Array], *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of `part` over mean of `whole`, two gains over one baseline on the same seeds and problems.

    The interval is that of `two_level_bootstrap`, both means being taken from the same draws. There is none where the
    whole is not clear of zero, and no share where the whole is no gain: NaN.

    Args:
        part, whole: per seed, one value per problem. Shapes: (P,).
    """
    S = len(part)
    over, under = (float(np.mean([value_P.mean() for value_P in values] or [NAN])) for values in (part, whole))
    value = over / under if under > 0 else NAN
    if S < MIN_SEEDS or math.isnan(value):
        return Estimate(value=value, low=NAN, high=NAN, count=S)
    over_R, under_R = (two_level_draws(values, resamples=resamples, seed=seed) for values in (part, whole))
    if np.percentile(under_R, _tail(S)) <= 0:
        return Estimate(value=value, low=NAN, high=NAN, count=S)
    # The few draws without a gain to share lie beyond every share, on the side of the part's own sign.
    share_R = np.where(under_R > 0, over_R / np.where(under_R > 0, under_R, 1.0), np.copysign(np.inf, over_R))
    low, high = np.percentile(share_R, [_tail(S), 100 - _tail(S)])
    return Estimate(value=value, low=float(low), high=float(high), count=S)


def over_seeds(values: Sequence[Array]) -> Estimate:
    """The same mean with the Student t interval over seeds."""
    means = [float(value_P.mean()) for value_P in values]
    return paired_seed_difference(means, [0.0] * len(means))


def steps_to_reach(points: Sequence[tuple[float, float]], goal: float) -> float:
    """First step at which the line through (step, pass@1) points reaches `goal`; infinite when it never does.

    >>> steps_to_reach([(0, 0.1), (15, 0.1), (30, 0.3)], 0.2)
    22.5
    """
    before_step, before = points[0]
    if before >= goal:
        return float(before_step)
    for step, value in points[1:]:
        if value >= goal:
            return before_step + (step - before_step) * (goal - before) / (value - before)
        before_step, before = step, value
    return math.inf


def curve(results: Results, cell: str, seed: int, policy: str) -> list[tuple[float, float]] | None:
    """(step, pass@1) of a policy's checkpoints, the SFT policy at step 0; None where they were not evaluated.

    The last one is the policy itself, not the rounded number of the file: a baseline must reach its own pass@1.
    """
    result = results[cell, seed]
    points = result.data.get("curves", {}).get(policy)
    if points is None:
        return None
    *before, (last, _) = [(float(step), float(value)) for step, value in points]
    first, end = (float(result.pass_rates(name).mean()) for name in ("sft", policy))
    return [(0.0, first), *before, (last, end)]
