"""The run directory is the record: recipe, manifest, one folder per stage, one receipt per finished stage."""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import psgpo
from psgpo.config import HOW_KEYS, Recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.runs.splits import refuse_new_training

_LOST = "put a copy of it back, or make the run anew in another folder (--set out=...)"
"""Without its recipe a folder is no run: nothing tells whose results those are."""
_MEMORY = ("microbatch_tokens", "in_flight")
"""Keys that change which rows share a batch: results are the same but for the order of sums, and a token may flip."""
_TORN = "recipe.json.tmp"
"""What a command that was killed at its very first write leaves behind."""


class RunDirectory:
    """A run on disk. Open with `RunDirectory.create(recipe)` or `RunDirectory.open(path)`."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe

    @classmethod
    def create(cls, recipe: Recipe) -> RunDirectory:
        """Open `recipe.out`, making it when it is not there.

        Arms and PRMs may be added; one that this recipe leaves out stays part of the run. Anything else that differs
        is refused.

        Raises:
            UserError: the directory holds a run of another recipe (the keys that differ are named), or files that
                are no run; or a PRM that is added would be trained on problems that the run tests on as clean.
        """
        path = recipe.out
        _make_folder(path)
        write_json(path / "recipe.json", cls.resolve(recipe))
        if not (path / "manifest.json").is_file():
            write_json(path / "manifest.json", manifest())
        return cls(path, recipe)

    @staticmethod
    def resolve(recipe: Recipe) -> dict[str, Any]:
        """What recipe.json of the run will hold; looks at `recipe.out` and changes nothing.

        Raises:
            UserError: see `create`.
        """
        path = recipe.out
        resolved = recipe.model_dump(mode="json")
        if (path / "recipe.json").is_file():
            # Parsed again, so that keys which a newer version added compare as their defaults.
            origin = str(path / "recipe.json")
            before = parse_recipe(_read_recipe(path), origin=origin, recorded=True).model_dump(mode="json")
            for section in ("arms", "prm"):
                resolved[section] = before[section] | resolved[section]
            differences = _differences(before, resolved)
            if differences:
                raise UserError(
                    f"{path} holds a run of another recipe ({'; '.join(differences[:4])}){_rounding(differences)}; "
                    "to make a new run that takes over the stages that stay the same: "
                    f"psgpo run RECIPE --set out=NEW --reuse {shlex.quote(str(path))}"
                )
            refuse_new_training(parse_recipe(resolved, origin=origin, recorded=True))
        elif path.is_dir() and any(file.name != _TORN for file in path.iterdir()):
            raise UserError(f"{path} exists and is no run directory; give another out folder (--set out=...)")
        return resolved

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """An existing run.

        Raises:
            UserError: `path` holds no recipe.json.
        """
        path = Path(path)
        return cls(path, parse_recipe(_read_recipe(path), origin=str(path / "recipe.json"), recorded=True))

    def stage_done(self, stage: str) -> bool:
        """True when the stage has run to its end."""
        return (self.path / "stages" / f"{stage}.json").is_file()

    def receipt(self, stage: str) -> dict[str, Any]:
        """What a finished stage left behind about itself; see `stage`.

        Raises:
            UserError: the file is broken.
        """
        file = self.path / "stages" / f"{stage}.json"
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}: no receipt of a stage ({error}); delete it and run the stage again") from None

    @contextmanager
    def locked(self, stage: str) -> Iterator[TextIO]:
        """Hold the stage's lock, an open file.

        Raises:
            UserError: another process is at this stage.
        """
        folder = self.path / "stages"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{stage}.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.path}: stage {stage} is being run by another process; wait for it") from None
            yield lock
        (folder / f"{stage}.lock").unlink(missing_ok=True)

    @contextmanager
    def stage(self, stage: str, *, files: Mapping[str, str] | None = None) -> Iterator[None]:
        """Hold the stage's lock and leave its receipt (seconds, CPU seconds, peak memory) when the body succeeds.

        A report that was there is then no longer of all that is there: its receipt goes (`outdate_report`).

        Seconds add up over the attempts of an interrupted stage, but for those that were killed.

        Args:
            files: what lay where the recipe names files (`psgpo.runs.inputs.file_prints`), for the receipt.

        Raises:
            UserError: another process is at this stage.
        """
        with self.locked(stage) as lock:
            lock.seek(0)
            earlier = _spent_before(lock.read())
            # Under a launcher one process does one stage after the other.
            started, used = time.perf_counter(), _cpu_seconds()
            try:
                yield
            finally:
                spent = {
                    "seconds": round(earlier["seconds"] + time.perf_counter() - started, 3),
                    "cpu_seconds": round(earlier["cpu_seconds"] + _cpu_seconds() - used, 3),
                }
                lock.truncate(0)
                lock.write(json.dumps(spent))
                lock.flush()
            receipt = {"stage": stage, **spent, "peak_memory_mb": _peak_memory_mb()}
            receipt["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
            self.outdate_report()
            write_json(self.path / "stages" / f"{stage}.json", receipt | ({"files": dict(files)} if files else {}))

    def outdate_report(self) -> None:
        """Let the next `psgpo run` write the report anew: it is of everything that is there, and more is coming.

        Called before a stage leaves its receipt. After it, a kill in between would leave an old report that counts.
        """
        (self.path / "stages" / "report.json").unlink(missing_ok=True)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(
            f"{path}: cannot be made a run directory ({error.strerror}); give another (--set out=...)"
        ) from None


def _spent_before(text: str) -> dict[str, float]:
    """Seconds of earlier attempts; zero when there was none, or when it died while writing them."""
    try:
        return {key: float(json.loads(text)[key]) for key in ("seconds", "cpu_seconds")}
    except (ValueError, KeyError, TypeError):
        return {"seconds": 0.0, "cpu_seconds": 0.0}


def _read_recipe(path: Path) -> dict[str, Any]:
    file = path / "recipe.json"
    try:
        recipe = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not a run directory (no recipe.json); start one with: psgpo run RECIPE") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: not valid JSON ({error}); {_LOST}") from None
    if not isinstance(recipe, dict):
        raise UserError(f"{file}: expected a JSON object; {_LOST}")
    return recipe


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old -> new` for every difference that would change finished stages."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        added = prefix in ("arms.", "prm.") and key not in old
        if name in HOW_KEYS or old.get(key) == new.get(key) or added:
            continue
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            found += _differences(old[key], new[key], f"{name}.")
        else:
            found.append(f"{name}: {json.dumps(old.get(key))} -> {json.dumps(new.get(key))}")
    return found


def _rounding(differences: Sequence[str]) -> str:
    """Why settings that bound memory count as any other."""
    memory = [key for key in (one.partition(": ")[0] for one in differences) if key.split(".")[-1] in _MEMORY]
    if not memory:
        return ""
    return f"; {', '.join(memory)} bounds memory, but moves results in their last bits, and a stage has one setting"


def manifest() -> dict[str, Any]:
    """What makes a run now: software, machine, command."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    return {
        "psgpo": psgpo.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **packages,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["psgpo", *sys.argv[1:]]),
    }


def _commit() -> str | None:
    """The source's git commit, with `+changes` when the tree differs from it; None outside a checkout of psgpo."""
    source = Path(psgpo.__file__).parent
    # An environment may lie in the checkout of another project, which does not keep what is installed in it.
    tracked = ["git", "-C", str(source), "ls-files", "--error-unmatch", Path(psgpo.__file__).name]
    try:
        subprocess.run(tracked, capture_output=True, check=True)
        head = subprocess.run(["git", "-C", source, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "-C", source, "status", "--porcelain", "."], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_memory_mb() -> float:
    # Linux reports KiB; beside this process counts the largest descendant, programs in the sandbox included.
    usages = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(usages) / 1024, 1)
