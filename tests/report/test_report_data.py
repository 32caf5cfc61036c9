"""The CSV files: what is drawn and printed, no more, no less, in the page and beside it."""

from __future__ import annotations

import csv
import io
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic_run import ARMS, make_run

from psgpo.report import build_report, compare, figures, stage_figures
from psgpo.report.cells import percent, points
from psgpo.report.groups import groups_of
from psgpo.report.load import load_run
from psgpo.report.style import Plot

NOT_DRAWN = {"problems", "lines", "from", "to"}
"""Counts, shown as areas or tick labels, and edges of bins, drawn at their middle."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Figure, Plot]]]:
    """The page of two recipes, one with two seeds, and every figure on it with its plot."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        make_run(folder / "a0"),
        make_run(folder / "a1", seed=1),
        make_run(folder / "b", name="b", rl={"clip": 0.1}),
    ]
    caught: dict[str, tuple[Figure, Plot]] = {}
    finish = figures.finish

    def catch(figure: Figure, **options: Any) -> Plot:
        plot = finish(figure, **options)
        caught[f"{len(caught)} {plot.name}"] = (figure, plot)
        return plot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "finish", catch)
        patch.setattr(stage_figures, "finish", catch)
        index = build_report(runs, folder / "report")
    return index, caught


def numbers(figure: Figure) -> np.ndarray[Any, Any]:
    """Every coordinate in the figure's axes: of lines, bars, points, bars of error and bands."""
    (axes,) = figure.axes
    parts: list[Any] = [np.asarray(line.get_xydata()) for line in axes.lines]
    parts += [[patch.get_height(), patch.get_x() + patch.get_width() / 2] for patch in axes.patches]
    for collection in axes.collections:
        parts += [path.vertices for path in collection.get_paths()]
        parts.append(np.asarray(collection.get_offsets()))
    return np.concatenate([np.asarray(part, dtype=float).ravel() for part in parts])


def test_every_number_of_a_csv_file_is_in_the_figure(drawn: tuple[Path, dict[str, tuple[Figure, Plot]]]) -> None:
    assert len(drawn[1]) == 2 * 22 + 2 + len(ARMS)  # per recipe; side by side; curves
    for name, (figure, plot) in drawn[1].items():
        there = numbers(figure)
        assert plot.frame.rows, name
        for row in plot.frame.rows:
            assert len(row) == len(plot.frame.columns)
            for column, value in zip(plot.frame.columns, row, strict=True):
                if isinstance(value, str) or column in NOT_DRAWN or np.isnan(value):
                    continue
                assert np.isclose(there, value, rtol=1e-9, atol=1e-12).any(), (name, column, value)


def test_every_curve_of_a_figure_is_in_its_csv_file(drawn: tuple[Path, dict[str, tuple[Figure, Plot]]]) -> None:
    checked = 0
    for name, (figure, plot) in drawn[1].items():
        known = np.array([value for row in plot.frame.rows for value in row if not isinstance(value, str)])
        for line in figure.axes[0].lines:
            heights = np.asarray(line.get_ydata(), dtype=float)
            if len(heights) < 3 or "runs-to" in name or "to-baseline" in name:  # a frame's line, or one of intervals
                continue
            checked += 1
            assert all(np.isclose(known, y).any() for y in heights if np.isfinite(y)), name
    assert checked > 100


def test_the_page_holds_the_files_that_lie_beside_it(drawn: tuple[Path, dict[str, tuple[Figure, Plot]]]) -> None:
    index, _ = drawn
    text = index.read_text(encoding="utf-8")
    links = re.findall(r'<a download="([^"]+)" href="data:text/csv;charset=utf-8,([^"]*)"', text)
    files = {path.name: path.read_text(encoding="utf-8") for path in (index.parent / "data").iterdir()}
    assert {name: unquote(unescape(content)) for name, content in links} == files
    for name, content in files.items():
        head, *rows = csv.reader(io.StringIO(content))
        assert rows, name
        assert len(set(head)) == len(head), name
    sources = re.findall(r'<details class="source">.*?<code>([^<]*)</code></details>', text)
    assert len(sources) == len(links)
    assert set(map(unescape, sources)) == {" ".join(["psgpo report", *_runs(index), "--out", str(index.parent)])}


def _runs(index: Path) -> list[str]:
    return [str(index.parent.parent / name) for name in ("a0", "a1", "b")]


def test_numbers_of_tables_are_those_that_are_read(drawn: tuple[Path, dict[str, tuple[Figure, Plot]]]) -> None:
    found = groups_of([load_run(path) for path in _runs(drawn[0])])
    table = compare.policy_table(found, "t")
    columns = table.frame.columns
    for row, values in zip(table.rows, table.frame.rows, strict=True):
        numbers = dict(zip(columns, values, strict=True))
        share, low, high = (numbers[f"pass@1 95 % interval{end}"] for end in ("", ", low", ", high"))
        assert row[3].text == percent(float(share))
        assert row[3].note == f"{percent(float(low))[:-2]} to {percent(float(high))[:-2]}"
        if row[0].text != "baseline":
            assert row[4].text == points(float(numbers["− baseline of the same run"]))
