"""Numbers of one or several runs of the same recipe: per policy, per arm against the baseline, per seed. Pure.

One run: intervals are 95 % bootstrap intervals over the test problems. They cover the choice of problems and the
sampling of responses, not the training seed. Several runs: the mean over seeds with a 95 % interval over seeds and
problems (`psgpo.evaluation.metrics.mean_over_seeds`), which covers the training seed too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psgpo.errors import UserError
from psgpo.evaluation.metrics import bootstrap_mean, mean_over_seeds, problem_pass_at_k
from psgpo.evaluation.sets import Part
from psgpo.job import undo_command
from psgpo.report.load import Evaluation, Run, number

BASELINE = "baseline"
Keep = Callable[[Run, str], bool]
"""Whether a problem (by id) of a run takes part."""
Bins = Sequence[tuple[str, Keep]]
"""Groups of problems: a label, and which problems are in it."""
GROUPS = 4
"""How many groups, at most, by length and by difficulty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedEstimate:
    """A mean with its 95 % interval, over problems for one run and over seeds for several."""

    mean: float
    low: float
    high: float
    n_problems: int | None
    """Different test problems behind it; None where they were not counted, never in `summary.json`."""
    per_seed: tuple[float, ...]
    """One value per run that has it."""

    @property
    def sign(self) -> int:
        """+1 or −1 when the interval lies on one side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Runs of one recipe that differ in the seed only."""

    runs: tuple[Run, ...]
    part: Part | None = None
    """Which test problems the evaluations of `runs` are cut down to; None: there is one test set, and it is whole."""
    parts: tuple[Experiment, ...] = ()
    """The same runs on every part of every test set, this part among them."""

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(self.first.recipe.arms)

    @property
    def policies(self) -> tuple[str, ...]:
        return self.first.policies

    def is_oracle(self, policy: str) -> bool:
        """Whether an arm's rewards come from exact labels: an upper bound, not the method."""
        settings = self.first.recipe.arms.get(policy)
        if settings is None:
            return False
        prms = [
            self.first.recipe.prm[name] for name in (settings.prm, settings.value_init) if name not in (None, "oracle")
        ]
        return settings.prm == "oracle" or any(prm.labels == "oracle" for prm in prms)

    def with_evaluation(self, policy: str) -> tuple[Run, ...]:
        """All runs when every one has evaluated the policy, else none: a missing seed is not averaged away."""
        return self.runs if all(policy in run.evaluations for run in self.runs) else ()

    def with_training(self, arm: str) -> tuple[Run, ...]:
        """All runs when every one has trained the arm to its end, else none: seeds at different steps have no mean.

        One run by itself is here from its first step on, so that it can be watched; what shows it says how far it is.
        """
        if len(self.runs) == 1:
            return self.runs if self.first.steps(arm) else ()
        return self.runs if all(run.trained(arm) for run in self.runs) else ()


def pass_rates(evaluation: Evaluation) -> dict[str, float]:
    """pass@1 of every problem, in the order of their ids: the share of its sampled responses that passed."""
    outcomes = evaluation.outcomes()
    return dict(zip(outcomes, map(float, problem_pass_at_k(outcomes, 1)), strict=True))


def pass_at_1(data: Experiment, policy: str, keep: Keep | None = None) -> SeedEstimate | None:
    """pass@1 over the test problems, or those that `keep` picks; None when a run has not evaluated the policy."""
    runs = data.with_evaluation(policy)
    return share(estimate(runs, _kept(runs, [pass_rates(run.evaluations[policy]) for run in runs], keep)))


def shown_k(data: Experiment) -> tuple[int, ...]:
    """The k > 1 that tables of test sets show."""
    settings = data.first.recipe.evaluation
    return tuple(k for k in settings.at or (settings.samples,) if k > 1)


def difference(data: Experiment, policy: str, keep: Keep | None = None) -> SeedEstimate | None:
    """pass@1 minus the baseline's, paired on the problems of the same run, or those that `keep` picks.

    Raises:
        UserError: a run evaluated the two on different problems.
    """
    runs = data.with_evaluation(policy) if data.with_evaluation(BASELINE) else ()
    return paired([(run, policy) for run in runs], [(run, BASELINE) for run in runs], keep)


