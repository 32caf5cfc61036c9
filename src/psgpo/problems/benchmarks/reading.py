"""Rows of a data file, each with the place it came from; files of the wrong kind are named for what they look like."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from psgpo.errors import UserError

Json = dict[str, Any]

_GZIP = b"\x1f\x8b"
_SIGNS: tuple[tuple[str, frozenset[str]], ...] = (
    ("livecodebench", frozenset({"question_content", "public_test_cases"})),
    ("humanevalplus or mbppplus", frozenset({"entry_point", "base_input"})),
    ("humaneval", frozenset({"entry_point", "canonical_solution", "test"})),
    ("mbpp", frozenset({"text", "code", "test_list"})),
    ("mbpp-sanitized", frozenset({"prompt", "code", "test_list"})),
    ("psgpo problems", frozenset({"id", "prompt", "tests"})),
    ("samples", frozenset({"task_id", "completion"})),
    ("samples", frozenset({"task_id", "solution"})),
)
"""Kind of file -> keys that its rows have; the first that fits."""


def kind_of(row: Json) -> str | None:
    """What kind of file a row comes from, by its keys; None when they are unknown."""
    for kind, keys in _SIGNS:
        if keys <= row.keys():
            if kind != "humanevalplus or mbppplus":
                return kind
            return "mbppplus" if str(row.get("task_id")).lower().startswith("mbpp") else "humanevalplus"
    return None


def read_rows(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield (`file:line`, row) of JSON Lines or of one JSON array, gzip-compressed or not.

    Raises:
        UserError: the file is missing, empty, cut off, not JSON, or holds something else than objects.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
        raw.seek(0)
        stream: BinaryIO = gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[assignment]
        empty = True
        try:
            for row in _rows(path, stream):
                empty = False
                yield row
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path}: truncated or damaged gzip ({error}); get the file again") from None
    if empty:
        raise UserError(f"{path}: holds no row; is this the right file?")


def _rows(path: Path, stream: BinaryIO) -> Iterator[tuple[str, Json]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        if line.lstrip().startswith(b"["):
            yield from _array(path, number, line + stream.read())
            return
        yield f"{path}:{number}", _object(path, number, _parse(path, number, line))


def _array(path: Path, first_line: int, text: bytes) -> Iterator[tuple[str, Json]]:
    items = _parse(path, first_line, text)
    for index, item in enumerate(items, start=1):
        place = f"{path}[{index}]"
        if not isinstance(item, dict):
            raise UserError(f"{place}: expected a JSON object, found {type(item).__name__}")
        yield place, item


def _object(path: Path, number: int, value: Any) -> Json:
    if not isinstance(value, dict):
        raise UserError(f"{path}:{number}: expected a JSON object, found {type(value).__name__}")
    return value


def _parse(path: Path, first_line: int, text: bytes) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{first_line + error.lineno - 1}"
        complete = text.rstrip().endswith((b"}", b"]"))
        hint = "repair or delete this line" if complete else "the file looks cut off; get it again"
        raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno}); {hint}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, or a number of thousands of digits
        raise UserError(f"{path}:{first_line}: not valid JSON ({error}); is this the right file?") from None
