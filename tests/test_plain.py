"""Plain values survive the way through JSON text exactly, and what is malformed is named."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psgpo.plain import from_json_value, to_json_value

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
keys = hashables | st.sampled_from(["$", "$tuple", "$dict", "$unknown", ""])
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(hashables, max_size=4)
    ),
    max_leaves=15,
)


def shape(value: Any) -> Any:
    """The value with every type written out: 1, True and 1.0 differ, and so do 0.0 and -0.0."""
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return kind, [shape(item) for item in value]
    if isinstance(value, dict):
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted((shape(item) for item in value), key=repr)
    return kind, repr(value)


@settings(max_examples=200)
@given(values)
def test_every_plain_value_comes_back_from_json_text_with_exact_types(value: Any) -> None:
    text = json.dumps(to_json_value(value), allow_nan=False)
    assert shape(from_json_value(json.loads(text))) == shape(value)


def test_a_set_is_always_written_in_the_same_order() -> None:
    assert to_json_value({"b", "c", "a"}) == {"$set": ["a", "b", "c"]}
    assert to_json_value(frozenset([2, "x", None])) == {"$frozenset": ["x", 2, None]}


def test_what_each_value_looks_like() -> None:
    value = {"a": (1, [2.5]), "b": {3}, "c": frozenset(), "d": {1: None, "$x": b"\x00\xff"}, "e": [math.inf, 1 - 2j]}
    assert to_json_value(value) == {
        "a": {"$tuple": [1, [2.5]]},
        "b": {"$set": [3]},
        "c": {"$frozenset": []},
        "d": {"$dict": [[1, None], ["$x", {"$bytes": "00ff"}]]},
        "e": [{"$float": "inf"}, {"$complex": [1.0, -2.0]}],
    }
    assert to_json_value({"$": 1}) == {"$dict": [["$", 1]]}


def test_nan_comes_back() -> None:
    assert math.isnan(from_json_value(to_json_value([math.nan]))[0])
    back = from_json_value(to_json_value(complex(math.nan, -math.inf)))
    assert math.isnan(back.real)
    assert back.imag == -math.inf


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [object(), Text("a"), [range(3)], {"a": len}, {Text("a"): 1}, bytearray(b"x"), int])
def test_what_is_not_plain_cannot_be_written(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        to_json_value(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"$list": []}, "unknown tagged value"),
        ({"$": 1}, "unknown tagged value"),
        ({"$tuple": [], "$set": []}, "unknown tagged value"),
        ({"$tuple": [], "a": 1}, "unknown tagged value"),
        ({"$tuple": 1}, r"malformed \$tuple value: needs a list"),
        ({"$tuple": {"a": 1}}, r"malformed \$tuple value"),
        ({"$set": [[1]]}, r"malformed \$set value"),
        ({"$set": "ab"}, r"malformed \$set value"),
        ({"$frozenset": [{}]}, r"malformed \$frozenset value"),
        ({"$dict": [[1]]}, r"malformed \$dict value"),
        ({"$dict": [1]}, r"malformed \$dict value"),
        ({"$dict": [[[], 1]]}, r"malformed \$dict value"),
        ({"$dict": {"a": 1}}, r"malformed \$dict value"),
        ({"$bytes": "0"}, r"malformed \$bytes value"),
        ({"$bytes": 5}, r"malformed \$bytes value"),
        ({"$float": "1.5"}, r"malformed \$float value"),
        ({"$float": []}, r"malformed \$float value"),
        ({"$complex": [1, 2, 3]}, r"malformed \$complex value"),
        ({"$complex": ["a", 2]}, r"malformed \$complex value"),
        ({"a": [{"$tuple": [{"$nope": 1}]}]}, "unknown tagged value"),
    ],
)
def test_malformed_tags_are_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json_value(value)
