"""What the page knows: plain records that become one JSON value, read by templates/inspect.js.

Numbers are those of the files and of `psgpo.rl`; the page computes none. NaN is null: not there. What is absent for
every response has a reason and a command in `Page.missing`.

# L code lines, T response tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from psgpo.jsonl import finite

Floats = tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Something the page could show and does not have."""

    reason: str
    command: str = ""
    """What makes it; empty where nothing does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestView:
    """One hidden test."""

    __test__ = False  # no test class of pytest

    call: str
    expected: str
    """Empty for a check that says itself what must hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemView:
    """A problem as it is shown above its responses."""

    id: str
    prompt: str
    difficulty: int | None
    split: str
    starter_code: str
    reference: str
    """The reference solution; empty for none."""
    tests: tuple[TestView, ...]
    """The first ones, see `assemble.MOST_TESTS`."""
    held_out: bool | None
    """Kept from the training of the run's PRMs; None where that is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LineView:
    """One code line."""

    text: str
    neutral: bool
    end: int | None
    """Index of the token that ends it; None where only its text is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictView:
    """What the tests said."""

    status: str
    passed: int
    total: int
    outcomes: tuple[str, ...]
    """Per test that is shown; empty where the file keeps none."""
    first_failing: int | None
    """From 0; it may be a test that is not shown."""
    detail: str
    mode: str
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeView:
    """One question of the search, in the order asked."""

    line: int
    """m: how many lines were kept."""
    drawn: int
    passed: int
    completion: tuple[str, str] | None
    """What was kept and what the first completion that passed went on with; None where none passed or none was kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelView:
    """Labels of a search and what they rest on."""

    labels: Floats
    """Shape: (L,)."""
    last_solvable: int
    strategy: str
    real_valued: bool
    """0 on a code line is a value, not a line left open."""
    guessed: bool
    unlabelled: str
    completions: int
    tokens: int
    executions: int
    probes: tuple[ProbeView, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactView:
    """The oracle's labels."""

    last_on_track: int
    progress: Floats
    """Shape: (L,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credit:
    """What one arm's PPO makes of a response in its first step."""

    line_rewards: Floats
    """λ · g, shape: (L,)."""
    rewards: Floats
    """Shape: (T,)."""
    values: Floats
    """V of the state before each token, shape: (T,); empty where the critic's start is not known."""
    advantages: Floats
    """A by GAE, not whitened, shape: (T,); empty where the values are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrmView:
    """A scorer of lines."""

    name: str
    target: str
    """sign, progress or correct."""
    form: str
    """share: scores run from 0 to 1. signed: they are good from `threshold` on."""
    threshold: float
    span: float
    """Distance from the threshold at which a line has its full colour."""
    origin: str
    """Where the scores come from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmView:
    """How an arm pays."""

    name: str
    line_reward: str
    prm: str
    """Empty without line rewards."""
    lambda_fail: float
    lambda_pass: float
    gamma: float
    gae_lambda: float
    critic: str
    """How its critic starts, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseView:
    """One response. Tables that are not there are None or left out."""

    problem: int
    """Position in `Page.problems`."""
    checkpoint: str
    index: int
    greedy: bool
    finished: bool
    before: str
    """Text before the code, as where the program stands in a fence."""
    after: str
    lines: tuple[LineView, ...]
    verdict: VerdictView
    label: LabelView | None
    exact: ExactView | None
    scores: Mapping[str, Floats]
    """PRM to scores, shape of each: (L,)."""
    tokens: tuple[str, ...] | None
    """Text of every token, or its name in ⟨⟩ where it has none. Shape: (T,)."""
    credit: Mapping[str, Credit]
    """Arm to credit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Everything on the page."""

    title: str
    facts: tuple[str, ...]
    command: str
    """What made the page."""
    problems: tuple[ProblemView, ...]
    responses: tuple[ResponseView, ...]
    prms: tuple[PrmView, ...]
    arms: tuple[ArmView, ...]
    missing: Mapping[str, Missing] = field(default_factory=dict)
    """Kind (labels, exact, completions, tokens, tests, credit, `prm NAME`, `arm NAME`) to why it is not there."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, floats with four decimals, NaN as None."""
        return dict(finite(_rounded(asdict(self))))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        rounded = round(value, 4)
        return int(rounded) if rounded.is_integer() else rounded  # most token rewards are 0
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
