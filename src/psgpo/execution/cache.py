"""The verdict cache: one SQLite file, shared by any number of processes.

The key covers everything the verdict depends on: program, function, inputs, expected values, comparator, limits, the
Python version and the rung of confinement. Verdicts that depend on the machine's mood (time, memory, a kill from
outside) are not kept.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from psgpo.errors import UserError
from psgpo.records import Verdict

FORMAT = 2
"""Raised when the grader's judgement changes, so that old verdicts are not reused."""
_BATCH = 500
"""Keys per query; SQLite limits the number of variables."""


def verdict_key(parts: Iterable[bytes]) -> str:
    """SHA-256 over the parts, each with its length, and the versions of Python and of the grader."""
    digest = hashlib.sha256(f"{FORMAT} {sys.version}".encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


class VerdictCache:
    """Verdicts by key. Not thread-safe; several processes may use one file.

    Raises:
        UserError: the file cannot be opened or is no verdict cache.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: cannot be used as verdict cache ({error}); name another file") from None

    def get(self, keys: Iterable[str]) -> dict[str, Verdict]:
        """The known ones among `keys`, marked as cached."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Verdict] = {}
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            marks = ",".join("?" * len(batch))
            for key, text in self._database.execute(f"SELECT key, verdict FROM verdicts WHERE key IN ({marks})", batch):
                found[key] = Verdict.from_json(json.loads(text) | {"cached": True})
        return found

    def put(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep the verdicts; a key that another process wrote meanwhile stays as it is."""
        rows = [(key, json.dumps(verdict.to_json())) for key, verdict in verdicts.items()]
        if rows:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)
            self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()
