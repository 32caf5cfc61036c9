"""Scores of many programs, kept as they come: a scorer that was cut off goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.job import check_job
from psgpo.jsonl import JsonlAppender, read_jsonl
from psgpo.lines import code_lines

Array = NDArray[np.float64]
Pair = tuple[str, str]
"""(problem, code)."""
Read = Callable[[Sequence[Pair]], Sequence[Mapping[str, Sequence[float]]]]
"""Of each pair some named rows with one number per line."""
BATCH = 64
"""Programs between two writes."""
OLD_DIGITS = 16
"""Of a model's fingerprint in files of versions that made it of names, sizes and times."""


def scored_rows(
    path: Path,
    pairs: Mapping[str, Pair],
    read: Read,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Array]]:
    """What `read` gives for every pair, by id, from the file where it is there already. Shapes of the arrays: (L,).

    Raises:
        UserError: the scorer did not give one number per line, or no finite one.
    """
    with JsonlAppender(path) as appender:
        rows: dict[str, dict[str, Any]] = {row.pop("id"): row for row in read_jsonl(path, dict)}
        every = list(pairs)
        for start in range(0, len(every), BATCH):
            names = every[start : start + BATCH]
            missing = {name for name in names if name not in rows}
            if not missing:
                continue
            # The whole batch again: a score's last digits may change with what stands beside it in a batch.
            for name, row in zip(names, read([pairs[name] for name in names]), strict=True):
                if name in missing:
                    rows[name] = {key: _checked(name, values, pairs[name][1]) for key, values in row.items()}
                    appender.append({"id": name} | rows[name])
            progress(min(start + BATCH, len(every)), len(every))
    progress(len(pairs), len(pairs))
    return {name: {key: np.array(values) for key, values in rows[name].items()} for name in pairs}


def _checked(name: str, values: Sequence[float], code: str) -> list[float]:
    numbers = [round(float(value), 6) for value in values]
    lines = len(code_lines(code))
    if len(numbers) != lines:
        raise UserError(f"program {name}: {len(numbers)} scores for {lines} lines; a scorer must give one each")
    if not np.isfinite(numbers).all():
        raise UserError(f"program {name}: a score is not a finite number; is the model broken?")
    return numbers


def check_model(path: Path, job: Mapping[str, Any], key: str = "model") -> None:
    """`check_job` of a job that names a model by `folder_digest`, under `key`.

    Raises:
        UserError: the file names another model, or other things differ.
    """
    check_job(path, dict(job), remedy=lambda changed: _of_times(path, key))


def _of_times(path: Path, key: str) -> str:
    """Advice where an older version wrote the file; empty where this one did."""
    there = json.loads(path.read_text(encoding="utf-8")).get(key)
    if not isinstance(there, str) or len(there) != OLD_DIGITS:
        return ""
    return (
        "an older psgpo wrote it, which told models apart by the times of their files, so that it is not known whose "
        f"scores these are; delete {path.parent} or choose another folder"
    )


def digest(values: Sequence[object]) -> str:
    """Changes when the values do."""
    found = sha256()
    for value in values:
        found.update(repr(value).encode())
    return found.hexdigest()[:16]