def paired(
    ours: Sequence[tuple[Run, str]], theirs: Sequence[tuple[Run, str]], keep: Keep | None = None
) -> SeedEstimate | None:
    """Mean pass@1 of `ours` minus that of `theirs`, pair by pair of (run, policy) on the same problems.

    Raises:
        UserError: the two of a pair were evaluated on different problems.
    """
    runs = [run for run, _ in ours]
    values: list[dict[str, float]] = []
    for (run, policy), (other, against) in zip(ours, theirs, strict=True):
        left, right = pass_rates(run.evaluations[policy]), pass_rates(other.evaluations[against])
        if set(left) != set(right):
            wanted = (left.keys() | right.keys()) & run.test_problems.keys()
            stale, of = (run, policy) if left.keys() != wanted else (other, against)
            undo = undo_command(stale.path, f"evaluate-{of}", stale.path / "evaluation" / of)
            raise UserError(
                f"{run.path / 'evaluation'}: {policy} was not evaluated on the same problems as {against} in "
                f"{other.path}; {undo}, and run the recipe again"
            )
        values.append({name: left[name] - right[name] for name in left})
    return estimate(runs, _kept(runs, values, keep))


def _kept(
    runs: Sequence[Run], values: Sequence[Mapping[str, float]], keep: Keep | None
) -> Sequence[Mapping[str, float]]:
    if keep is None:
        return values
    return [
        {name: v for name, v in of_run.items() if keep(run, name)} for run, of_run in zip(runs, values, strict=True)
    ]


def pass_at_k(data: Experiment, policy: str, k: int) -> SeedEstimate | None:
    """pass@k over the test problems; None when a run has not evaluated the policy, or drew fewer than k responses."""
    runs = data.with_evaluation(policy)
    if len(runs) == 1:  # the evaluation has made the bootstrap already
        rows = runs[0].evaluations[policy].summary["pass_at_k"]
        known = [_bounds(row) for row in rows if row["k"] == k and row["value"] is not None]
        return known[0] if known else None
    values = [problem_pass_at_k(run.evaluations[policy].outcomes(), k) for run in runs]
    if any(np.isnan(of_run).any() for of_run in values):
        return None
    named = [dict(zip(run.evaluations[policy].outcomes(), v, strict=True)) for run, v in zip(runs, values, strict=True)]
    return share(estimate(runs, named))


def of_responses(data: Experiment, policy: str, key: str) -> SeedEstimate | None:
    """A number of the evaluation's summary that has an interval over problems, or a mean of it over seeds."""
    found = [run.evaluations[policy].summary[key] for run in data.with_evaluation(policy)]
    return over_seeds([_bounds(record) for record in found]) if found and all(found) else None


def over_seeds(found: Sequence[SeedEstimate]) -> SeedEstimate | None:
    """The estimate of one run as it is; of several their mean, with a 95 % Student t interval over seeds."""
    if len(found) < 2:
        return found[0] if found else None
    values = [each.mean for each in found]
    mean = mean_over_seeds([{"": value} for value in values])
    counts = [each.n_problems for each in found if each.n_problems is not None]
    count = sum(counts) if len(counts) == len(found) else None
    return SeedEstimate(mean=mean.value, low=mean.low, high=mean.high, n_problems=count, per_seed=tuple(values))


def _bounds(record: Mapping[str, Any]) -> SeedEstimate:
    value, low, high = (number(record[key]) for key in ("value", "low", "high"))
    return SeedEstimate(mean=value, low=low, high=high, n_problems=int(record["count"]), per_seed=(value,))


