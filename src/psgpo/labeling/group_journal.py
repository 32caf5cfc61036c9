"""What the strategy `splice` has found, on disk group by group, so that a killed run goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.jsonl import JsonlAppender, read_jsonl


class GroupJournal:
    """The journal: a header, then one record per finished group of problems."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        wanted = {"kind": "header", "version": "splice-3", **header}
        records = list(read_jsonl(path, dict, torn_tail_ok=True)) if path.exists() else []
        if records and records[0] != wanted:
            keys = sorted(key for key in {**records[0], **wanted} if records[0].get(key) != wanted.get(key))
            raise UserError(
                f"{path}: the journal belongs to another labelling (differs in {', '.join(keys)}); restore these to "
                "go on, or delete the journal to label anew"
            )
        self._path, self._records = path, records[1:]
        self._position = 0
        self._appender = JsonlAppender(path)
        if not records:
            self._appender.append(wanted)

    def next(self, group: Sequence[str]) -> dict[str, Any] | None:
        if self._position == len(self._records):
            return None
        record = self._records[self._position]
        if record.get("kind") != "group" or record.get("problems") != list(group):
            raise UserError(
                f"{self._path}:{self._position + 2}: not the group that comes next; delete the journal to label anew"
            )
        self._position += 1
        return dict(record)

    def append(self, record: Mapping[str, Any]) -> None:
        self._appender.append(dict(record))

    def __enter__(self) -> GroupJournal:
        return self

    def __exit__(self, *_: object) -> None:
        self._appender.close()
