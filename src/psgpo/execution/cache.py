"""The verdict cache: one SQLite file, shared by any number of processes.

The key covers everything the verdict depends on: program, function, inputs, expected values, comparator, limits (the
stack's among them), the Python version and the rung of confinement. Verdicts that depend on the machine's mood (time,
memory, a kill from outside) are not kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from psgpo.errors import UserError
from psgpo.records import Verdict

FORMAT = 4
"""Raised when the grader's judgement changes, so that old verdicts are not reused."""
_BATCH = 500
"""Keys per query; SQLite limits the number of variables."""

logger = logging.getLogger(__name__)


def verdict_key(parts: Iterable[bytes]) -> str:
    """SHA-256 over the parts, each with its length, and the versions of Python and of the grader."""
    digest = hashlib.sha256(f"{FORMAT} {sys.version}".encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


class VerdictCache:
    """Verdicts by key. Not thread-safe; several processes may use one file.

    A file that breaks later (a damaged page, a full disk, a lock that is never released) costs no verdict: the cache is
    given up with a warning, and grading goes on without it.

    Raises:
        UserError: the file cannot be opened or is no verdict cache.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._given_up = False
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
        wanted = [] if self._given_up else list(dict.fromkeys(keys))
        found: dict[str, Verdict] = {}
        try:
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                query = f"SELECT key, verdict FROM verdicts WHERE key IN ({','.join('?' * len(batch))})"
                for key, text in self._database.execute(query, batch):
                    found[key] = Verdict.from_json(json.loads(text) | {"cached": True})
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            self._give_up(error)
        return found

    def put(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep the verdicts; a key that another process wrote meanwhile stays as it is."""
        rows = [(key, json.dumps(verdict.to_json())) for key, verdict in verdicts.items()]
        if self._given_up or not rows:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._given_up = True
        logger.warning(
            "%s: the verdict cache fails (%s); grading goes on without it, delete the file if this happens again",
            self._path,
            error,
        )

    def close(self) -> None:
        self._database.close()
