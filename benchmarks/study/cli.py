"""The commands `plan`, `run` and `table`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from psgpo.errors import UserError, reported
from study.carry import carry_out, order
from study.cells import FOLDER, Study
from study.plan import plan

OUT = FOLDER.parents[1] / "docs" / "results" / "study"


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit status: 0, or 1 when a cell failed, or 2 for a mistake in what was given."""
    options = _parser().parse_args(arguments)
    with reported():
        sys.exit(_COMMANDS[options.command](options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="study", description="The study of benchmarks/study; see its __main__.py.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("plan", "cells, what is missing, what it costs"),
        ("run", "run what is missing; Ctrl-C and again goes on"),
        ("table", "tables and figures from the results alone"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--study", type=Path, default=FOLDER / "study.toml", help="the list of cells")
        command.add_argument("--into", type=Path, metavar="FOLDER", help="repeat the study there, from nothing")
        command.add_argument("--group", help="only the cells of this group")
        command.add_argument("--cells", nargs="+", metavar="CELL", help="only these cells")
        if name == "table":
            command.add_argument("--out", type=Path, help="folder of the pages (default: docs/results/study)")
            continue
        command.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these seeds")
        command.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
        if name == "run":
            command.add_argument("--minutes", type=float, help="start nothing new after so many minutes")
    return parser


def _plan(options: argparse.Namespace) -> int:
    study = Study.load(options.study, options.into)
    sys.stdout.write(plan(study, study.chosen(options.cells, options.group), options.seeds, _jobs(options)))
    return 0


def _run(options: argparse.Namespace) -> int:
    study = Study.load(options.study, options.into)
    processes = _jobs(options)
    cells = study.chosen(options.cells, options.group)
    sys.stderr.write(plan(study, cells, options.seeds, processes))
    outcome = carry_out(study, order(study, cells, options.seeds), processes=processes, minutes=options.minutes)
    sys.stderr.write(
        f"{len(outcome.done)} done, {len(outcome.failed)} failed, {len(outcome.left)} left for want of time\n"
    )
    for (cell, seed), reason in outcome.failed.items():
        sys.stderr.write(f"  {cell}, seed {seed}: {reason.splitlines()[0]}\n")
    return 1 if outcome.failed else 0


def _table(options: argparse.Namespace) -> int:
    from study.findings import render
    from study.pages import write_pages  # loads matplotlib

    study = Study.load(options.study, options.into)
    out = options.out or (OUT if options.into is None else options.into / "pages")
    for path in write_pages(study, study.chosen(options.cells, options.group), out):
        sys.stdout.write(f"{path}\n")
    if out == OUT:  # its prose is about the published results
        page = OUT.parent / "README.md"
        page.write_text(render(study, OUT), encoding="utf-8")
        sys.stdout.write(f"{page}\n")
    return 0


def _jobs(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: give 1 or more")
    return int(options.jobs)


_COMMANDS = {"plan": _plan, "run": _run, "table": _table}
