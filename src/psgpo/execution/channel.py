"""The channel between trusted and untrusted processes: plain data in, plain data out, bounded in every direction.

A value travels as tagged JSON and is rebuilt to exact builtin types; nothing is ever unpickled. JSON's own null, true,
numbers, strings and arrays stand for None, bool, int, finite float, str and list; everything else is an object with one
key, the tag:

    {"t": [...]} tuple      {"s": [...]} set       {"f": [...]} frozenset    {"d": [[key, value], ...]} dict
    {"b": "hex"} bytes      {"i": "hex"} an int beyond 64 bits               {"n": "nan" | "inf" | "-inf"} float
    {"c": [re, im]} complex {"r": [start, stop, step]} range                 {"y": "int"} a builtin data type
    {"h": number} a reference, see `Ref`

The reader assumes that the writer is hostile: length, depth, number of nodes and digits are capped, strings must be
valid Unicode, and a set or dict whose members were chosen to collide is refused before it is built. This file runs in
all three roles, so it imports next to nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

MAX_BYTES = 2 << 20
"""Longest encoded value that an untrusted process may send, bytes."""
TRUSTED_BYTES = 64 << 20
"""Longest encoded value that tests may hold, bytes."""
MAX_DEPTH = 100
"""Deepest nesting of containers; a cycle ends here too."""
MAX_INT_BITS = 1 << 20
"""Largest integer, bits (about 315,000 decimal digits)."""
NODE_COST = 8
"""Every node is charged this many bytes of `MAX_BYTES`, which bounds the memory that a short text can unfold to."""
MAX_COLLISION_WORK = 5_000_000
"""Comparisons that building one set or dict may cost at worst."""

HEADER = 4
"""Bytes of the little-endian length before each frame."""

ENVELOPE = 16
"""Bytes that a reply may have around its value."""

_dumps = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), allow_nan=False).encode
_loads = json.JSONDecoder().decode


class BadValueError(ValueError):
    """The value is not plain data (or the bytes do not describe one)."""


class TooLargeError(ValueError):
    """The value is plain data but exceeds a limit of the channel."""


class Ref:
    """Stands in a value for an object that stays where it is: the program's own, known to both sides by a number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


Foreign = Callable[[Any], Any]
"""What to send instead of an object that is no plain data: plain data or a `Ref`, else it raises `BadValueError`."""


def _refuse(value: Any) -> Any:
    raise BadValueError(f"{type_name(type(value))} is not plain data")


class _Packing:
    """What is left of the limit while one value is walked, and what to do with foreign objects."""

    __slots__ = ("foreign", "left", "limit")

    def __init__(self, limit: int, foreign: Foreign) -> None:
        self.left = self.limit = limit
        self.foreign = foreign

    def spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise TooLargeError(f"the value is larger than {self.limit} bytes")


def encode(value: Any, *, limit: int = MAX_BYTES, foreign: Foreign = _refuse) -> bytes:
    """The value as tagged JSON (UTF-8).

    Raises:
        BadValueError: it contains something else than exact builtin data types that `foreign` has no substitute for,
            a lone surrogate, or a cycle.
        TooLargeError: it exceeds `limit` bytes or `MAX_INT_BITS`.
    """
    tree = _pack(value, 0, _Packing(limit, foreign))
    try:
        data = _dumps(tree).encode()
    except UnicodeEncodeError:
        raise BadValueError("a string contains a lone surrogate") from None
    if len(data) > limit:
        raise TooLargeError(f"the value is larger than {limit} bytes")
    return data


def _pack(value: Any, depth: int, budget: _Packing) -> Any:
    kind = type(value)
    budget.spend(NODE_COST)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else _pack_big_int(value)
    if kind is str:
        budget.spend(len(value))
        return value
    if kind is float:
        return value if value - value == 0.0 else {"n": repr(value)}
    if kind is bytes:
        budget.spend(2 * len(value))
        return {"b": value.hex()}
    if depth >= MAX_DEPTH:
        raise BadValueError(f"containers nest deeper than {MAX_DEPTH}, or contain themselves")
    depth += 1
    if kind is list:
        return [_pack(item, depth, budget) for item in value]
    if kind is tuple:
        return {"t": [_pack(item, depth, budget) for item in value]}
    if kind is dict:
        return {"d": [[_pack(key, depth, budget), _pack(item, depth, budget)] for key, item in value.items()]}
    if kind is set or kind is frozenset:
        return {"s" if kind is set else "f": [_pack(item, depth, budget) for item in value]}
    if kind is complex:
        return {"c": [_pack(value.real, depth, budget), _pack(value.imag, depth, budget)]}
    if kind is range:
        budget.spend(NODE_COST * _length(value))
        return {"r": [_pack(item, depth, budget) for item in (value.start, value.stop, value.step)]}
    if kind is type and value in _TYPE_NAMES:
        return {"y": _TYPE_NAMES[value]}
    if kind is Ref:
        return {"h": value.number}
    return _pack(budget.foreign(value), depth, budget)


