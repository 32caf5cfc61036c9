"""Chains of operations: drawing them, the states they pass through, and the split they belong to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from psgpo.errors import UserError
from psgpo.problems.opchain.operation import HEADER, INDENT, Chain, Operation, StateType, Step
from psgpo.problems.opchain.operations import BY_INPUT, OPERATIONS
from psgpo.records import Call, CallTests, Problem

SPLITS = ("train", "validation", "test")
_SPLIT_ENDS = {"train": 70, "validation": 85, "test": 100}

MAX_ITEMS = 12
MAX_ITEM = 9_999
MAX_INTEGER = 99_999
MAX_LETTERS = 24

_START_WEIGHTS: dict[StateType, float] = {"list": 0.9, "int": 0.04, "str": 0.06}
_LAST_REDUCTION_BOOST = 5.0
_ALL_TESTS = "all_tests"
"""Key of the metadata of a problem that is judged by some of its tests."""
_LETTERS = "abcdeiklnoprstuz"


def composition_split(chain: Chain) -> str:
    """The split a composition belongs to, whatever the seed: 70 % train, 15 % validation, 15 % test.

    A composition is the sequence of operation names; for a single operation it includes the parameter, so that
    every split has one-operation problems.
    """
    key = "|".join(step.name for step in chain)
    if len(chain) == 1:
        key += f":{chain[0].parameter}"
    bucket = int.from_bytes(hashlib.sha256(f"opchain {key}".encode()).digest()[:8], "big") % 100
    return next(split for split in SPLITS if bucket < _SPLIT_ENDS[split])


def draw_chain(rng: random.Random, length: int) -> Chain:
    """A random typed walk of `length` operations; neighbours differ and no operation occurs more than twice."""
    kind: StateType = rng.choices(list(_START_WEIGHTS), list(_START_WEIGHTS.values()))[0]
    steps: list[Step] = []
    while len(steps) < length:
        names = [step.name for step in steps]
        choices = [
            operation
            for operation in BY_INPUT[kind]
            if (not names or operation.name != names[-1]) and names.count(operation.name) < 2
        ]
        last = len(steps) == length - 1
        operation = rng.choices(choices, [_weight(operation, last) for operation in choices])[0]
        parameter = rng.choice(operation.parameters) if operation.parameters else 0
        steps.append(Step(operation, parameter))
        kind = operation.gives
    return tuple(steps)


def redraw_step(rng: random.Random, chain: Chain, position: int) -> Chain:
    """The chain with another operation (or parameter) of the same types at `position`."""
    old = chain[position].operation
    neighbours = {chain[i].name for i in (position - 1, position + 1) if 0 <= i < len(chain)}
    choices = [
        operation
        for operation in BY_INPUT[old.takes]
        if operation.gives == old.gives
        and operation.name not in neighbours
        and (not operation.last_only or position == len(chain) - 1)
        and sum(step.name == operation.name for step in chain) < 2
    ]
    operation = rng.choices(choices, [operation.weight for operation in choices])[0] if choices else old
    parameter = rng.choice(operation.parameters) if operation.parameters else 0
    return (*chain[:position], Step(operation, parameter), *chain[position + 1 :])


def _weight(operation: Operation, last: bool) -> float:
    if operation.last_only and not last:
        return 0.0
    reduces = operation.gives == "int" and operation.takes != "int"
    return operation.weight * (_LAST_REDUCTION_BOOST if last and reduces else 1.0)


def draw_input(rng: random.Random, kind: StateType) -> Any:
    """A random input: lengths, signs, zeros and repeats vary."""
    if kind == "int":
        return rng.choice((rng.randint(-99, 999), rng.randint(-9, 99)))
    if kind == "str":
        letters = rng.sample(_LETTERS, rng.randint(3, 10))
        return "".join(rng.choice(letters) for _ in range(rng.randint(3, 10)))
    length = rng.choice((rng.randint(2, 9), rng.randint(5, 9)))
    low, high = rng.choice(((-9, 12), (-9, 12), (-4, 6), (0, 9), (-30, 40)))
    values = [rng.randint(low, high) for _ in range(length)]
    if rng.random() < 0.3:
        values[rng.randrange(length)] = values[rng.randrange(length)]
    return values


def within_bounds(state: Any) -> bool:
    """Whether a state is small enough to be part of a problem."""
    if isinstance(state, list):
        return len(state) <= MAX_ITEMS and (not state or -MAX_ITEM <= min(state) <= max(state) <= MAX_ITEM)
    if isinstance(state, str):
        return len(state) <= MAX_LETTERS
    return bool(-MAX_INTEGER <= state <= MAX_INTEGER)


def states_of(chain: Sequence[Step], state: Any) -> list[Any] | None:
    """The states s_0 .. s_n from an input, or None where an operation is undefined or a state is too large."""
    states = [state]
    for step in chain:
        if not step.defined(state):
            return None
        state = step.apply(state)
        if not within_bounds(state):
            return None
        states.append(state)
    return states


def has_empty(states: Sequence[Any]) -> bool:
    """Whether an empty list or text occurs among the states."""
    return any(not state and not isinstance(state, int) for state in states)


def prompt_of(chain: Chain, phrasing: Sequence[int]) -> str:
    """The prompt: one phrase per operation."""
    return "; then ".join(step.phrase(index) for step, index in zip(chain, phrasing, strict=True))


def canonical_solution(chain: Chain) -> str:
    """The reference program."""
    lines = [HEADER, *(line for step in chain for line in step.correct()[0]), f"{INDENT}return x"]
    return "\n".join(lines) + "\n"


def calls_of(problem: Problem) -> tuple[Call, ...]:
    """The hidden calls that judge answers to one of this benchmark's problems."""
    assert isinstance(problem.tests, CallTests), f"problem {problem.id} is not of this benchmark"
    return problem.tests.calls


def weakened(problem: Problem, count: int) -> Problem:
    """The problem judged by the first `count` of its calls alone; all of them stay behind `all_calls_of`."""
    assert isinstance(problem.tests, CallTests), f"problem {problem.id} is not of this benchmark"
    weak = replace(problem.tests, calls=problem.tests.calls[:count])
    return replace(problem, tests=weak, metadata=problem.metadata | {_ALL_TESTS: problem.tests.to_json()})


def all_calls_of(problem: Problem) -> tuple[Call, ...]:
    """What defines a right program, those that were taken from the judge included (`weakened`)."""
    every = problem.metadata.get(_ALL_TESTS)
    return calls_of(problem) if every is None else CallTests.from_json(every).calls


def chain_of(problem: Problem) -> Chain:
    """Rebuild the chain from a problem's metadata.

    Raises:
        UserError: the problem is not one of OpChain's.
    """
    try:
        entries = problem.metadata["operations"]
        steps = tuple(Step(OPERATIONS[entry["name"]], entry["parameter"] or 0) for entry in entries)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"problem {problem.id}: metadata.operations is missing or unknown ({error}); the exact oracle works on "
            "OpChain problems only"
        ) from None
    return steps
