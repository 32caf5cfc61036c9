"""What the search has learned, on disk round by round, so that a killed run goes on where it was.

A journal is JSON Lines: a header (settings, checkpoint names, fingerprints), the surprise of the lines where the
strategy has a prior, then one record per finished round.
A round is one line, so it is there whole or not at all. On resume the rounds are handed back in order and the
scheduler goes through the same motions with them instead of the sampler: the next batch it draws is the batch it
would have drawn, row for row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from psgpo.errors import UserError
from psgpo.jsonl import JsonlAppender, read_jsonl

_VERSION = 2
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeDraws:
    """What one round drew for one probe."""

    response: int
    """Position of the response that asks, in the list that is labelled."""
    line: int
    """m: how many of its lines are kept."""
    drawn: int
    passed: tuple[int, ...]
    """Which of them passed, counted from 0."""
    tokens: int
    """Tokens generated."""
    executions: int
    """Distinct programs judged."""
    proof: tuple[int, ...] | None
    """The first completion (by draw number) that passed; None when none did."""
    completions: tuple[tuple[int, ...], ...] = ()
    """All of them, for strategies that count a completion for other prefixes too; else none."""
    refused: tuple[int, ...] = ()
    """Which of them, counted from 0, are no completions: the server's reply cannot be proved to continue the prefix."""
    reason: str = ""
    """Of the first of these."""

    def to_json(self) -> Json:
        record = asdict(self)
        return {key: record[key] for key in record if record[key] or key not in ("completions", "refused", "reason")}

    @classmethod
    def from_json(cls, record: Json) -> ProbeDraws:
        proof = record["proof"]
        changed = {"proof": None if proof is None else tuple(proof), "passed": tuple(record["passed"])}
        changed |= {"refused": tuple(record.get("refused", ()))}
        return cls(**(record | changed | {"completions": tuple(map(tuple, record.get("completions", ())))}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One batch: every waiting probe got some completions."""

    probes: tuple[ProbeDraws, ...]
    cpu_seconds: float
    """CPU time of this process (sampling, decoding)."""
    sandbox_cpu_seconds: float
    """CPU time of the judged programs; 0 for those the verdict cache knew."""
    generation_seconds: float = 0.0
    """Wall time in the samplers."""
    waiting_seconds: float = 0.0
    """Wall time in which this process had nothing to do until the last verdict came."""
    row_steps: int = 0
    """Rows computed in decoding passes, as the samplers count them; 0 where they do not."""
    slot_steps: int = 0
    """Decoding passes times the samplers' batch size: the rows there was room for."""

    def to_json(self) -> Json:
        record = {"kind": "round", "probes": [probe.to_json() for probe in self.probes]}
        return record | {key: round(getattr(self, key), 6) for key in MEASURES}

    @classmethod
    def from_json(cls, record: Json) -> Round:
        if record.get("kind") != "round":
            raise ValueError(f"expected a round of label probes, found kind {record.get('kind')!r}")
        probes = tuple(ProbeDraws.from_json(probe) for probe in record["probes"])
        return cls(probes=probes, **{key: record[key] for key in MEASURES})


MEASURES = tuple(item.name for item in fields(Round) if item.name != "probes")
"""Fields of a round that add up over rounds."""


def fingerprint(records: Iterable[Json]) -> str:
    """SHA-256 over records in order, as JSON with sorted keys."""
    digest = sha256()
    for record in records:
        digest.update(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


class Journal:
    """An append-only record of rounds, opened for exactly one set of responses and settings.

    Use as a context manager. `next_recorded` hands back the rounds of earlier runs; when it returns None, draw the
    round and `append` it before starting the next.
    """

    def __init__(self, path: Path | str, header: Json) -> None:
        """Open or create.

        Args:
            path: the journal file; its folder is made when missing.
            header: JSON values that decide what is drawn. Keys are named to the user when they differ.

        Raises:
            UserError: the file is no journal, is damaged, or was written under another header.
        """
        self.path = Path(path)
        header = {"kind": "header", "version": _VERSION} | json.loads(json.dumps(header))
        records: list[Json] = []
        if self.path.exists():
            records = list(read_jsonl(self.path, dict, torn_tail_ok=True))
        if records:
            self._refuse_other(records[0], header)
        self._surprise: Json | None = None
        if len(records) > 1 and records[1].get("kind") == "surprise":
            self._surprise = records.pop(1)
        self._first = 2 if self._surprise is None else 3  # line of the first round
        self._rounds = self._parse(records[1:])
        self._position = 0
        self._appender = JsonlAppender(self.path)
        if not records:
            self._appender.append(header)

    def _refuse_other(self, found: Json, wanted: Json) -> None:
        if found.get("kind") != "header":
            raise UserError(f"{self.path}:1: not a journal of label probes (no header); move it away to label anew")
        differing = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        if not differing:
            return
        texts = [f"{key} was {_shown(found.get(key))}, now {_shown(wanted.get(key))}" for key in differing]
        raise UserError(
            f"{self.path}: the journal belongs to another labelling: {'; '.join(texts)}; restore these to go on, "
            "or delete the journal to label anew"
        )

    def _parse(self, records: Sequence[Json]) -> list[Round]:
        rounds = []
        for number, record in enumerate(records, start=self._first):
            try:
                rounds.append(Round.from_json(record))
            except (KeyError, TypeError, ValueError) as error:
                message = f"missing key {error}" if isinstance(error, KeyError) else str(error)
                raise UserError(f"{self.path}:{number}: {message}; delete the journal to label anew") from None
        return rounds

    def surprise(self, make: Callable[[], Mapping[int, Sequence[float]]]) -> dict[int, list[float]]:
        """Surprise per line, by position of the response: what an earlier run wrote down, or `make` it and write.

        Another machine may compute it a little differently, and the search would ask other questions.
        """
        if self._surprise is None:
            values = {str(number): [round(value, 6) for value in lines] for number, lines in make().items()}
            self._surprise = {"kind": "surprise", "lines": values}
            self._appender.append(self._surprise)
        return {int(number): lines for number, lines in self._surprise["lines"].items()}

    def next_recorded(self, asked: Sequence[tuple[int, int]]) -> Round | None:
        """The recorded round that answers these (response, line) probes; None when the record ends here.

        Raises:
            UserError: the recorded round answers other probes.
        """
        if self._position == len(self._rounds):
            return None
        recorded = self._rounds[self._position]
        if [(probe.response, probe.line) for probe in recorded.probes] != list(asked):
            raise UserError(
                f"{self.path}:{self._position + self._first}: this round answers other probes than the search asks; "
                "the journal was edited or written by another version: delete it to label anew"
            )
        self._position += 1
        return recorded

    def append(self, played: Round) -> None:
        """Write one finished round; it survives `kill -9` once this returns."""
        self._appender.append(played.to_json())

    def close(self) -> None:
        self._appender.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:24] + "…"
