"""More tests for problems of HumanEval's form: variations of the inputs in the tests, outputs from the reference.

A variation keeps the types: numbers move, sequences lose, gain, swap and repeat members, texts too. What a function is
meant for is not written down anywhere, so an input counts only when the reference gives an answer and at least half of
the distinct programs that pass the original tests give the same.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence
from typing import Any

from psgpo.execution import Sandbox
from psgpo.execution.comparators import COMPARATORS
from psgpo.problems.programs import program_of
from psgpo.records import AssertTests, Call, CallTests, Problem


def stronger_tests(
    sandbox: Sandbox, problem: Problem, passing: Sequence[str], *, count: int = 200, seed: int = 0
) -> CallTests | None:
    """At most `count` generated calls; None when the inputs of the tests cannot be read or no variation counts."""
    assert isinstance(problem.tests, AssertTests)
    rng = random.Random(f"{seed} {problem.id}")
    seeds = inputs_of(problem.tests)
    if not seeds:
        return None
    calls: dict[str, tuple[Any, ...]] = {}
    for _ in range(4 * count):
        varied = tuple(_vary(value, rng) for value in rng.choice(seeds))
        calls.setdefault(repr(varied), varied)
        if len(calls) == count:
            break
    inputs = list(calls.values())
    name = problem.tests.entry_point
    reference = program_of(problem, solution=str(problem.reference_solution))
    programs = [reference, *(program_of(problem, solution=program) for program in passing)]
    answers = [_answers(sandbox, program, name, inputs) for program in programs]
    same = COMPARATORS["close"]
    kept = []
    for index, args in enumerate(inputs):
        wanted = answers[0][index]
        if wanted.error is not None:
            continue
        votes = [a[index].error is None and same(wanted.value, a[index].value, args, 0.0) for a in answers[1:]]
        if not votes or 2 * sum(votes) >= len(votes):
            kept.append(Call(args=args, expected=wanted.value))
    return CallTests(function=name, calls=tuple(kept), comparator="close") if kept else None


def _answers(sandbox: Sandbox, program: str, name: str, inputs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Every answer; inputs go in small groups, so that one endless call spoils few others."""
    groups = [inputs[start : start + 5] for start in range(0, len(inputs), 5)]
    replies = sandbox.evaluate_many([(program, name, group) for group in groups])
    return [outcome for reply in replies for outcome in reply]


def inputs_of(tests: AssertTests) -> list[tuple[Any, ...]]:
    """Literal arguments of the calls of the entry point in the checks."""
    found = []
    names = {tests.entry_point}
    for statement in ast.parse(tests.setup).body:  # HumanEval's scripts call it `candidate`
        if isinstance(statement, ast.Assign) and ast.unparse(statement.value) == tests.entry_point:
            names |= {ast.unparse(target) for target in statement.targets}
    for check in tests.checks:
        for node in ast.walk(ast.parse(check)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                try:
                    found.append(tuple(ast.literal_eval(argument) for argument in node.args))
                except ValueError:
                    continue
    return found


def _vary(value: Any, rng: random.Random) -> Any:
    """The value, or one of its type near it."""
    if rng.random() < 0.2:
        return value
    if isinstance(value, bool):
        return rng.random() < 0.5
    if isinstance(value, int):
        return rng.choice([value + rng.randint(-3, 3), rng.randint(0, 12), value * 2, abs(value) // 2])
    if isinstance(value, float):
        return rng.choice([value + rng.randint(-3, 3), round(value * rng.random() * 2, 2), float(int(value))])
    if isinstance(value, str):
        return "".join(_members(list(value), rng))
    if isinstance(value, list):
        return _members(value, rng)
    if isinstance(value, tuple):
        return tuple(_vary(item, rng) for item in value)
    return value


def _members(items: list[Any], rng: random.Random) -> list[Any]:
    items = list(items)
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(6)
        if kind == 0 and items:
            del items[rng.randrange(len(items))]
        elif kind == 1 and items:
            items.insert(rng.randrange(len(items) + 1), rng.choice(items))
        elif kind == 2 and len(items) > 1:
            left, right = rng.sample(range(len(items)), 2)
            items[left], items[right] = items[right], items[left]
        elif kind == 3 and items and not isinstance(items[0], str):
            place = rng.randrange(len(items))
            items[place] = _vary(items[place], rng)
        elif kind == 4 and len(items) > 1:
            items = items[: rng.randint(1, len(items))]
        elif kind == 5 and items:
            items = items[::-1] if rng.random() < 0.5 else items + items[: rng.randint(1, len(items))]
    return items