def estimate(runs: Sequence[Run], values: Sequence[Mapping[str, float]]) -> SeedEstimate | None:
    """Mean of per-problem values: over problems for one run, over seeds and problems for several.

    None without runs, and when one of them has no value: a missing seed is not averaged away.

    Args:
        values: per run, the value of each problem (by id).
    """
    if not values or not all(values):
        return None
    filled = list(zip(runs, values, strict=True))
    run, first = filled[0]
    if len(filled) == 1:
        listed = list(first.values())
        found = bootstrap_mean(listed, resamples=run.recipe.evaluation.bootstrap, seed=run.recipe.seed)
        return SeedEstimate(
            mean=found.value, low=found.low, high=found.high, n_problems=len(first), per_seed=(found.value,)
        )
    named = [_by_prompt(run, of_run) for run, of_run in filled]
    found = mean_over_seeds(named)
    per_seed = tuple(float(np.mean(list(of_run.values()))) for _, of_run in filled)
    count = len(set[Any]().union(*named))
    return SeedEstimate(mean=found.value, low=found.low, high=found.high, n_problems=count, per_seed=per_seed)


def _by_prompt(run: Run, values: Mapping[str, float]) -> dict[tuple[str, int], float]:
    """Values by prompt, equal ones counted: ids of generated problems repeat from seed to seed, problems do not."""
    named: dict[tuple[str, int], float] = {}
    seen: Counter[str] = Counter()
    for name, value in values.items():
        prompt = run.prompts.get(name, name)
        named[prompt, seen[prompt]] = value
        seen[prompt] += 1
    return named


def share(found: SeedEstimate | None) -> SeedEstimate | None:
    """An interval of a share ends at 0 and 1."""
    if found is None or math.isnan(found.low):
        return found
    return dataclasses.replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def length_bins(data: Experiment) -> Bins:
    """Quarters of each run's problems by the mean number of tokens its baseline writes for them.

    Each run is parted by itself, for one seed's baseline may write longer than another's, and every seed has to be in
    every quarter. Problems of one length stay together, so there are fewer groups where lengths are few. A label is the
    range over all runs.
    """
    mean_tokens: dict[Path, dict[str, float]] = {}
    for run in data.with_evaluation(BASELINE):
        tokens = run.evaluations[BASELINE].tokens()
        mean_tokens[run.path] = {name: float(np.mean(values)) for name, values in tokens.items()}
    if not mean_tokens or not all(mean_tokens.values()):
        return []
    parted = ({path: _parted(of_run, count) for path, of_run in mean_tokens.items()} for count in range(GROUPS, 0, -1))
    of_runs = next(found for found in parted if all(group for groups in found.values() for group in groups))
    groups = [dict(zip(of_runs, part, strict=True)) for part in zip(*of_runs.values(), strict=True)]

    def among(group: Mapping[Path, Mapping[str, float]]) -> Keep:
        return lambda run, name: name in group.get(run.path, {})

    lengths = [[tokens for of_run in group.values() for tokens in of_run.values()] for group in groups]
    return [(f"{min(of):.0f}–{max(of):.0f}", among(group)) for of, group in zip(lengths, groups, strict=True)]


def _parted(values: Mapping[str, float], count: int) -> list[dict[str, float]]:
    """Names in `count` groups of about one size by their values, equal values together; some may be empty.

    >>> _parted({"a": 2.0, "b": 2.0, "c": 2.0, "d": 5.0}, 2)
    [{'a': 2.0, 'b': 2.0, 'c': 2.0}, {'d': 5.0}]
    """
    groups: list[dict[str, float]] = [{} for _ in range(count)]
    ordered = sorted(values.items(), key=lambda item: item[1])
    place = 0
    for _, tied in itertools.groupby(ordered, key=lambda item: item[1]):
        names = list(tied)
        middle = place + len(names) / 2
        groups[min(count - 1, int(count * middle / len(ordered)))].update(names)
        place += len(names)
    return groups


def difficulty_bins(data: Experiment) -> Bins:
    """At most `GROUPS` bins of neighbouring difficulties (embedded benchmark: numbers of operations)."""
    evaluated = [(run, name) for run in data.runs for e in run.evaluations.values() for name in pass_rates(e)]
    levels = sorted({run.difficulty[name] for run, name in evaluated if name in run.difficulty})

    def among(group: frozenset[int]) -> Keep:
        return lambda run, name: run.difficulty.get(name) in group

    groups = [list(map(int, part)) for part in np.array_split(levels, min(GROUPS, len(levels)))] if levels else []
    return [(f"{g[0]}–{g[-1]}" if len(g) > 1 else f"{g[0]}", among(frozenset(g))) for g in groups]
