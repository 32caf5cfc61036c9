"""Numbers of one or several runs of the same recipe: per policy, per arm against the baseline, per seed. Pure.

One run: intervals are 95 % bootstrap intervals over the test problems. They cover the choice of problems and the
sampling of responses, not the training seed. Several runs: the mean over seeds, with a 95 % Student t interval over
seeds (S − 1 degrees of freedom), which covers the training seed too. Within groups of problems always over problems.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from psgpo.config import HOW_KEYS
from psgpo.errors import UserError
from psgpo.evaluation.metrics import bootstrap_mean, paired_seed_difference, problem_pass_at_k
from psgpo.evaluation.sets import Part, parts_of
from psgpo.report.load import Evaluation, Run, number

BASELINE = "baseline"
FREE_KEYS = HOW_KEYS | {"name", "seed", "device"}
"""Recipe keys in which seeds of one experiment may differ."""
Keep = Callable[[Run, str], bool]
"""Whether a problem (by id) of a run takes part."""
Bins = Sequence[tuple[str, Keep]]
"""Groups of problems: a label, and which problems are in it."""
GROUPS = 4
"""How many groups, at most, by length and by difficulty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n_problems: int
    """Test problems behind it: of one run, or of all where problems of several runs are pooled (groups)."""
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


def experiment(runs: Sequence[Run]) -> Experiment:
    """Put runs together as seeds of one experiment.

    Raises:
        UserError: no runs, different recipes or benchmarks, or the same seed twice.
    """
    if not runs:
        raise UserError("no run directory given: name at least one, e.g. `psgpo report runs/demo`")
    first = runs[0]
    reference = first.recipe.model_dump(mode="json")
    for run in runs[1:]:
        other = run.recipe.model_dump(mode="json")
        for key in reference:
            if key not in FREE_KEYS and reference[key] != other[key]:
                where = _difference(reference[key], other[key], key)
                raise UserError(
                    f"{run.path}: {where} than in {first.path}; a report compares seeds of one recipe; build two"
                )
    seeds = [run.recipe.seed for run in runs]
    for index, seed in enumerate(seeds):
        if seed in seeds[:index]:
            raise UserError(
                f"{runs[index].path}: seed {seed} is already there from {runs[seeds.index(seed)].path}; give each once"
            )
    order = sorted(range(len(runs)), key=lambda index: seeds[index])
    ordered = tuple(runs[index] for index in order)
    parts = tuple(
        Experiment(runs=tuple(_cut(run, part) for run in ordered), part=part) for part in parts_of(first.tests)
    )
    # Of the first test set the problems that nothing was trained on, where there are any.
    return dataclasses.replace(parts[0], parts=parts) if parts else Experiment(runs=ordered)


def _cut(run: Run, part: Part) -> Run:
    """The run as if it had been evaluated on these problems alone."""
    ids = run.tests[part.test].part(part.which)
    return dataclasses.replace(
        run,
        evaluations={
            name: dataclasses.replace(
                evaluation,
                summary=evaluation.summary["tests"][part.test][part.which],
                samples=tuple(sample for sample in evaluation.samples if sample.problem_id in ids),
            )
            for name, evaluation in run.evaluations.items()
        },
    )


def _difference(left: Any, right: Any, key: str) -> str:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in dict.fromkeys([*left, *right]):
            if name not in left or name not in right:
                return f"{key}.{name} is in one recipe only, so this recipe is another one"
            if left[name] != right[name]:
                return _difference(left[name], right[name], f"{key}.{name}")
    return f"{key} is {right!r} instead of {left!r}, another recipe or benchmark"


def pass_rates(evaluation: Evaluation) -> dict[str, float]:
    """pass@1 of every problem, in the order of their ids: the share of its sampled responses that passed."""
    outcomes = evaluation.outcomes()
    return dict(zip(outcomes, map(float, problem_pass_at_k(outcomes, 1)), strict=True))


def pass_at_1(data: Experiment, policy: str, keep: Keep | None = None) -> Estimate | None:
    """pass@1 over the test problems, or those that `keep` picks; None when a run has not evaluated the policy."""
    runs = data.with_evaluation(policy)
    return _estimate(runs, [pass_rates(run.evaluations[policy]) for run in runs], keep)


def pass_at_k(data: Experiment, policy: str, k: int) -> float:
    """pass@k over the test problems, as a mean over seeds; NaN when a run has not evaluated the policy, or with k."""
    runs = data.with_evaluation(policy)
    found = [entry for run in runs for entry in run.evaluations[policy].summary["pass_at_k"] if entry["k"] == k]
    return float(np.mean([number(entry["value"]) for entry in found])) if found else math.nan


