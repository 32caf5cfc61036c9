"""Generated inputs stay inside what the known ones have in common."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from psgpo.mutation.inputs import Contract, generate_inputs


def made(known: list[tuple[object, ...]], count: int = 60) -> list[tuple[object, ...]]:
    return generate_inputs(known, count, random.Random(0))


def test_a_length_stays_the_length() -> None:
    inputs = made([([3, 1, 2], 3), ([5, 4], 2), ([9, 9, 9, 1], 4)])
    assert len(inputs) == 60
    assert all(n == len(items) for items, n in inputs)
    assert len({n for _, n in inputs}) > 2


def test_order_signs_shapes_and_emptiness_are_kept() -> None:
    assert all(items == sorted(items) for (items,) in made([([1, 2, 5],), ([0, 4, 6, 9],)]))
    assert all(n >= 1 for (n,) in made([(3,), (8,), (1,)], 5))
    assert any(n < 0 for (n,) in made([(3,), (-8,)]))
    assert all(items for (items,) in made([([2, 1],), ([1],)]))
    assert any(not items for items, _ in made([([2, 1], 5), ([], 9)]))
    rows = made([([[1, 2], [3, 4]],), ([[5, 1, 1], [0, 0, 2]],)])
    assert all(len({len(row) for row in matrix}) == 1 for (matrix,) in rows)
    assert all(low < high for low, high in made([(1, 5), (2, 9)]))
    assert all(len(a) == len(b) for a, b in made([([1, 2], [3, 1]), ([4], [5])]))
    assert all(item in items for items, item in made([([4, 2, 6], 2), ([1, 8], 8)]))


def test_types_stay_at_every_depth() -> None:
    known = [({"a": (1, "x")}, [("p", 2.5)], True), ({"b": (7, "yz")}, [("q", 1.5), ("r", 0.5)], False)]
    inputs = made(known)
    assert inputs
    for table, pairs, flag in inputs:
        assert type(flag) is bool
        assert all(type(n) is int and type(t) is str for n, t in table.values())
        assert all(type(t) is str and type(x) is float for t, x in pairs)


def test_known_inputs_and_repeats_do_not_come_back() -> None:
    known = [("ab",), ("abc",)]
    inputs = made(known)
    assert not set(inputs) & set(known)
    assert len(set(inputs)) == len(inputs)
    assert set("".join(text for (text,) in inputs)) <= set("abc")


def test_infinite_and_undefined_numbers_stay_as_they_are() -> None:
    inputs = made([(float("inf"), 1), (float("-inf"), 2)])
    assert inputs
    assert {x for x, _ in inputs} <= {float("inf"), float("-inf")}
    assert all(x != x for x, _ in made([(float("nan"), 1), (float("nan"), 2)]))


def test_nothing_to_change() -> None:
    assert made([()]) == []
    assert made([(None,), (b"x",)]) == []
    assert generate_inputs([(list(range(5000)),)], 5, random.Random(0)) == []


values = st.recursive(
    st.integers(-50, 50) | st.text("abc", max_size=5) | st.booleans() | st.floats(-9, 9) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text("xy"), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=80)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=4), st.integers(0, 9))
def test_any_plain_inputs_do(known: list[tuple[object, ...]], seed: int) -> None:
    before = repr(known)
    first = generate_inputs(known, 8, random.Random(seed))
    assert repr(first) == repr(generate_inputs(known, 8, random.Random(seed)))
    assert repr(known) == before  # nothing is changed in place
    contract = Contract(known)
    assert all(map(contract.holds, known))
