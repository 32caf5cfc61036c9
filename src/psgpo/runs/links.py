"""Results that two runs share as hard links, and that no run writes into as long as another has them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def outputs(run: Path, writes: Iterable[str]) -> list[Path]:
    """The files and folders that are there of what a stage writes (`Stage.writes`)."""
    return [path for pattern in writes for path in sorted(run.glob(pattern))]


def linked_copy(source: Path, target: Path) -> None:
    """`target` becomes a file or folder like `source`: hard links, or copies where there can be none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    else:
        _link(str(source), str(target))


def own_copies(run: Path, writes: Iterable[str]) -> None:
    """Turn files that another run has too into copies of this run alone, before a stage writes into them."""
    for path in outputs(run, writes):
        for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
            if file.is_file() and not file.is_symlink() and file.stat().st_nlink > 1:
                own = file.with_name(f"{file.name}.own")
                shutil.copy2(file, own)
                own.replace(file)


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
