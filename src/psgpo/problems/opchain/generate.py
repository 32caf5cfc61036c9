"""Generating OpChain problems and the imperfect programs that a policy is first trained on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from psgpo.config.problems import TESTS
from psgpo.errors import UserError
from psgpo.problems.opchain.chain import (
    SPLITS,
    canonical_solution,
    composition_split,
    draw_chain,
    draw_input,
    has_empty,
    prompt_of,
    redraw_step,
    states_of,
)
from psgpo.problems.opchain.operation import FUNCTION, INDENT, Chain, Code, Step, program
from psgpo.problems.opchain.operations import NO_OPS, OPERATIONS
from psgpo.problems.opchain.strength import choose_inputs
from psgpo.records import Call, CallTests, Problem

SOURCE = "opchain"
_MAX_REDRAWS = 5_000
_REPAIRS = 20
_MAX_REPAIRED = 2
_CANDIDATES = 120
_REDRAWS_BEFORE_REPEAT = 200
_CANONICAL_SHARE = 0.6
_FAVOURITE_SHARE = 0.85
_MAX_BUG_RATE = 0.95


@dataclass(frozen=True, kw_only=True)
class OpChainSettings:
    """What decides the benchmark and its training data; equal settings give equal bytes."""

    seed: int = 0
    bug_rate_low: float = 0.05
    """Misconception rate of the operation the training data knows best."""
    bug_rate_high: float = 0.65
    """Misconception rate of the operation it knows worst."""
    sparseness: float = 1.0
    """Scales every misconception rate (capped at .95): above 1 fewer responses pass after SFT."""
    comment_rate: float = 0.04
    """Probability of a comment line before an operation in the training data."""
    noop_rate: float = 0.03
    """Probability of a line without effect before an operation in the training data."""
    tests_per_problem: int = TESTS

    def __post_init__(self) -> None:
        for name in ("bug_rate_low", "bug_rate_high", "comment_rate", "noop_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"opchain.{name}: {getattr(self, name)} is no probability; give a number from 0 to 1")
        if self.bug_rate_low > self.bug_rate_high:
            raise UserError("opchain.bug_rate_low: larger than bug_rate_high; exchange the two")
        if self.sparseness < 0:
            raise UserError(f"opchain.sparseness: {self.sparseness} is negative; give 0 (no mistakes) or more")
        if self.tests_per_problem < 4:
            raise UserError(f"opchain.tests_per_problem: {self.tests_per_problem} tests are too weak; give 4 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class SftExample:
    """One training example for the first policy; the solution may be wrong."""

    prompt: str
    """As in `Problem.prompt`."""
    solution: str
    """A whole program, newline at the end."""


class OpChain:
    """The embedded benchmark: problems and training examples from one seed."""

    def __init__(self, settings: OpChainSettings | None = None) -> None:
        self.settings = settings or OpChainSettings()
        self.bug_rates: Mapping[str, float] = _bug_rates(self.settings)
        """Probability of a misconception per operation name, in the training data."""

    def problems(self, split: str, count: int, operations: tuple[int, int] = (1, 8)) -> list[Problem]:
        """`count` problems of a split, numbers of operations in turn from `operations[0]` to `operations[1]`.

        The k-th problem of n operations in a split has the id `opchain/<split>/<n>-<k>` and depends on nothing else
        but the seed and the number of tests: asking for more, or for another range, repeats the same problems.
        Prompts are distinct until a split has no new one to offer (only for one operation); then prompts repeat with
        other tests.

        Raises:
            UserError: unknown split, or a range of operations that is empty or starts below 1.
        """
        low, high = _checked_range(operations)
        if split not in SPLITS:
            raise UserError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
        spans = {n: count // (high - low + 1) + (n - low < count % (high - low + 1)) for n in range(low, high + 1)}
        streams = {n: iter(self._stream(split, n, spans[n])) for n in spans}
        return [next(streams[low + index % (high - low + 1)]) for index in range(count)]

    def _stream(self, split: str, length: int, count: int) -> Iterator[Problem]:
        prompts: set[str] = set()
        for index in range(count):
            rng = random.Random(f"problem {self.settings.seed} {split} {length} {index}")
            problem = self._problem(rng, split, length, f"{SOURCE}/{split}/{length}-{index:05d}", prompts)
            prompts.add(problem.prompt)
            yield problem

    def _problem(self, rng: random.Random, split: str, length: int, name: str, taken: set[str]) -> Problem:
        for attempt in range(_MAX_REDRAWS):
            chain, inputs = self._strong_chain(rng, split, length)
            if not inputs:
                continue
            phrasing = _draw_phrasing(rng, chain)
            prompt = prompt_of(chain, phrasing)
            if prompt in taken and attempt < _REDRAWS_BEFORE_REPEAT:
                continue
            calls = []
            for value in inputs:
                states = states_of(chain, value)
                assert states is not None
                calls.append(Call(args=(value,), expected=states[-1]))
            entries = [{"name": s.name, "parameter": s.parameter if s.operation.parameters else None} for s in chain]
            return Problem(
                id=name,
                prompt=prompt,
                tests=CallTests(function=FUNCTION, calls=tuple(calls)),
                source=SOURCE,
                split=split,
                difficulty=length,
                reference_solution=canonical_solution(chain),
                metadata={"operations": entries, "phrasing": list(phrasing)},
            )
        raise UserError(
            f"opchain: no problem of {length} operations found whose tests catch every mistake; ask for fewer of them"
        )

    def _strong_chain(self, rng: random.Random, split: str, length: int) -> tuple[Chain, list[Any]]:
        """A chain and inputs that catch all its mutants; operations whose mistakes stay hidden are redrawn in place."""
        chain = _draw_viable(rng, split, length)
        candidates = [draw_input(rng, chain[0].operation.takes) for _ in range(_CANDIDATES)]
        for _ in range(_REPAIRS):
            hidden: set[int] = set()
            if composition_split(chain) == split:
                inputs, hidden = choose_inputs(chain, self.settings.tests_per_problem, candidates)
                if inputs:
                    return chain, inputs
            if len(hidden) > _MAX_REPAIRED:
                break
            position = rng.choice(sorted(hidden)) if hidden else rng.randrange(length)
            chain = redraw_step(rng, chain, min(position + rng.randrange(2), length - 1))
        return chain, []

    def sft_examples(self, count: int, operations: tuple[int, int] = (1, 8)) -> Iterator[SftExample]:
        """`count` examples from training compositions, number of operations uniform over the range (inclusive)."""
        low, high = _checked_range(operations)
        rng = random.Random(f"sft {self.settings.seed}")
        for _ in range(count):
            chain = _draw_viable(rng, "train", rng.randint(low, high))
            prompt = prompt_of(chain, _draw_phrasing(rng, chain))
            yield SftExample(prompt=prompt, solution=self.imperfect_solution(chain, rng))

    def imperfect_solution(self, chain: Chain, rng: random.Random) -> str:
        """A program for the chain as the training data writes it: misconceptions, comments, no-op lines."""
        body: list[str] = []
        for step in chain:
            if rng.random() < self.settings.comment_rate:
                body.append(f"{INDENT}# {rng.choice(('next step', 'now ' + step.phrase(rng.randrange(4))))}")
            if rng.random() < self.settings.noop_rate:
                body.append(INDENT + rng.choice(NO_OPS))
            body += self._code(step, rng)
        return program(body)

    def _code(self, step: Step, rng: random.Random) -> Code:
        if rng.random() >= self.bug_rates[step.name]:
            return _pick(step.correct(), rng)
        count = len(step.operation.wrong)
        favourite = _hash(f"favourite {self.settings.seed} {step.name}") % count
        if rng.random() >= _FAVOURITE_SHARE:
            favourite = rng.randrange(count)
        return _pick(step.wrong(favourite), rng)

    def pass_rate(self, length: int, *, samples: int = 1000) -> float:
        """Expected share of right programs in the training data at n operations: mean of Π (1 − bug rate)."""
        rng = random.Random(f"pass rate {length}")
        chains = [_draw_viable(rng, "train", length) for _ in range(samples)]
        return sum(prod(1 - self.bug_rates[step.name] for step in chain) for chain in chains) / samples


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _bug_rates(settings: OpChainSettings) -> dict[str, float]:
    """Rates evenly spaced from low to high, dealt out in the order of hash(seed, name): the mean is seed-free."""
    names = sorted(OPERATIONS, key=lambda name: _hash(f"bug rate {settings.seed} {name}"))
    width = (settings.bug_rate_high - settings.bug_rate_low) / (len(names) - 1)
    rates = {name: settings.bug_rate_low + rank * width for rank, name in enumerate(names)}
    return {name: min(rates[name] * settings.sparseness, _MAX_BUG_RATE) for name in OPERATIONS}


def _pick(variants: tuple[Code, ...], rng: random.Random) -> Code:
    """The first variant six times in ten, else any of the others; drawn alike for right and wrong code."""
    if len(variants) == 1 or rng.random() < _CANONICAL_SHARE:
        return variants[0]
    return rng.choice(variants[1:])


def _draw_phrasing(rng: random.Random, chain: Chain) -> tuple[int, ...]:
    return tuple(rng.randrange(len(step.operation.phrasings)) for step in chain)


def _draw_viable(rng: random.Random, split: str, length: int) -> Chain:
    """A chain of the split on which most random inputs stay defined, bounded and not empty."""
    for _ in range(_MAX_REDRAWS):
        chain = draw_chain(rng, length)
        if composition_split(chain) != split:
            continue
        good = 0
        for trial in range(6):
            states = states_of(chain, draw_input(rng, chain[0].operation.takes))
            good += states is not None and not has_empty(states)
            if good == 3:
                return chain
            if trial - good >= 3:
                break
    raise UserError(f"opchain: no usable chain of {length} operations found; ask for fewer operations")


def _checked_range(operations: tuple[int, int]) -> tuple[int, int]:
    low, high = operations
    if not 1 <= low <= high:
        raise UserError(f"operations {operations}: give (low, high) with 1 <= low <= high")
    return low, high