def shown_k(data: Experiment) -> tuple[int, ...]:
    """The k > 1 that tables of test sets show."""
    settings = data.first.recipe.evaluation
    return tuple(k for k in settings.at or (settings.samples,) if k > 1)


def difference(data: Experiment, policy: str, keep: Keep | None = None) -> Estimate | None:
    """pass@1 minus the baseline's, paired on the problems of the same run, or those that `keep` picks.

    Raises:
        UserError: a run evaluated the two on different problems.
    """
    runs = data.with_evaluation(policy) if data.with_evaluation(BASELINE) else ()
    values: list[dict[str, float]] = []
    for run in runs:
        ours, theirs = (pass_rates(run.evaluations[name]) for name in (policy, BASELINE))
        if set(ours) != set(theirs):
            where = run.path / "evaluation"
            raise UserError(
                f"{where}: {policy} and {BASELINE} were not evaluated on the same problems; evaluate both again"
            )
        values.append({name: ours[name] - theirs[name] for name in ours})
    return _estimate(runs, values, keep)


def _estimate(runs: Sequence[Run], values: Sequence[Mapping[str, float]], keep: Keep | None) -> Estimate | None:
    if keep is None or not runs:
        return estimate(runs, [list(of_run.values()) for of_run in values])
    # Within a group the few problems are what is uncertain: all seeds' problems together, policies as they are.
    kept = [{name: value for name, value in v.items() if keep(run, name)} for run, v in zip(runs, values, strict=True)]
    by_problem: dict[tuple[str, int], list[float]] = {}
    for run, of_run in zip(runs, kept, strict=True):
        seen: Counter[str] = Counter()
        for name, value in of_run.items():
            prompt = run.prompts.get(name, name)  # ids of generated problems repeat from seed to seed
            by_problem.setdefault((prompt, seen[prompt]), []).append(value)
            seen[prompt] += 1
    found = estimate(runs[:1], [[float(np.mean(of_problem)) for of_problem in by_problem.values()]])
    per_seed = tuple(float(np.mean(list(of_run.values()))) for of_run in kept if of_run)
    return None if found is None else dataclasses.replace(found, per_seed=per_seed)


def estimate(runs: Sequence[Run], values: Sequence[Sequence[float]]) -> Estimate | None:
    """Mean of per-problem values: over problems for one run, over seeds for several; None without any value.

    Args:
        values: per run, one value per problem. A run without any takes no part.
    """
    filled = [(run, of_run) for run, of_run in zip(runs, values, strict=True) if of_run]
    if not filled:
        return None
    run, first = filled[0]
    per_seed = tuple(float(np.mean(of_run)) for _, of_run in filled)
    if len(filled) == 1:
        found = bootstrap_mean(first, resamples=run.recipe.evaluation.bootstrap, seed=run.recipe.seed)
    else:
        found = paired_seed_difference(per_seed, [0.0] * len(per_seed))
    return Estimate(mean=found.value, low=found.low, high=found.high, n_problems=len(first), per_seed=per_seed)


def length_bins(data: Experiment) -> Bins:
    """Quartiles of problems by the mean number of tokens the baseline writes for them, in the same run."""
    mean_tokens: dict[tuple[str, str], float] = {}
    for run in data.with_evaluation(BASELINE):
        tokens = run.evaluations[BASELINE].tokens()
        mean_tokens |= {(str(run.path), name): float(np.mean(values)) for name, values in tokens.items()}
    if not mean_tokens:
        return []
    edges = np.unique(np.round(np.quantile(list(mean_tokens.values()), np.linspace(0, 1, GROUPS + 1))))
    edges[0], edges[-1] = min(mean_tokens.values()), max(mean_tokens.values()) + 1

    def between(low: float, high: float) -> Keep:
        return lambda run, name: low <= mean_tokens.get((str(run.path), name), -1.0) < high

    bins = [(float(low), float(high)) for low, high in itertools.pairwise(edges)]
    return [(f"{low:.0f}–{high - 1:.0f}", between(low, high)) for low, high in bins]


def difficulty_bins(data: Experiment) -> Bins:
    """At most `GROUPS` bins of neighbouring difficulties (embedded benchmark: numbers of operations)."""
    evaluated = [(run, name) for run in data.runs for e in run.evaluations.values() for name in pass_rates(e)]
    levels = sorted({run.difficulty[name] for run, name in evaluated if name in run.difficulty})

    def among(group: frozenset[int]) -> Keep:
        return lambda run, name: run.difficulty.get(name) in group

    groups = [list(map(int, part)) for part in np.array_split(levels, min(GROUPS, len(levels)))] if levels else []
    return [(f"{g[0]}–{g[-1]}" if len(g) > 1 else f"{g[0]}", among(frozenset(g))) for g in groups]
