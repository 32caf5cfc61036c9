"""More inputs from known ones: small, type-guided changes that stay inside what the known inputs have in common.

Nobody wrote down what the functions of a benchmark may be called with. A `Contract` is learned from the known inputs:
types at every depth, signs, sizes, lengths, order, and relations such as "the second argument is the length of the
first". An input outside of it proves nothing: the reference may do anything there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

Arguments = tuple[Any, ...]
Path = tuple[int | str, ...]
_TRIES_PER_INPUT = 12
_MAX_ITEMS = 200
"""Known inputs with more members than this are not changed: they test speed, not meaning."""
_MAX_CHANGES = 3


@dataclass(slots=True)
class _Seen:
    """What the known inputs hold at one path."""

    types: set[type] = field(default_factory=set)
    lowest: float = float("inf")
    highest: float = float("-inf")
    lengths: set[int] = field(default_factory=set)
    sorted: bool = True
    distinct: bool = True
    characters: set[str] = field(default_factory=set)


class Contract:
    """What all known inputs have in common.

    Args:
        known: at least one tuple of arguments.
    """

    def __init__(self, known: Sequence[Arguments]) -> None:
        self._seen: dict[Path, _Seen] = {}
        self._arities = {len(arguments) for arguments in known}
        for arguments in known:
            for path, value in _walk(arguments):
                _note(self._seen.setdefault(path, _Seen()), value)
        self._relations = [relation for relation in _relations(known) if all(map(relation, known))]

    def holds(self, arguments: Arguments) -> bool:
        """Whether the arguments look like the known ones."""
        if len(arguments) not in self._arities or not all(relation(arguments) for relation in self._relations):
            return False
        return all(self._fits(path, value) for path, value in _walk(arguments))

    def characters(self, path: Path) -> list[str]:
        return sorted(self._seen[path].characters) if path in self._seen else []

    def _fits(self, path: Path, value: Any) -> bool:
        seen = self._seen.get(path)
        if seen is None or type(value) not in seen.types:
            return False
        if type(value) in (int, float):
            low = 1 if seen.lowest >= 1 else 0 if seen.lowest >= 0 else 2 * seen.lowest - 2
            return bool(low <= value <= max(2 * seen.highest, seen.highest / 2) + 2)
        if isinstance(value, str | list | tuple | set | frozenset | dict):
            if len(value) == 0 and 0 not in seen.lengths:
                return False
            if isinstance(value, tuple) and len(seen.lengths) == 1 and len(value) not in seen.lengths:
                return False
        if isinstance(value, list | tuple):
            return not (seen.sorted and not _is_sorted(value)) and not (seen.distinct and not _is_distinct(value))
        return True


def generate_inputs(known: Sequence[Arguments], count: int, rng: random.Random) -> list[Arguments]:
    """Up to `count` new inputs that no known one equals and that keep the contract of the known ones."""
    small = [arguments for arguments in known if sum(1 for _ in _walk(arguments)) <= _MAX_ITEMS]
    if not small:
        return []
    contract, made = Contract(small), []
    keys = {repr(arguments) for arguments in known}
    for _ in range(count * _TRIES_PER_INPUT):
        arguments = rng.choice(small)
        for _ in range(rng.randint(1, _MAX_CHANGES)):
            arguments = _changed_arguments(arguments, small, contract, rng)
        if (key := repr(arguments)) not in keys and contract.holds(arguments):
            keys.add(key)
            made.append(arguments)
            if len(made) == count:
                break
    return made


def _changed_arguments(
    arguments: Arguments, known: Sequence[Arguments], contract: Contract, rng: random.Random
) -> Arguments:
    if not arguments:
        return arguments
    place = rng.randrange(len(arguments))
    others = [other[place] for other in known if len(other) > place and type(other[place]) is type(arguments[place])]
    changed = list(arguments)
    if rng.random() < 0.2 and others:
        changed[place] = rng.choice(others)
    else:
        changed[place] = _changed(arguments[place], (place,), contract, rng)
    # A number that was the length of a sequence stays it.
    for i, value in enumerate(arguments):
        was_length = i != place and _whole(value) and _sized(arguments[place]) and value == len(arguments[place])
        if was_length and rng.random() < 0.9:
            changed[i] = len(changed[place])
    return tuple(changed)


def _changed(value: Any, path: Path, contract: Contract, rng: random.Random) -> Any:
    kind = type(value)
    if kind is bool:
        return not value
    if kind is int:
        near = [value - 1, value + 1, value + 2, value * 2, value // 2, -value, 0, 1]
        return rng.choice([*near, rng.randint(min(value, 0), max(value, 0) + 3)])
    if kind is float and math.isfinite(value):
        return rng.choice([value + 1, value - 0.5, value * 2, value / 2, -value, float(round(value))])
    if kind is str:
        return _changed_text(value, contract.characters(path), rng)
    if kind in (list, tuple):
        return kind(_changed_items(list(value), path, contract, rng))
    if kind in (set, frozenset):
        return kind(_changed_items(sorted(value, key=repr), path, contract, rng, hashed=True))
    if kind is dict and value:
        key = rng.choice(list(value))
        if rng.random() < 0.25:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: _changed(value[key], (*path, "values"), contract, rng)}
    return value


def _changed_text(text: str, alphabet: Sequence[str], rng: random.Random) -> str:
    position = rng.randrange(len(text) + 1)
    char = rng.choice(alphabet) if alphabet else "a"
    how = rng.randrange(6)
    if how == 0:
        return text[:position] + text[position + 1 :]
    if how == 1:
        return text[:position] + char + text[position:]
    if how == 2:
        return text[:position] + char + text[position + 1 :]
    if how == 3:
        return text[:position] + text[max(0, position - 1) : position] + text[position:]
    if how == 4:
        return text[position:] + text[:position]
    return text[: max(1, len(text) // 2)]


def _changed_items(
    items: list[Any], path: Path, contract: Contract, rng: random.Random, *, hashed: bool = False
) -> list[Any]:
    if not items:
        return items
    position = rng.randrange(len(items))
    how = rng.randrange(6)
    rest = items[:position] + items[position + 1 :]
    if how == 0:
        return rest
    if how == 1 and not hashed:
        return [*items, items[position]]
    if how == 2:
        return [*rest[: len(rest) // 2], items[position], *rest[len(rest) // 2 :]]
    new = _changed(items[position], (*path, "items"), contract, rng)
    if how == 3:
        items = [*items[:position], new, *items[position:]]
    else:
        items = [*items[:position], new, *items[position + 1 :]]
    return sorted(items) if _is_sorted([*rest]) and rng.random() < 0.5 and _is_sortable(items) else items


def _walk(arguments: Arguments) -> Iterator[tuple[Path, Any]]:
    """Every value with the path of its kind: argument number, then `items`, `keys` or `values` per level."""
    stack: list[tuple[Path, Any]] = [((index,), value) for index, value in enumerate(arguments)]
    while stack:
        path, value = stack.pop()
        yield path, value
        if isinstance(value, list | tuple | set | frozenset):
            # The members of a short tuple are a record: each has its own meaning.
            record = isinstance(value, tuple) and len(value) <= 4
            stack += [((*path, index if record else "items"), item) for index, item in enumerate(value)]
            stack += [((*path, "items"), item) for item in value] if record else []
        elif isinstance(value, dict):
            stack += [((*path, "keys"), key) for key in value] + [((*path, "values"), v) for v in value.values()]


def _note(seen: _Seen, value: Any) -> None:
    seen.types.add(type(value))
    if type(value) in (int, float):
        seen.lowest, seen.highest = min(seen.lowest, value), max(seen.highest, value)
    elif isinstance(value, str):
        seen.lengths.add(len(value))
        seen.characters |= set(value)
    elif isinstance(value, list | tuple | set | frozenset | dict):
        seen.lengths.add(len(value))
        if isinstance(value, list | tuple):
            seen.sorted = seen.sorted and _is_sorted(value)
            seen.distinct = seen.distinct and _is_distinct(value)


def _relations(known: Sequence[Arguments]) -> Iterator[Callable[[Arguments], bool]]:
    """Relations of one argument, or between two, that may hold."""
    width = min(len(arguments) for arguments in known)
    for i in range(width):
        yield partial(_one, i)
        for j in range(width):
            if i != j:
                yield from (partial(_two, compare, i, j) for compare in _PAIRS)


def _one(i: int, arguments: Arguments) -> bool:
    return isinstance(arguments[i], list | tuple) and _is_rectangular(arguments[i])


def _two(compare: Callable[[Any, Any], bool], i: int, j: int, arguments: Arguments) -> bool:
    return compare(arguments[i], arguments[j])


_PAIRS: tuple[Callable[[Any, Any], bool], ...] = (
    lambda a, b: _whole(b) and _sized(a) and b == len(a),
    lambda a, b: _whole(b) and _sized(a) and b <= len(a),
    lambda a, b: _whole(b) and _sized(a) and b < len(a),
    lambda a, b: _number(a) and _number(b) and a < b,
    lambda a, b: _number(a) and _number(b) and a <= b,
    lambda a, b: _number(a) and _number(b) and a != b,
    lambda a, b: _sized(a) and _sized(b) and len(a) == len(b),
    lambda a, b: _sized(a) and not _sized(b) and _contains(a, b),
)


def _whole(value: Any) -> bool:
    return type(value) is int


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _sized(value: Any) -> bool:
    return isinstance(value, str | list | tuple)


def _contains(container: Any, item: Any) -> bool:
    try:
        return item in container
    except TypeError:
        return False


def _is_rectangular(rows: Sequence[Any]) -> bool:
    return all(isinstance(row, list | tuple) for row in rows) and len({len(row) for row in rows}) == 1


def _is_sorted(items: Sequence[Any]) -> bool:
    try:
        return all(a <= b for a, b in pairwise(items))
    except TypeError:
        return False


def _is_sortable(items: Sequence[Any]) -> bool:
    return len({type(item) for item in items}) == 1 and type(items[0]) in (int, float, str, tuple) and _safe(items)


def _safe(items: Sequence[Any]) -> bool:
    try:
        sorted(items)
    except TypeError:
        return False
    return True


def _is_distinct(items: Sequence[Any]) -> bool:
    return len({repr(item) for item in items}) == len(items)
