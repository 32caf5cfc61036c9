"""Figures of `psgpo rerank`: however many methods there are, each shows its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from psgpo.report import rerank_figures
from psgpo.report.style import Plot

METHODS = ["random", *(f"{prm}-{kind}" for prm in ("sign", "progress") for kind in ("last", "mean", "min")), "oracle"]


def made_up(count: int, largest: int) -> dict[str, Any]:
    """`count` methods, the last one best, on n = 1 .. `largest`."""
    methods = {}
    for place, name in enumerate([*METHODS[:-1][: count - 1], METHODS[-1]]):
        curve = []
        for n in range(1, largest + 1):
            value = 0.15 + 0.03 * place * n / largest
            curve.append({"n": n, "tokens": 30.5 * n, "value": value, "low": value - 0.05, "high": value + 0.06})
        methods[name] = {"curve": curve}
    return {"methods": methods}


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are finished."""
    figures: list[Figure] = []
    finish = rerank_figures.finish

    def catch(figure: Figure, **options: Any) -> Plot:
        figures.append(figure)
        return finish(figure, **options)

    monkeypatch.setattr(rerank_figures, "finish", catch)
    return figures


@pytest.mark.parametrize(("count", "largest"), [(2, 2), (8, 8), (8, 64)])
@pytest.mark.parametrize("axis", ["n", "tokens"])
def test_every_method_has_its_interval_behind_the_curves(
    count: int, largest: int, axis: str, caught: list[Figure]
) -> None:
    methods = made_up(count, largest)["methods"]
    plot = rerank_figures.curves(methods, axis)
    (axes,) = caught[0].axes
    bars = [collection.get_paths()[0].vertices for collection in axes.collections]
    ends = {name: method["curve"][-1] for name, method in methods.items()}
    assert [list(bar[:, 1]) for bar in bars] == [[ends[n]["low"], ends[n]["high"]] for n in reversed(list(ends))]
    xs = [bar[0, 0] for bar in bars]
    last = ends["random"][axis]
    assert xs == sorted(set(xs))  # none hides another
    assert last < xs[0]
    low, high = axes.get_ylim()
    assert all(low <= y <= high for bar in bars for y in bar[:, 1])
    assert axes.get_xlim()[0] < methods["random"]["curve"][0][axis]
    assert axes.get_xlim()[1] > xs[-1]
    assert all(tick <= last for tick in axes.get_xticks())
    assert np.any(np.asarray(axes.get_xticks()) > last / 2)
    says = f"best first: 95 % over problems at the largest {'n' if axis == 'n' else 'budget'}"
    assert says in axes.get_xlabel()
    assert says in plot.caption


def test_a_judge_has_one_colour_and_no_two_methods_look_the_same() -> None:
    judged = [f"{prm}-{kind}" for prm in ("sign", "progress") for kind in ("last", "mean", "min", "product")]
    others = ["orm", "likelihood-mean", "likelihood-sum", "majority", "a", "b", "c", "d"]  # nine judges, seven colours
    names = ["random", *judged, *others, "oracle"]
    series = {one.label: one for one in rerank_figures.series_of(names)}
    assert list(series) == names
    assert len({(one.colour, one.dash) for one in series.values()}) == len(names)
    assert {series[name].colour for name in judged[:4]} == {series["sign-last"].colour}
    apart = ("random", "sign-last", "progress-last", "orm", "likelihood-sum", "majority", "oracle")
    assert len({series[name].colour for name in apart}) == len(apart)


def test_the_names_stand_as_the_intervals_do_best_first(caught: list[Figure]) -> None:
    methods = made_up(8, 4)["methods"]
    rerank_figures.curves(methods, "n")
    legend = caught[0].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(reversed(list(methods)))


def test_the_caption_says_what_a_beam_curve_is() -> None:
    methods = made_up(2, 2)["methods"]
    says = "Of beam only the last point is a run of its budget."
    assert says not in rerank_figures.curves(methods, "tokens").caption
    assert says in rerank_figures.curves(methods | {"beam": methods["random"]}, "tokens").caption


def test_the_files_of_a_summary(tmp_path: Path) -> None:
    written = rerank_figures.write_rerank_figures(made_up(8, 4), tmp_path)
    assert [path.name for path in written] == ["over-n.png", "over-tokens.png"]
    assert (tmp_path / "over-n.csv").read_text().startswith("method,n,value,low,high")
