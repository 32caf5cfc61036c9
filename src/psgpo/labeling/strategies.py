"""Every search over lines by the name a recipe gives it (`labels.strategy`); `splice` is no search over lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from psgpo.config import LabelSettings
from psgpo.labeling.noisy import hard_steps, line_prior, soft_posterior_steps, uniform_prior
from psgpo.labeling.search import Search, binary_search_steps, linear_scan_steps, soft_steps


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to find out which lines are good."""

    start: Callable[[int, LabelSettings, Sequence[float] | None], Search]
    """The search over T lines; the last argument is the summed surprise of every line, where the strategy has a prior
    and the caller gave the policy's surprise."""
    tree: bool = False
    """Completions count for every prefix of the problem that they run through, not only for the one they were drawn
    for."""
    prior: bool = False
    """Wants the policy's surprise."""
    uses_k: bool = True
    """Up to K completions at a line; else `labels.budget` of them for the whole program."""
    rates: bool = False
    """Labels are success rates. Of a response that passes, which is never probed, only the end has one: +1."""


def _noisy(lines: int, settings: LabelSettings, surprise: Sequence[float] | None) -> Search:
    return hard_steps(uniform_prior(lines) if surprise is None else line_prior(surprise), settings.budget)


def _noisy_soft(lines: int, settings: LabelSettings, surprise: Sequence[float] | None) -> Search:
    return soft_posterior_steps(uniform_prior(lines) if surprise is None else line_prior(surprise), settings.budget)


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "binary-search": Strategy(lambda lines, settings, _: binary_search_steps(lines, settings.k)),
        "linear-scan": Strategy(lambda lines, settings, _: linear_scan_steps(lines, settings.k)),
        "soft": Strategy(lambda lines, settings, _: soft_steps(lines, settings.k), rates=True),
        "noisy": Strategy(_noisy, prior=True, uses_k=False),
        "noisy-soft": Strategy(_noisy_soft, prior=True, uses_k=False),
        "omega": Strategy(lambda lines, settings, _: binary_search_steps(lines, settings.k), tree=True),
    }
)
READS_SURPRISE = frozenset({"splice", *(name for name, strategy in STRATEGIES.items() if strategy.prior)})
"""Strategies that ask how sure a response's writer was of its lines."""
