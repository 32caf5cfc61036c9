"""The page in a real headless Chromium: on a desk, on a phone, in the dark, on paper."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_run import Size, make_run

from chromium import NO_CHROMIUM, Chromium, skips_browser
from psgpo.report import build_report

pytestmark = pytest.mark.skipif(skips_browser(), reason=NO_CHROMIUM)
PAPER = 703
"""Width of an A4 page between the margins of print.css, in CSS pixels."""
CONTRAST = """(() => {
  const light = (colour) => { const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((value) => {
      const c = value / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ratio = (colour) => {
    const [a, b] = [paper, light(colour)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); };
  const texts = [...document.querySelectorAll('figure svg text')];
  return Math.min(...texts.map((text) => ratio(getComputedStyle(text).fill)));
})()"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two recipes, with more responses than anybody reads."""
    folder = tmp_path_factory.mktemp("page")
    runs = [
        make_run(folder / "many", size=Size(problems=100, samples=8, labelled=400)),
        make_run(folder / "few", name="few", rl={"clip": 0.1}),
    ]
    return build_report(runs, folder / "report")


@pytest.fixture
def page(browser: Chromium, page_file: Path) -> Iterator[Chromium]:
    """The page, fresh; a test fails when it reports an error or asks for anything but itself and its own CSV."""
    with browser.alone_with(page_file, allowed="data:text/csv"):
        yield browser


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out(page: Chromium, width: int) -> None:
    page.look(width=width)
    assert page.js("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [False, True])
def test_figures_can_be_read_in_light_and_dark(page: Chromium, dark: bool) -> None:
    page.look(dark=dark)
    paper = page.js("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark
    assert page.js(CONTRAST) >= 3  # labels in the colours of their curves


def test_on_paper_it_is_light_whole_and_open(page: Chromium) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=PAPER, height=1000, deviceScaleFactor=1, mobile=False)
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.send("Emulation.setEmulatedMedia", media="print", features=scheme)
    try:
        assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        clipped = page.js(
            "[...document.querySelectorAll('table, figure')]"
            f".filter((e) => e.getBoundingClientRect().right > {PAPER} + 1).map((e) => e.innerText.slice(0, 60))"
        )
        assert clipped == []
        assert page.js("getComputedStyle(document.querySelector('section')).breakBefore") == "page"
        first = "document.querySelector('details.source code')"
        assert page.js(f"{first}.checkVisibility() && {first}.getBoundingClientRect().height > 0")
        assert page.js("getComputedStyle(document.querySelector('nav a'), '::after').content") == '" (#compare)"'
    finally:
        page.send("Emulation.setEmulatedMedia", media="")


def test_the_data_of_a_figure_can_be_saved(page: Chromium, page_file: Path, tmp_path: Path) -> None:
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("details.source summary")
    name = page.js("document.querySelector('details.source a').download")
    page.click("details.source a")
    saved = tmp_path / str(name)
    deadline = time.monotonic() + 20
    while not saved.is_file():
        assert time.monotonic() < deadline, "nothing was saved"
    assert saved.read_text(encoding="utf-8") == (page_file.parent / "data" / name).read_text(encoding="utf-8")


def test_the_page_does_not_grow_with_the_responses(page_file: Path) -> None:
    assert page_file.stat().st_size < 2_000_000
