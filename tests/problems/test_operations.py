"""Every operation: its right code does what it means, its wrong code does not."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from psgpo.problems.opchain.chain import draw_input
from psgpo.problems.opchain.operation import Step, copy_state, runnable
from psgpo.problems.opchain.operations import NO_OPS, OPERATIONS

STEPS = [
    pytest.param(Step(operation, parameter), id=f"{operation.name}-{parameter}")
    for operation in OPERATIONS.values()
    for parameter in (operation.parameters or (0,))
]


def states_for(step: Step) -> list[Any]:
    rng = random.Random(step.name)
    drawn = [draw_input(rng, step.operation.takes) for _ in range(150)]
    return [state for state in drawn if step.defined(state)]


def result(code: tuple[str, ...], state: Any) -> Any:
    try:
        return runnable(code)(copy_state(state))
    except (ValueError, IndexError) as error:
        return type(error)


@pytest.mark.parametrize("step", STEPS)
def test_right_code_means_apply_and_wrong_code_does_not(step: Step) -> None:
    states = states_for(step)
    assert len(states) > 50
    for state in states:
        before = copy_state(state)
        expected = step.apply(state)
        assert state == before, "apply must not change its argument"
        assert type(expected) is {"list": list, "int": int, "str": str}[step.operation.gives]
        for code in step.correct():
            assert result(code, state) == expected, (code, state)
    for misconception in range(len(step.operation.wrong)):
        spellings = step.wrong(misconception)
        outcomes = [[result(code, state) for state in states] for code in spellings]
        assert all(outcome == outcomes[0] for outcome in outcomes), f"spellings of one mistake differ: {spellings}"
        wrong = sum(got != step.apply(state) for got, state in zip(outcomes[0], states, strict=True))
        assert wrong >= 0.05 * len(states), spellings


def test_examples_by_hand() -> None:
    def apply(name: str, state: Any, parameter: int = 0) -> Any:
        return OPERATIONS[name].apply(state, parameter)

    assert apply("rotate", [1, 2, 3, 4], 3) == [4, 1, 2, 3]
    assert apply("swap_pairs", [1, 2, 3, 4, 5]) == [2, 1, 4, 3, 5]
    assert apply("divide_each", [-1, 5], 2) == [-1, 2]
    assert apply("running_largest", [1, 3, 2]) == [1, 3, 3]
    assert apply("unique", [2, 1, 2]) == [2, 1]
    assert apply("halve_or_triple", 7) == 22
    assert apply("letter_codes", apply("letters", [0, 27, -1])) == [0, 1, 25]
    assert apply("double_letters", "ab") == "aabb"
    assert apply("digit_sum", -105) == 6


def test_the_registry_is_what_the_documentation_says() -> None:
    kinds = [(operation.takes, operation.gives) for operation in OPERATIONS.values()]
    assert kinds.count(("list", "list")) > len(OPERATIONS) / 2
    assert {("list", "int"), ("int", "int"), ("int", "str"), ("list", "str"), ("str", "list"), ("str", "str")} <= set(
        kinds
    )
    for operation in OPERATIONS.values():
        assert 3 <= len(operation.phrasings) <= 4
        assert 1 <= len(operation.wrong) <= 3
        assert all(text not in operation.correct for spellings in operation.wrong for text in spellings)


def test_the_language_is_small() -> None:
    texts = [
        text
        for operation in OPERATIONS.values()
        for text in (*operation.phrasings, *operation.correct, *(t for w in operation.wrong for t in w))
    ]
    words = {word for text in texts for word in re.findall(r"[A-Za-z_]+|\d+|[^\w\s]", text)}
    assert len(words) < 260


def test_no_ops_do_nothing() -> None:
    for statement in NO_OPS:
        assert runnable((f"    {statement}",))([3, 1]) == [3, 1]
