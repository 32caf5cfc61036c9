"""Stronger tests: those of the problem itself, then those of an extended benchmark, then generated ones.

Each further stage holds only inputs on which the reference gives one and the same plain answer every time, so the
reference passes all of it.
"""

from __future__ import annotations

import ast
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from psgpo.mutation.inputs import Arguments, generate_inputs
from psgpo.mutation.program import parse
from psgpo.plain import to_json_value
from psgpo.problems.benchmarks.references import Outcome
from psgpo.records import AssertTests, Call, CallTests, Problem, Status, Tests, Verdict
from psgpo.seeds import derive_seed

OWN, PLUS, GENERATED = "tests", "plus", "generated"
STAGES = (OWN, PLUS, GENERATED)
"""In the order in which programs meet them."""
_MAX_SHARE = 0.1
"""A stage may take the reference this share of the time limit: what takes ten times as long, also on a busy machine, is
endless."""
_MAX_SEEDS = 40
_MAX_OUTPUT = 20_000
"""Characters of an expected value's text."""
_OTHER_SEED = "\n__import__('random').seed(20260401)\n"
"""Behind the reference when it is asked for the second time: the sandbox seeds `random` alike for every program, so
that what draws numbers would seem steady."""
_SET_WRAPPERS = frozenset({"set", "sorted", "Counter"})


