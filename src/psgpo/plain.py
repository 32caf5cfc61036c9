"""Plain Python values as JSON, without losing what JSON has no word for.

JSON's own values stand for themselves. Everything else becomes an object with one key that starts with `$`:

    {"$tuple": [...]}   {"$set": [...]}   {"$frozenset": [...]}   {"$dict": [[key, value], ...]}
    {"$bytes": "hex"}   {"$float": "nan" | "inf" | "-inf"}        {"$complex": [real, imaginary]}

A dict is a JSON object when all its keys are strings and none starts with `$`. The file format of problems; the
sandbox's channel has a stricter encoding of its own, because its reader trusts nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def to_json_value(value: Any) -> Any:
    """The value in JSON's own types.

    Raises:
        ValueError: it contains something else than None, numbers, strings, bytes and builtin containers.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is list:
        return [to_json_value(item) for item in value]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: to_json_value(item) for key, item in value.items()}
        return {"$dict": [[to_json_value(key), to_json_value(item)] for key, item in value.items()]}
    if kind is tuple:
        return {"$tuple": [to_json_value(item) for item in value]}
    if kind in (set, frozenset):
        return {f"${kind.__name__}": [to_json_value(item) for item in sorted(value, key=repr)]}
    if kind is bytes:
        return {"$bytes": value.hex()}
    if kind is complex:
        return {"$complex": [to_json_value(value.real), to_json_value(value.imag)]}
    raise ValueError(f"a value of type {kind.__name__} cannot be written as JSON")


def from_json_value(value: Any) -> Any:
    """The inverse of `to_json_value`.

    Raises:
        ValueError: an object with an unknown `$` key, or with the wrong content for its key.
    """
    if type(value) is list:
        return [from_json_value(item) for item in value]
    if type(value) is not dict:
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: from_json_value(item) for key, item in value.items()}
    if len(value) != 1 or tag not in _READERS:
        raise ValueError(f"unknown tagged value {{{tag!r}: ...}}; known tags: {', '.join(_READERS)}")
    try:
        return _READERS[tag](value[tag])
    except (TypeError, ValueError) as error:
        raise ValueError(f"malformed {tag} value: {error}") from None


def _items(content: Any) -> list[Any]:
    if type(content) is not list:
        raise ValueError("needs a list")
    return [from_json_value(item) for item in content]


def _float(content: Any) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError("needs nan, inf or -inf")
    return float(content)


_READERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda content: tuple(_items(content)),
    "$set": lambda content: set(_items(content)),
    "$frozenset": lambda content: frozenset(_items(content)),
    "$dict": lambda content: dict(_items(content)),
    "$bytes": lambda content: bytes.fromhex(content),
    "$float": _float,
    "$complex": lambda content: complex(*_items(content)),
}