def _length(value: range) -> int:
    """`len` without its limit: what a list of the range would hold, so that making one stays within bounds."""
    return max(0, (value.stop - value.start + value.step - (1 if value.step > 0 else -1)) // value.step)


def _pack_big_int(value: int) -> dict[str, str]:
    if value.bit_length() > MAX_INT_BITS:
        raise TooLargeError(f"an integer has more than {MAX_INT_BITS} bits")
    return {"i": format(value, "x")}


def type_name(kind: type) -> str:
    name = getattr(kind, "__name__", "?")
    return name[:80] if type(name) is str else "?"


def decode(
    data: bytes, *, allow_nan: bool = True, limit: int = MAX_BYTES, resolve: Callable[[int], Any] | None = None
) -> Any:
    """The value that `data` describes, in bounded time and memory.

    Args:
        data: what `encode` returned, or what a hostile process claims it returned.
        allow_nan: False refuses a NaN anywhere in the value.
        limit: longest `data`, bytes.
        resolve: gives the object behind the number of a `Ref`; without it a reference is malformed. Raises
            `BadValueError` for numbers it does not know.

    Raises:
        BadValueError: `data` is no well-formed value, or it contains a NaN that is not allowed.
        TooLargeError: it exceeds a limit, or its members would make a set or dict too slow to build.
    """
    if len(data) > limit:
        raise TooLargeError(f"the value is larger than {limit} bytes")
    try:
        tree = _loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BadValueError(f"malformed reply ({type(error).__name__})") from None
    return _Builder(allow_nan, resolve, limit).build(tree, 0)


class _Builder:
    def __init__(self, allow_nan: bool, resolve: Callable[[int], Any] | None, limit: int) -> None:
        self.limit = limit
        self.allow_nan = allow_nan
        self.resolve = resolve
        self.nodes = 0

    def build(self, tree: Any, depth: int) -> Any:
        self.nodes += 1
        kind = type(tree)
        if kind is int or kind is bool or tree is None:
            return tree
        if kind is str:
            return _valid_text(tree)
        if kind is float:
            if tree - tree != 0.0:
                raise BadValueError("malformed reply (a bare NaN or infinity)")
            return tree
        if depth > MAX_DEPTH:
            raise BadValueError(f"containers nest deeper than {MAX_DEPTH}")
        if kind is list:
            return [self.build(item, depth + 1) for item in tree]
        return self._tagged(tree, depth)

    def _tagged(self, tree: dict[str, Any], depth: int) -> Any:
        if len(tree) != 1:
            raise BadValueError("malformed reply (an object without exactly one tag)")
        ((tag, content),) = tree.items()
        if tag in _SCALARS:
            return self._scalar(tag, content)
        if tag in ("c", "r", "y", "h"):
            return self._special(tag, content)
        if tag not in _CONTAINERS or type(content) is not list:
            raise BadValueError("malformed reply (unknown tag)")
        before = self.nodes
        if tag == "d":
            pairs = [self._pair(pair, depth + 1) for pair in content]
            _refuse_collisions([key for key, _ in pairs], self.nodes - before)
            return dict(pairs)
        items = [self.build(item, depth + 1) for item in content]
        if tag == "t":
            return tuple(items)
        _refuse_collisions(items, self.nodes - before)
        return set(items) if tag == "s" else frozenset(items)

    def _special(self, tag: str, content: Any) -> Any:
        if tag == "h":
            if self.resolve is None or type(content) is not int:
                raise BadValueError("malformed reply (a reference where there can be none)")
            return self.resolve(content)
        if tag == "y":
            if type(content) is not str or content not in _TYPES:
                raise BadValueError("malformed reply (unknown type)")
            return _TYPES[content]
        kind, size = (float, 2) if tag == "c" else (int, 3)
        if type(content) is not list or len(content) != size:
            raise BadValueError("malformed reply (a complex number or range without its parts)")
        parts = [self.build(part, MAX_DEPTH) for part in content]
        if any(type(part) is not kind for part in parts):
            raise BadValueError("malformed reply (a complex number or range of something else)")
        if tag == "c":
            return complex(*parts)
        if parts[2] == 0:
            raise BadValueError("malformed reply (a range without step)")
        if _length(value := range(*parts)) * NODE_COST > self.limit:
            raise TooLargeError("a range is too long")
        return value

    def _pair(self, pair: Any, depth: int) -> tuple[Any, Any]:
        if type(pair) is not list or len(pair) != 2:
            raise BadValueError("malformed reply (a dict entry is not a pair)")
        return self.build(pair[0], depth), self.build(pair[1], depth)

    def _scalar(self, tag: str, content: Any) -> Any:
        if type(content) is not str:
            raise BadValueError("malformed reply (a scalar tag without text)")
        if tag == "n":
            if content not in ("nan", "inf", "-inf"):
                raise BadValueError("malformed reply (unknown number)")
            if content == "nan" and not self.allow_nan:
                raise BadValueError("the value contains NaN and the expected value does not")
            return float(content)
        try:
            if tag == "b":
                return bytes.fromhex(content)
            if len(content) > MAX_INT_BITS // 4 + 2:
                raise TooLargeError(f"an integer has more than {MAX_INT_BITS} bits")
            return int(content, 16)
        except TooLargeError:
            raise
        except ValueError:
            raise BadValueError("malformed reply (not hexadecimal)") from None


_TYPE_NAMES: dict[Any, str] = {
    kind: kind.__name__ for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range)
}
_TYPES = {name: kind for kind, name in _TYPE_NAMES.items()}
_SCALARS = ("n", "b", "i")
_CONTAINERS = ("t", "s", "f", "d")


