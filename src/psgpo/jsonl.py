"""JSON Lines on disk: append as you go, survive a crash, name file and line when something is broken."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from psgpo.errors import UserError

T = TypeVar("T")


def finite(value: Any) -> Any:
    """The same nested value with NumPy scalars as plain ones and NaN and infinity as None: JSON has none of them."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "item") and hasattr(value, "dtype"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dump_line(record: dict[str, Any]) -> str:
    """One record as one compact JSON line, newline included. NaN is written as null: it is not JSON."""
    try:
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
    except ValueError:
        return json.dumps(finite(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def read_jsonl(path: Path | str, parse: Callable[[dict[str, Any]], T], *, torn_tail_ok: bool = False) -> Iterator[T]:
    """Yield `parse(record)` for every line of `path`; blank lines are skipped.

    `torn_tail_ok` drops a last line without newline, which is what a killed writer leaves behind.

    Raises:
        UserError: the file is missing, or a line is not a JSON object or is refused by `parse`
            (`KeyError`, `TypeError` and `ValueError` are reported with file and line number).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.strip():
                continue
            if torn_tail_ok and not raw.endswith(b"\n"):
                return
            try:
                record = json.loads(raw)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{path}:{number}: not valid JSON ({error}); repair or delete this line") from None
            if not isinstance(record, dict):
                raise UserError(f"{path}:{number}: expected a JSON object, found {type(record).__name__}")
            try:
                value = parse(record)
            except KeyError as error:
                raise UserError(f"{path}:{number}: missing key {error}") from None
            except (TypeError, ValueError) as error:
                raise UserError(f"{path}:{number}: {error}") from None
            yield value


def write_jsonl(path: Path | str, records: Iterable[dict[str, Any]]) -> int:
    """Write all records to `path` atomically (temporary file, then rename) and return how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with _replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(dump_line(record))
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    return count


def write_json(path: Path | str, value: Any, *, indent: int | None = 2) -> None:
    """Write one JSON document atomically. NaN is written as null.

    Args:
        indent: spaces of a level, for people; None: on one line, without any.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    separators = (",", ":") if indent is None else None
    text = json.dumps(finite(value), ensure_ascii=False, indent=indent, separators=separators, allow_nan=False)
    with _replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place; when the body fails, as on a full disk, it is removed."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


class JsonlAppender:
    """Append records to a JSON Lines file; a torn last line of an earlier crash is cut off first.

    Use as a context manager. `append` reaches the operating system before it returns, so `kill -9`
    of this process loses nothing that was appended.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _cut_torn_tail(self.path)
        self._stream = self.path.open("ab")

    def append(self, *records: dict[str, Any]) -> None:
        """Write the records with one system call: all of them or (torn) the first few."""
        self._stream.write("".join(dump_line(record) for record in records).encode())
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> JsonlAppender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cut_torn_tail(path: Path) -> None:
    with path.open("rb+") as stream:
        data = stream.read()
        if data and not data.endswith(b"\n"):
            stream.truncate(data.rfind(b"\n") + 1)
