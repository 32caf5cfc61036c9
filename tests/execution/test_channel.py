"""The channel rebuilds exactly what was sent, or refuses it; a hostile writer costs the reader little."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psgpo.execution import channel
from psgpo.execution.channel import BadValueError, TooLargeError

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**300), max_value=2**300)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
    | st.builds(range, st.integers(-99, 99), st.integers(-(2**70), 2**70), st.just(2**66) | st.just(-(2**66)))
    | st.builds(range, st.integers(-99, 99))
    | st.sampled_from([bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range])
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4), max_leaves=5
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
    ),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """The value with every type written out, so that 1, True and 1.0, or -0.0 and 0.0, cannot be mixed up."""
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return (kind, [shape(item) for item in value])
    if isinstance(value, dict):
        return (kind, [(shape(key), shape(item)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return (kind, sorted((shape(item) for item in value), key=repr))
    return (kind, repr(value))


@settings(max_examples=120)
@given(values)
def test_every_plain_value_comes_back_with_exact_types(value: Any) -> None:
    assert shape(channel.decode(channel.encode(value))) == shape(value)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Pair(tuple[Any, ...]):
    __slots__ = ()


strangers = st.sampled_from(
    [Text("a"), Number(3), Pair((1, 2)), object(), iter(()), bytearray(b"x"), memoryview(b"x"), len, Text, ...]
) | st.text(st.characters(categories=["Cs"]), min_size=1)


@settings(max_examples=80)
@given(st.data())
def test_one_foreign_value_anywhere_is_refused(data: st.DataObject) -> None:
    """Plain data round it does not let it through, and `foreign` sees exactly that value."""
    stranger = data.draw(strangers)
    value: Any = stranger
    for wrap in data.draw(st.lists(st.sampled_from(["list", "tuple", "value", "beside"]), max_size=6)):
        beside = data.draw(values)
        value = {"list": [value], "tuple": (value,), "value": {"k": value}, "beside": [beside, value, beside]}[wrap]
    with pytest.raises(BadValueError):
        channel.encode(value)
    if type(stranger) is not str:
        seen: list[Any] = []
        channel.encode(value, foreign=lambda item: seen.append(item))
        assert len(seen) == 1
        assert seen[0] is stranger


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_refused_or_are_a_value(data: bytes) -> None:
    _refused_or_stable(data)


json_trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["nan", "inf", "ff"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from("tsfdbincryhx") | st.text(max_size=2), inner, max_size=2)
        | st.dictionaries(st.sampled_from("tsfd"), st.lists(st.lists(inner, min_size=2, max_size=2)), max_size=1)
    ),
    max_leaves=12,
)


@settings(max_examples=400)
@given(json_trees)
def test_any_tree_is_refused_or_is_a_value(tree: Any) -> None:
    _refused_or_stable(json.dumps(tree).encode())


def _refused_or_stable(data: bytes) -> None:
    """What is let in is plain data: it can be sent again and stays what it is."""
    try:
        value = channel.decode(data)
    except (BadValueError, TooLargeError):
        return
    assert shape(channel.decode(channel.encode(value))) == shape(value)


def test_special_numbers_come_back() -> None:
    assert math.isnan(channel.decode(channel.encode([math.nan]))[0])
    assert channel.decode(channel.encode((math.inf, -math.inf))) == (math.inf, -math.inf)
    assert math.copysign(1, channel.decode(channel.encode(-0.0))) == -1
    limit = 1 << (channel.MAX_INT_BITS - 1)
    assert channel.decode(channel.encode(-limit)) == -limit


@pytest.mark.parametrize("value", [range(0), range(5, -5, -3), range(-(2**80), 2**80, 2**79), 1j, -0.0 + 1e300j])
def test_ranges_and_complex_numbers_come_back(value: Any) -> None:
    assert shape(channel.decode(channel.encode([value]))) == shape([value])


@pytest.mark.parametrize(
    "tree",
    [
        {"r": [0, 10**9, 1]},
        {"r": [10**30, 0, -1]},
        {"r": [0, {"i": "f" * 200}, 1]},
    ],
)
def test_ranges_too_long_to_list_are_refused(tree: Any) -> None:
    with pytest.raises(TooLargeError):
        channel.decode(json.dumps(tree).encode())
    with pytest.raises(TooLargeError):
        channel.encode(range(10**9))


def test_nan_is_refused_unless_allowed() -> None:
    with pytest.raises(BadValueError, match="NaN"):
        channel.decode(channel.encode(complex(0, math.nan)), allow_nan=False)
    with pytest.raises(BadValueError, match="NaN"):
        channel.decode(channel.encode({"a": (1, math.nan)}), allow_nan=False)


@pytest.mark.parametrize(
    "value", [Text("a"), [Text("a")], {Text("a"): 1}, object(), iter(()), bytearray(b"x"), "\ud800", len]
)
def test_what_is_not_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(BadValueError):
        channel.encode(value)


def test_cycles_depth_and_size_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(BadValueError, match="nest deeper"):
        channel.encode(cycle)
    unfolds: Any = [0]
    for _ in range(90):
        unfolds = [unfolds, unfolds]
    for value in (unfolds, "x" * (channel.MAX_BYTES + 1), b"x" * channel.MAX_BYTES, 1 << channel.MAX_INT_BITS):
        with pytest.raises(TooLargeError):
            channel.encode(value)


def test_a_long_string_shared_many_times_is_charged_each_time() -> None:
    with pytest.raises(TooLargeError):
        channel.encode(["x" * 100_000] * 100)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b'"\\ud800"',
        b"{}",
        b'{"t":[],"s":[]}',
        b'{"x":[]}',
        b'{"ts":[]}',
        b'{"":[]}',
        b'{"t":1}',
        b'{"d":[[1]]}',
        b'{"d":[1]}',
        b'{"s":[[1]]}',
        b'{"d":[[{"d":[]},1]]}',
        b'{"i":"zz"}',
        b'{"i":5}',
        b'{"b":"0"}',
        b'{"n":"1"}',
        b"9" * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        b"[" * 150 + b"]" * 150,
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadValueError):
        channel.decode(data)


@pytest.mark.parametrize(
    "members",
    [
        [k * ((1 << 61) - 1) for k in range(150_000)],
        [{"t": [k * ((1 << 61) - 1), 0]} for k in range(40_000)],
    ],
    ids=["ints", "tuples"],
)
def test_colliding_members_are_refused_before_they_are_built(members: list[Any]) -> None:
    for tree in ({"s": members}, {"f": members}, {"d": [[member, None] for member in members]}):
        with pytest.raises(TooLargeError):
            channel.decode(json.dumps(tree, separators=(",", ":")).encode())


def test_honest_sets_with_a_few_collisions_pass() -> None:
    grid = {(x, y) for x in range(-60, 60) for y in range(-60, 60)}  # hash(-1) == hash(-2)
    powers = {2**k for k in range(1000)}  # hash(2**k) repeats every 61
    for value in (grid, powers):
        assert channel.decode(channel.encode(value)) == value