def _valid_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadValueError("a string contains a lone surrogate") from None
    return text


def _refuse_collisions(members: list[Any], nodes: int) -> None:
    """Refuse members whose equal hashes would make a set or dict of them quadratic.

    Numbers and tuples of numbers hash the same in every process, so hostile members are easy to find. Building the set
    compares each member with all earlier ones of the same hash: at most (largest group) x (all nodes) comparisons.
    """
    groups: dict[int, int] = {}
    try:
        for member in members:
            key = hash(member)
            groups[key] = groups.get(key, 0) + 1
    except TypeError:
        raise BadValueError("malformed reply (a set or dict key is not hashable)") from None
    largest = max(groups.values(), default=0)
    if largest > 1 and largest * nodes > MAX_COLLISION_WORK:
        raise TooLargeError("the members of a set or dict collide")


def write_frame(fd: int, data: bytes) -> None:
    """Write one length-prefixed frame to a blocking descriptor."""
    data = len(data).to_bytes(HEADER, "little") + data
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def join_frames(frames: Iterable[bytes]) -> bytes:
    """Frames with their lengths, to be sent at once."""
    return b"".join(part for frame in frames for part in (len(frame).to_bytes(HEADER, "little"), frame))


class FrameReader:
    """Reads frames that a *trusted* process writes to a blocking descriptor, several with one system call.

    Args:
        fd: the descriptor.
        frames: those that have been read already.
        rest: what has been read beyond them.
    """

    __slots__ = ("_buffer", "_fd", "_frames")

    def __init__(self, fd: int, frames: Iterable[bytes] = (), rest: bytes = b"") -> None:
        self._fd = fd
        self._frames = iter(frames)
        self._buffer = bytearray(rest)

    @property
    def pending(self) -> bool:
        """Whether bytes have been read that belong to a further frame."""
        return bool(self._buffer)

    def frame(self) -> bytes:
        """The next frame.

        Raises:
            EOFError: the other side closed the descriptor.
        """
        for frame in self._frames:
            return frame
        size = HEADER + int.from_bytes(self._first(HEADER), "little")
        frame = self._first(size)[HEADER:]
        del self._buffer[:size]
        return frame

    def _first(self, size: int) -> bytes:
        while len(self._buffer) < size:
            part = os.read(self._fd, max(1 << 16, size - len(self._buffer)))
            if not part:
                raise EOFError("the other side closed the channel")
            self._buffer += part
        return bytes(self._buffer[:size])
