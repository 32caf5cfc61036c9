"""Expected outputs from reference solutions: run once in the sandbox that the caller brings, then kept on disk.

The cache is keyed by content: program, function, inputs, and the Python version that ran them. A file that is missing,
damaged or of another version is computed again; a folder that cannot be written only costs time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from psgpo.errors import UserError
from psgpo.plain import from_json_value, to_json_value

FORMAT = 1
"""Raise it when the meaning of the cached files changes."""

Calls = Sequence[tuple[Any, ...]]


class Outcome(Protocol):
    """What one call gave."""

    @property
    def value(self) -> Any: ...

    @property
    def error(self) -> str | None: ...


class Evaluate(Protocol):
    """Runs (program, function, calls) items and returns one outcome per call: `Sandbox.evaluate_many`."""

    def __call__(self, items: Sequence[tuple[str, str, Calls]], /) -> Sequence[Sequence[Outcome]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A solution and the inputs whose outputs are wanted."""

    task: str
    """For messages."""
    program: str
    function: str
    calls: Calls

    def key(self) -> str:
        content = [FORMAT, sys.version_info[:2], self.program, self.function, to_json_value(list(self.calls))]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def cache_folder() -> Path:
    """Where the outputs are kept: `psgpo/references` under `XDG_CACHE_HOME`, by default `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "psgpo" / "references"


def reference_outputs(references: Sequence[Reference], evaluate: Evaluate | None) -> list[list[Any]]:
    """The outputs of every reference, in order.

    Raises:
        UserError: a reference fails on one of its inputs, or is not cached and there is no `evaluate`.
    """
    folder = cache_folder()
    keys = [reference.key() for reference in references]
    known: dict[str, list[Any]] = {}
    for key, reference in zip(keys, references, strict=True):
        outputs = _read(folder / f"{key}.json", len(reference.calls))
        if outputs is not None:
            known[key] = outputs
    missing = {key: reference for key, reference in zip(keys, references, strict=True) if key not in known}
    if missing:
        if evaluate is None:
            task = next(iter(missing.values())).task
            raise UserError(f"{task}: its expected outputs must be computed first; give `evaluate`, a sandbox's")
        for key, outputs in zip(missing, _compute(list(missing.values()), evaluate), strict=True):
            known[key] = outputs
            _write(folder / f"{key}.json", outputs)
    return [known[key] for key in keys]


def _compute(references: Sequence[Reference], evaluate: Evaluate) -> list[list[Any]]:
    """Run them all; calls that ended a program (time, size) are tried again in ever smaller groups."""
    results: list[list[Any]] = [[None] * len(reference.calls) for reference in references]
    todo = [(index, 0, len(reference.calls)) for index, reference in enumerate(references) if reference.calls]
    while todo:
        items = [
            (references[index].program, references[index].function, references[index].calls[start:stop])
            for index, start, stop in todo
        ]
        again: list[tuple[int, int, int]] = []
        for (index, start, stop), outcomes in zip(todo, evaluate(items), strict=True):
            failed = next((number for number, outcome in enumerate(outcomes) if outcome.error is not None), None)
            done = len(outcomes) if failed is None else failed
            results[index][start : start + done] = [outcome.value for outcome in outcomes[:done]]
            if failed is None:
                continue
            start += done
            if done == 0 and stop - start == 1:
                _refuse(references[index], start, str(outcomes[0].error))
            middle = start + max(1, (stop - start) // 2)
            again += [(index, start, middle)] + ([(index, middle, stop)] if middle < stop else [])
        todo = again
    return results


def _refuse(reference: Reference, call: int, error: str) -> None:
    raise UserError(
        f"{reference.task}: the reference solution fails on input {call} ({error}); "
        "give the sandbox more time or memory, or repair the data file"
    )


def _read(path: Path, calls: int) -> list[Any] | None:
    try:
        outputs = from_json_value(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    return outputs if isinstance(outputs, list) and len(outputs) == calls else None


def _write(path: Path, outputs: list[Any]) -> None:
    """Atomic, so that processes may share the folder."""
    try:
        text = json.dumps(to_json_value(outputs))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as stream:
            stream.write(text)
        Path(stream.name).replace(path)
    except (OSError, ValueError):
        pass  # a cache that cannot be written, or a value without a JSON form, only costs time
