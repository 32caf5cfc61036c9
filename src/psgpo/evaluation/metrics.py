"""pass@k, intervals and paired differences. Pure NumPy.

`results` everywhere maps a problem's id to which of its n responses passed, in the order they were drawn.
Undefined is NaN (pass@k with n < k, a mean over no problem).
"""

# P problems, R resamples

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError

NAN = float("nan")
Results = Mapping[str, Sequence[bool]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with a 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    """How many problems (or seeds) it is a mean over."""

    def to_json(self) -> dict[str, Any]:
        """Plain dict; NaN becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {key: None if math.isnan(number) else number for key, number in numbers.items()} | {"count": self.count}


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k responses passes), from c passes among n drawn.

    1 - C(n-c, k) / C(n, k) = 1 - prod_{i=n-c+1}^{n} (1 - k/i)        (Chen et al., arXiv 2107.03374, equation 1)

    NaN when n < k: k responses were never seen.
    """
    if k < 1 or not 0 <= c <= n:
        raise ValueError(f"pass@k needs k >= 1 and 0 <= c <= n, found n={n}, c={c}, k={k}")
    if n < k:
        return NAN
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def problem_pass_at_k(results: Results, k: int) -> NDArray[np.float64]:
    """pass@k of every problem, in the order of `results`. Shape: (P,)."""
    return np.array(
        [pass_at_k(len(passed), sum(map(bool, passed)), k) for passed in results.values()], dtype=np.float64
    )


def mean_pass_at_k(results: Results, k: int, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean pass@k over problems with a percentile bootstrap interval over problems."""
    return bootstrap_mean(problem_pass_at_k(results, k), resamples=resamples, seed=seed)


def bootstrap_mean(values: Sequence[float] | NDArray[np.float64], *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of `values` (P,) and the 2.5 and 97.5 percentiles of the means of `resamples` draws with replacement.

    One NaN makes everything NaN: a problem without an answer is not left out silently.
    """
    values_P = np.asarray(values, dtype=np.float64)
    if not len(values_P) or np.isnan(values_P).any():
        return Estimate(value=NAN, low=NAN, high=NAN, count=len(values_P))
    rng = np.random.default_rng(seed)
    means = [float(values_P[rng.integers(len(values_P), size=len(values_P))].mean()) for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(value=float(values_P.mean()), low=float(low), high=float(high), count=len(values_P))


def paired_difference(a: Results, b: Results, k: int = 1, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean over problems of pass@k of `a` minus that of `b`; the bootstrap draws problems, so arms stay paired.

    Raises:
        UserError: the two were not evaluated on the same problems.
    """
    if set(a) != set(b):
        only_a, only_b = len(set(a) - set(b)), len(set(b) - set(a))
        raise UserError(
            f"paired difference: {only_a} problem(s) only in the first, {only_b} only in the second; use the same ones"
        )
    difference_P = problem_pass_at_k(a, k) - problem_pass_at_k({name: b[name] for name in a}, k)
    return bootstrap_mean(difference_P, resamples=resamples, seed=seed)


def best_of_k_curve(results: Results, *, resamples: int = 2000, seed: int = 0) -> list[Estimate]:
    """Mean pass@k for k = 1..n, n the fewest responses of a problem (best-of-K, PSGPO figure 3)."""
    n = min((len(passed) for passed in results.values()), default=0)
    return [mean_pass_at_k(results, k, resamples=resamples, seed=seed) for k in range(1, n + 1)]


def bootstrap_ratio(
    numerators: Sequence[float] | NDArray[np.float64],
    denominators: Sequence[float] | NDArray[np.float64],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """sum(numerators) / sum(denominators) with a percentile bootstrap over problems. Shapes: (P,).

    For rates of responses rather than of problems (a length bucket, the share of comment lines): the responses of one
    problem stay together in every resample. Problems with denominator 0 take no part; NaN without any other.
    """
    top_P = np.asarray(numerators, dtype=np.float64)
    bottom_P = np.asarray(denominators, dtype=np.float64)
    top_P, bottom_P = top_P[bottom_P > 0], bottom_P[bottom_P > 0]
    P = len(bottom_P)
    if not P:
        return Estimate(value=NAN, low=NAN, high=NAN, count=0)
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
        drawn = rng.integers(P, size=P)
        ratios.append(float(top_P[drawn].sum() / bottom_P[drawn].sum()))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Estimate(value=float(top_P.sum() / bottom_P.sum()), low=float(low), high=float(high), count=P)


def pass_at_k_by_group(
    results: Results, groups: Mapping[str, Any], k: int = 1, *, resamples: int = 2000, seed: int = 0
) -> dict[Any, Estimate]:
    """Mean pass@k of the problems of each group, in the order of the group's keys; `count` is the number of problems.

    Args:
        groups: the group of every problem, e.g. its number of operations.
    """
    members: dict[Any, dict[str, Sequence[bool]]] = {}
    for name, passed in results.items():
        members.setdefault(groups[name], {})[name] = passed
    return {
        group: mean_pass_at_k(members[group], k, resamples=resamples, seed=seed)
        for group in sorted(members, key=_sortable)
    }


def paired_seed_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Mean of a_s - b_s over training seeds s and its 95 % Student t interval, S - 1 degrees of freedom.

    This interval covers the training seed; those over problems do not. NaN interval for one seed, NaN for none.

    Raises:
        ValueError: not one value per seed on both sides.
    """
    if len(a) != len(b):
        raise ValueError(f"a value per seed on both sides is needed, found {len(a)} and {len(b)}")
    difference_S = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    S = len(difference_S)
    if S == 0:
        return Estimate(value=NAN, low=NAN, high=NAN, count=0)
    mean = float(difference_S.mean())
    half = t_quantile_95(S - 1) * float(difference_S.std(ddof=1)) / math.sqrt(S) if S > 1 else NAN
    return Estimate(value=mean, low=mean - half, high=mean + half, count=S)


def mean_over_seeds(values: Sequence[Mapping[Hashable, float]]) -> Estimate:
    """Mean over S seeds of each seed's mean over its P problems, with a 95 % interval over seeds and problems.

        x_sp = mu + a_s + b_p + e_sp,    v = var_s(mean_p x) / S + var_p(mean_s x) / P,    mean -+ t_d sqrt(v)

    with d degrees of freedom after Satterthwaite (Biometrics Bulletin 2, 1946). e_sp counts in both terms, so the
    interval errs on the wide side. Where seeds have problems of their own, the first term holds their spread and the
    second is left out. For paired differences hand over each problem's difference. One NaN makes everything NaN; one
    seed alone has no interval.

    Args:
        values: per seed, each problem's value. None may be empty.
    """
    S = len(values)
    mean_S = np.array([np.mean(list(of_seed.values())) for of_seed in values], dtype=np.float64)
    if S < 2 or np.isnan(mean_S).any():
        return Estimate(value=float(mean_S.mean()) if S else NAN, low=NAN, high=NAN, count=S)
    terms = [(float(mean_S.var(ddof=1)) / S, S - 1)]
    names = values[0].keys()
    if len(names) > 1 and all(of_seed.keys() == names for of_seed in values):
        mean_P = np.array([[of_seed[name] for name in names] for of_seed in values]).mean(axis=0)
        terms.append((float(mean_P.var(ddof=1)) / len(mean_P), len(mean_P) - 1))
    variance = sum(v for v, _ in terms)
    spread = sum(v**2 / degrees for v, degrees in terms)
    mean = float(mean_S.mean())
    if spread == 0:  # nothing differs
        return Estimate(value=mean, low=mean, high=mean, count=S)
    degrees = int(variance**2 / spread + 1e-9)  # never below the smaller term's, so at least 1
    half = t_quantile_95(degrees) * math.sqrt(variance)
    return Estimate(value=mean, low=mean - half, high=mean + half, count=S)


def wilson(hits: int, trials: int) -> Estimate:
    """hits / trials with Wilson's 95 % interval (JASA 22, 1927), which is right for rates near 0 and 1 too.

    NaN without a trial.
    """
    if not trials:
        return Estimate(value=NAN, low=NAN, high=NAN, count=0)
    z, p = _Z_95, hits / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return Estimate(value=p, low=max(0.0, middle - half), high=min(1.0, middle + half), count=trials)


_Z_95 = 1.959964
_T_95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def t_quantile_95(degrees: int) -> float:
    """97.5 % quantile of Student's t: a table up to 10 degrees of freedom, then the Cornish-Fisher expansion.

    The expansion is right to three decimals there (Abramowitz and Stegun 26.7.5).
    """
    assert degrees >= 1
    if degrees <= len(_T_95):
        return _T_95[degrees - 1]
    z = _Z_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _sortable(group: Any) -> tuple[bool, bool, Any]:
    """Numbers first, then words, None last."""
    return group is None, isinstance(group, str), 0 if group is None else group
