"""Put a report together: load the runs, draw, render, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from psgpo.jsonl import write_json
from psgpo.report.aggregate import experiment
from psgpo.report.html import render_page
from psgpo.report.load import load_run
from psgpo.report.summary import summarise


def build_report(run_dirs: Sequence[Path | str], out: Path | str) -> Path:
    """Write `index.html`, `summary.json` and the figures as PNG into the folder `out`.

    Args:
        run_dirs: one run, or several seeds of one recipe. A run may be unfinished: what is not there yet is shown as
            missing, with the command that makes it.

    Returns:
        The path of the page.

    Raises:
        UserError: no run given, a directory is no run, a file in it is broken, or the recipes differ.
    """
    data = experiment([load_run(path) for path in run_dirs])
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    page, plots = render_page(data)
    for plot in plots:
        (out / f"{plot.name}.png").write_bytes(plot.png)
    write_json(out / "summary.json", summarise(data))
    index = out / "index.html"
    temporary = index.with_suffix(".html.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(index)
    return index
