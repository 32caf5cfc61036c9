"""Choosing hidden tests that catch mistakes, and measuring how many mistakes they miss."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from psgpo.problems.opchain.chain import calls_of, chain_of, draw_input, has_empty, states_of
from psgpo.problems.opchain.operation import Chain, Step, copy_state, runnable
from psgpo.records import Json, Problem

_POOL = 16
_PATIENCE = 30
_MAX_WITH_EMPTY = 2
_FRESH_INPUTS = 200

Mutant = Callable[[Any], Any]
_Pool = list[tuple[list[Any], frozenset[tuple[int, int]]]]


LEFT_OUT = -1
"""The misconception of leaving the operation out."""


class _Failed:
    """Stands for the result of a program that raised; equal to nothing else."""


FAILED = _Failed()


def run_chain(chain: Sequence[Step], state: Any) -> Any:
    """The chain's meaning on a state; FAILED where a wrong state took it out of its domain."""
    try:
        for step in chain:
            state = step.apply(state)
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError):
        return FAILED
    return state


def run_misconception(step: Step, misconception: int, state: Any) -> Any:
    """What one of the benchmark's own wrong variants makes of a state; FAILED when it raises."""
    if misconception == LEFT_OUT:
        return state
    try:
        return _wrong_function(step, misconception)(copy_state(state))
    except (ValueError, IndexError, TypeError, KeyError):
        return FAILED


@lru_cache(maxsize=4096)
def _wrong_function(step: Step, misconception: int) -> Mutant:
    return runnable(step.wrong(misconception)[0])


def misconceptions(chain: Chain) -> list[tuple[int, int]]:
    """(position, misconception) of every wrong variant of every operation of a chain."""
    return [(i, w) for i, step in enumerate(chain) for w in range(len(step.operation.wrong))]


