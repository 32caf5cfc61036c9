"""Put a report together: load the runs, draw, render, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from psgpo.errors import UserError
from psgpo.jsonl import write_json
from psgpo.report.commands import report_command
from psgpo.report.groups import groups_of
from psgpo.report.html import render_page
from psgpo.report.load import load_run
from psgpo.report.summary import summarise


def build_report(run_dirs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write `index.html`, `summary.json`, the figures as PNG and the numbers as `data/*.csv` into the folder `out`.

    Args:
        run_dirs: one run, or several. Seeds of one recipe are averaged; runs with other settings stand side by side.
            A run may be unfinished: what is not there yet is shown as missing, with the command that makes it.
        out: None puts the report of one run into its folder `report/`.

    Returns:
        The path of the page.

    Raises:
        UserError: no run given, several without `out`, a directory is no run, a file in it is broken, or the same
            recipe and seed twice.
    """
    paths = [Path(path) for path in run_dirs]
    groups = groups_of([load_run(path) for path in paths])
    if out is None and len(paths) > 1:
        raise UserError(
            f"{len(paths)} runs: the page of all needs a folder of its own, e.g. --out {paths[0].parent / 'compared'}"
        )
    folder = paths[0] / "report" if out is None else Path(out)
    command = report_command(paths, folder)
    page = render_page(groups, command)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, png in page.pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    for name, frame in page.frames.items():
        (folder / "data" / f"{name}.csv").write_text(frame.csv(), encoding="utf-8")
    write_json(folder / "summary.json", summarise(groups, command))
    index = folder / "index.html"
    temporary = index.with_suffix(".html.tmp")
    temporary.write_text(page.text, encoding="utf-8")
    temporary.replace(index)
    return index
