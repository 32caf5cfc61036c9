"""The commands that a report names: what makes a page, and what makes what is missing in a run. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from psgpo.report.load import Run


def run_command(run: Run, *, until: str = "") -> str:
    """The command that goes on with a run, from the recipe in its folder. Finished stages are not run again.

    Args:
        until: only this stage and what it needs.
    """
    words = ["psgpo", "run", str(run.path / "recipe.json")]
    if run.recipe.out.resolve() != run.path.resolve():  # the run was moved, or is seen from another folder
        words += ["--set", f"out={run.path}"]
    return shlex.join([*words, *(["--until", until] if until else [])])


def seed_command(run: Run, seed: int) -> str:
    """The command that makes the same run with another seed, in a folder beside it."""
    out = seed_folder(run, seed)
    return shlex.join(["psgpo", "run", str(run.path / "recipe.json"), "--set", f"seed={seed}", "--set", f"out={out}"])


def seed_folder(run: Run, seed: int) -> Path:
    """Where `seed_command` puts it."""
    return run.path.with_name(f"{run.path.resolve().name}-seed{seed}")


def made_by(run: Run) -> str:
    """The command that made the run, as its manifest has it; else the one that goes on with it."""
    return str(run.manifest.get("command") or run_command(run))


def report_command(runs: Sequence[Path], out: Path) -> str:
    """The command that makes a report."""
    default = len(runs) == 1 and out == runs[0] / "report"
    return shlex.join(["psgpo", "report", *map(str, runs), *([] if default else ["--out", str(out)])])