def _caught(chain: Chain, states: Sequence[Any], mutants: Sequence[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    caught = set()
    for position, misconception in mutants:
        state = run_misconception(chain[position], misconception, states[position])
        if state is FAILED or (state != states[position + 1] and run_chain(chain[position + 1 :], state) != states[-1]):
            caught.add((position, misconception))
    return frozenset(caught)


def choose_inputs(chain: Chain, count: int, inputs: Iterable[Any]) -> tuple[list[Any], set[int]]:
    """Pick `count` of `inputs` that together catch every mutant of one operation: each wrong variant, and none at all.

    Outputs vary, at most two inputs pass through an empty state, and no input occurs twice. The first inputs are
    weighed against all mutants, the others only against those still free.

    Returns:
        (inputs, empty set) or, when the search finds none, (empty list, positions of operations with a mutant that no
        input tried tells from the right program; empty when it is the outputs that do not vary).
    """
    mutants = misconceptions(chain) + [(position, LEFT_OUT) for position in range(len(chain))]
    remaining = set(mutants)
    pool: _Pool = []
    idle = 0
    for value in inputs:
        if (states := states_of(chain, value)) is None:
            continue
        if len(pool) < _POOL:
            caught = _caught(chain, states, mutants)
            pool.append((states, caught))
        elif not remaining or idle > _PATIENCE:
            break
        elif caught := _caught(chain, states, list(remaining)):
            pool.append((states, _caught(chain, states, mutants)))
        idle = 0 if caught & remaining else idle + 1
        remaining -= caught
    if remaining:
        return [], {position for position, _ in remaining}
    chosen = _cover(pool, set(mutants), count)
    if len(chosen) < count or not _varied([states[-1] for states in chosen]):
        return [], set()
    return [states[0] for states in chosen], set()


def _cover(pool: _Pool, remaining: set[tuple[int, int]], count: int) -> list[list[Any]]:
    """Greedy set cover, then inputs that give new outputs and catch most; empty when `count` inputs do not suffice."""
    chosen: list[list[Any]] = []
    while len(chosen) < count:
        outputs = [states[-1] for states in chosen]
        best = max(
            (entry for entry in pool if _admissible(entry[0], chosen)),
            key=lambda entry: (len(entry[1] & remaining), entry[0][-1] not in outputs, len(entry[1])),
            default=None,
        )
        if best is None:
            return []
        chosen.append(best[0])
        remaining = remaining - best[1]
    return [] if remaining else chosen


def _admissible(states: list[Any], chosen: list[list[Any]]) -> bool:
    if any(states[0] == other[0] for other in chosen):
        return False
    return not has_empty(states) or sum(has_empty(other) for other in chosen) < _MAX_WITH_EMPTY


def _varied(outputs: Sequence[Any]) -> bool:
    distinct = len({repr(output) for output in outputs})
    return distinct >= min(len(outputs), 3 if isinstance(outputs[0], int) else 4)


def measure_strength(problems: Sequence[Problem], *, seed: int = 0) -> Json:
    """How many wrong programs pass the hidden tests.

    Families of mutants: `single` (one misconception) and `dropped` (one operation left out), against which the tests
    were selected, and two against which they were *not*: `double` (two misconceptions at random positions, two draws
    per problem) and `swapped` (two neighbours exchanged). A mutant counts only if some input tells it from the right
    program: one that passes every hidden test and agrees on 200 fresh inputs too is equivalent and is set aside.

    Returns:
        mutants, survivors and rate of the single family; `families` with mutants, survivors, equivalent and rate of
        each; `by_operation`: survivors and mutants of the single family per operation.
    """
    rng = random.Random(f"strength {seed}")
    families: dict[str, Counter[str]] = {name: Counter() for name in ("single", "double", "dropped", "swapped")}
    by_operation: dict[str, Counter[str]] = {}
    for problem in problems:
        chain = chain_of(problem)
        for family, name, mutant in _mutants(chain, rng):
            verdict = _judge(problem, chain, mutant, rng)
            families[family][verdict] += 1
            if family == "single":
                by_operation.setdefault(name, Counter())[verdict] += 1
    summary = {name: _summary(counts) for name, counts in families.items()}
    single = {key: summary["single"][key] for key in ("mutants", "survivors", "rate")}
    operations = {name: _summary(by_operation[name]) for name in sorted(by_operation)}
    return {"problems": len(problems), **single, "families": summary, "by_operation": operations}


def _summary(counts: Counter[str]) -> Json:
    mutants = counts["caught"] + counts["survivor"]
    rate = counts["survivor"] / mutants if mutants else None
    return {
        "mutants": mutants,
        "survivors": counts["survivor"],
        "rate": rate,
        "equivalent": counts["equivalent"],
    }


def _mutants(chain: Chain, rng: random.Random) -> Iterator[tuple[str, str, Mutant]]:
    single = misconceptions(chain)
    for position, misconception in single:
        yield "single", chain[position].name, _planted(chain, {position: misconception})
    for _ in range(2):
        if len(chain) > 1:
            i, j = rng.sample(range(len(chain)), 2)
            pair = {position: rng.randrange(len(chain[position].operation.wrong)) for position in (i, j)}
            yield "double", "", _planted(chain, pair)
    for position in range(len(chain)):
        yield "dropped", "", _reordered((*chain[:position], *chain[position + 1 :]))
    for i in range(len(chain) - 1):
        yield "swapped", "", _reordered((*chain[:i], chain[i + 1], chain[i], *chain[i + 2 :]))


def _planted(chain: Chain, wrong: dict[int, int]) -> Mutant:
    def mutant(state: Any) -> Any:
        for position, step in enumerate(chain):
            if state is FAILED:
                return FAILED
            if position in wrong:
                state = run_misconception(step, wrong[position], state)
            else:
                state = run_chain([step], state)
        return state

    return mutant


def _reordered(chain: Sequence[Step]) -> Mutant:
    return lambda state: run_chain(chain, state)


def _judge(problem: Problem, chain: Chain, mutant: Mutant, rng: random.Random) -> str:
    if any(mutant(call.args[0]) != call.expected for call in calls_of(problem)):
        return "caught"
    for _ in range(_FRESH_INPUTS):
        states = states_of(chain, draw_input(rng, chain[0].operation.takes))
        if states is not None and mutant(states[0]) != states[-1]:
            return "survivor"
    return "equivalent"