class Grader(Protocol):
    """The part of `psgpo.execution.Sandbox` that is needed."""

    def grade(self, items: Iterable[tuple[str, Tests]]) -> list[Verdict]: ...

    def evaluate_many(
        self, items: Sequence[tuple[str, str, Sequence[tuple[Any, ...]]]]
    ) -> Sequence[Sequence[Outcome]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Tests that a program must pass to get to the next stage."""

    name: str
    tests: Tests
    refused: int = 0
    """Tests left out because the reference fails them, or gives no plain or steady answer."""

    @property
    def count(self) -> int:
        tests = self.tests
        if isinstance(tests, CallTests):
            return len(tests.calls)
        return len(tests.checks if isinstance(tests, AssertTests) else tests.cases)


def plus_stages(
    problems: Sequence[Problem], plus: Mapping[str, Problem], grader: Grader, *, timeout: float
) -> list[Stage | None]:
    """Per problem the extended benchmark's tests that its own reference passes; None where there are none."""
    wanted = [_same_function(problem, plus.get(problem.id)) for problem in problems]
    return _passed_by_reference(PLUS, problems, wanted, grader, timeout)


def generated_stages(
    problems: Sequence[Problem], more: Sequence[Stage | None], grader: Grader, *, count: int, seed: int, timeout: float
) -> list[Stage | None]:
    """Per problem new inputs with the reference's answers; None where no input could be made.

    Args:
        more: the stages of `plus_stages`, whose inputs are known ones too.
        count: inputs to make for a problem.
    """
    made = []
    for problem, stage in zip(problems, more, strict=True):
        known = known_inputs(problem.tests) + (known_inputs(stage.tests) if stage else [])
        rng = random.Random(derive_seed(seed, "inputs", problem.id))
        seeds = known if len(known) <= _MAX_SEEDS else [known[0], *rng.sample(known[1:], _MAX_SEEDS - 1)]
        made.append(generate_inputs(seeds, count, rng))
    tests = _answered(problems, made, grader)
    return _passed_by_reference(GENERATED, problems, tests, grader, timeout)


def known_inputs(tests: Tests) -> list[Arguments]:
    """Arguments of the tests' calls, as far as they are written out in full."""
    if isinstance(tests, CallTests):
        return [call.args for call in tests.calls]
    if not isinstance(tests, AssertTests):
        return []
    found, called = [], _names_of_function(tests)
    for check in tests.checks:
        for node in ast.walk(parse(check)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in called:
                arguments = _literal_arguments(node)
                if arguments is not None:
                    found.append(arguments)
    return found


def _names_of_function(tests: AssertTests) -> set[str]:
    """What the checks call the function: its name, and those that the setup gives it (HumanEval's `candidate`)."""
    found = {tests.entry_point}
    for node in parse(tests.setup).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == tests.entry_point:
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _literal_arguments(call: ast.Call) -> Arguments | None:
    if call.keywords:
        return None
    try:
        values = tuple(ast.literal_eval(argument) for argument in call.args)
        to_json_value(list(values))
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    return values


def _same_function(problem: Problem, other: Problem | None) -> Tests | None:
    """The other problem's tests, if they call the same function."""
    if other is None:
        return None
    return other.tests if _function(other.tests) == _function(problem.tests) else None


def _function(tests: Tests) -> str | None:
    if isinstance(tests, CallTests):
        return tests.function
    return tests.entry_point if isinstance(tests, AssertTests) else None


def _answered(problems: Sequence[Problem], inputs: Sequence[Sequence[Arguments]], grader: Grader) -> list[Tests | None]:
    """Tests from inputs: what the reference answers twice alike is expected."""
    asked = [i for i, calls in enumerate(inputs) if calls and _function(problems[i].tests)]
    items = []
    for i in asked:
        reference, function = problems[i].reference_solution or "", _function(problems[i].tests) or ""
        items += [(text, function, inputs[i]) for text in (reference, reference + _OTHER_SEED)]
    answers = grader.evaluate_many(items) if items else []
    tests: list[Tests | None] = [None] * len(problems)
    for place, i in enumerate(asked):
        calls = [
            Call(args=arguments, expected=first.value)
            for arguments, first, second in zip(inputs[i], answers[2 * place], answers[2 * place + 1], strict=True)
            if _usable(first, second)
        ]
        if calls:
            tests[i] = _calls_like(problems[i].tests, calls)
    return tests


def _usable(first: Outcome, second: Outcome) -> bool:
    if first.error is not None or second.error is not None or repr(first.value) != repr(second.value):
        return False
    if type(first.value) is float and not math.isfinite(first.value):
        return False
    return len(repr(first.value)) <= _MAX_OUTPUT


def _calls_like(tests: Tests, calls: Sequence[Call]) -> CallTests:
    """Calls that are compared as the problem's own tests compare."""
    if isinstance(tests, CallTests):
        return replace(tests, calls=tuple(calls))
    assert isinstance(tests, AssertTests)
    unordered = any(_compares_members(check, _names_of_function(tests)) for check in tests.checks)
    comparator = "evalplus-set" if unordered else "evalplus"
    return CallTests(function=tests.entry_point, calls=tuple(calls), comparator=comparator)


def _compares_members(check: str, called: set[str]) -> bool:
    """`assert set(f(x)) == ...`: the order of what comes back does not count."""
    for node in ast.walk(parse(check)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SET_WRAPPERS:
            inner = node.args[0] if node.args else None
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id in called:
                return True
    return False


def _passed_by_reference(
    name: str, problems: Sequence[Problem], wanted: Sequence[Tests | None], grader: Grader, timeout: float
) -> list[Stage | None]:
    """Stages of the tests that the references pass in a fair share of the time."""
    totals = [_size(tests) for tests in wanted]
    kept = list(wanted)
    for _ in range(2):  # once to sort out, once to see that what is left passes, fast enough
        places = [i for i, tests in enumerate(kept) if tests is not None]
        items = [(problems[i].reference_solution or "", tests) for i in places if (tests := kept[i]) is not None]
        for i, verdict in zip(places, grader.grade(items), strict=True):
            tests = kept[i]
            assert tests is not None
            kept[i] = _selected(tests, _good(verdict, timeout))
    return [
        Stage(name=name, tests=tests, refused=total - _size(tests)) if tests is not None else None
        for tests, total in zip(kept, totals, strict=True)
    ]


def _good(verdict: Verdict, timeout: float) -> list[int]:
    """Numbers of the tests that held, thinned out evenly where all together take too long."""
    good = [number for number, status in enumerate(verdict.outcomes) if status is Status.PASSED]
    step = max(1, math.ceil(verdict.cpu_seconds / (_MAX_SHARE * timeout)))
    return good[::step]


def _selected(tests: Tests, numbers: Sequence[int]) -> Tests | None:
    if not numbers:
        return None
    if isinstance(tests, CallTests):
        return replace(tests, calls=tuple(tests.calls[i] for i in numbers))
    assert isinstance(tests, AssertTests)
    return replace(tests, checks=tuple(tests.checks[i] for i in numbers))


def _size(tests: Tests | None) -> int:
    return 0 if tests is None else Stage(name="", tests=tests).count
