"""What a folder of results was asked for: written once, compared ever after, and one process at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.jsonl import write_json

Json = dict[str, Any]


def check_job(
    path: Path,
    job: Json,
    *,
    results: Path | None = None,
    later: Collection[str] = (),
    remedy: Callable[[Collection[str]], str] | None = None,
) -> None:
    """Write `job` to `path`; when one is there already, it must be the same.

    Args:
        path: the file of the job.
        job: JSON values that decide the results.
        results: while this file is missing or empty, nothing was made by the job that is there, and it may be replaced.
        later: keys that earlier versions did not write. A file without them is taken at its word and gets them now.
        remedy: what to do about the keys that differ; the usual advice where there is none or it is empty.

    Raises:
        UserError: the folder holds results of another job; the message names the keys that differ.
    """
    job = json.loads(json.dumps(job))
    nothing_made = results is not None and not (results.is_file() and results.stat().st_size)
    if nothing_made or not path.is_file():
        write_json(path, job)
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        unknown = {key: job[key] for key in later if key not in there}
        there |= unknown
        changed = sorted(key for key in job.keys() | there.keys() if there.get(key) != job.get(key))
    except (ValueError, TypeError, AttributeError):
        raise UserError(
            f"{path}: not the file that psgpo wrote; delete {path.parent} or choose another folder"
        ) from None
    if changed:
        advice = (remedy(changed) if remedy else "") or f"delete {path.parent} or choose another folder"
        raise UserError(f"{path}: holds another job ({', '.join(changed)} differ); {advice}")
    if unknown:
        write_json(path, there)


def undo_command(run: Path, stage: str, result: Path) -> str:
    """The command behind which `psgpo run` makes a result anew: a stage that has its receipt is not run again, whatever
    is missing of its results."""
    return shlex.join(["rm", "-r", str(result), str(run / "stages" / f"{stage}.json")])


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Make the folder and hold it, so that two commands do not write the same files.

    Raises:
        UserError: it cannot be made, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{folder}: cannot be used as a folder ({error.strerror}); choose another with --out") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is writing here; wait for it or choose another --out") from None
        yield
    finally:
        os.close(handle)
