"""The page in a real headless Chromium: what screen readers and the keyboard find, contrast, widths, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from chromium import NO_CHROMIUM, Chromium, skips_browser

pytestmark = pytest.mark.skipif(skips_browser(), reason=NO_CHROMIUM)


def test_everything_that_acts_has_a_name_for_screen_readers(page: Chromium) -> None:
    page.key("c")
    page.key("t")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    acting = {"button", "combobox", "region", "table", "columnheader", "DisclosureTriangle"}
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"] and node["role"]["value"] in acting:
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    named.pop("table")  # named by the region around them
    assert all(all(names) for names in named.values()), named
    assert {"Problem", "Checkpoint", "Response", "Coloured by", "Rewards of arm"} <= set(named["combobox"])
    assert {"Line 1, tokens", "Previous problem", "Keys and columns"} <= set(named["button"])
    assert {"Line 1, tokens", "Probes in the order asked", "Tests"} <= set(named["region"])
    marks = page.js("[...document.querySelectorAll('td.mark')].map((cell) => cell.textContent)")
    assert {"+ can be completed", "− cannot be completed", "≠ differs"} <= set(marks)
    assert page.js("document.getElementById('status').getAttribute('role')") == "status"


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(page: Chromium) -> None:
    seen = []
    for _ in range(14):
        page.key("Tab")
        seen.append(page.js("document.activeElement.dataset.key || document.activeElement.className"))
        assert page.js("getComputedStyle(document.activeElement).outlineStyle") != "none"
    wanted = ["skip", "back", "problem", "on", "arm", "tokens", "compare", "mistake", "help"]
    assert seen[: len(wanted)] == wanted
    assert {"checkpoint-0", "response-0", "prm-0"} <= set(seen)


CONTRAST = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [...n.slice(0, 3), n[3] ?? 1]; };
  const over = (top, below) => below.slice(0, 3).map((c, i) => top[3] * top[i] + (1 - top[3]) * c);
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
    return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('script, .sr')) continue;
    const ground = behind(element);
    const [a, b] = [over(parse(getComputedStyle(element).color), ground), ground].map(light);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) bad.push([walker.currentNode.data.trim().slice(0, 30), contrast.toFixed(2)]);
  }
  return bad;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_a_contrast_of_at_least_4_5(page: Chromium, dark: bool) -> None:
    page.look(dark=dark)
    # The strongest colours: every score far on either side.
    page.js(
        "page.responses.forEach((r) => { for (const name in r.scores)"
        " r.scores[name] = r.scores[name].map((_, m) => (m % 2 ? -9 : 9)); })"
    )
    page.key("j")
    page.key("c")
    page.key("t")
    assert page.js("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)"
    )
    assert page.js(CONTRAST) == []
    page.choose('[data-key="problem"]', 2)
    page.key("?")
    assert page.js(CONTRAST) == []


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_makes_the_page_scroll_sideways(page: Chromium, width: int) -> None:
    page.look(width=width)
    for keys in ("j", "t", "c", "]"):
        page.key(keys)
        assert page.js("document.documentElement.scrollWidth") <= width, keys


def test_pictures_of_it_in_light_dark_compared_and_narrow(page: Chromium, tmp_path: Path) -> None:
    page.key("j")
    pictures = {}
    looks = (("light", 1200, False), ("dark", 1200, True), ("compared", 1200, False), ("narrow", 400, False))
    for name, width, dark in looks:
        if name == "compared":
            page.key("c")
        page.look(width=width, dark=dark)
        page.screenshot(tmp_path / f"{name}.png")
        picture_HWC = imread(tmp_path / f"{name}.png")[..., :3]
        assert picture_HWC.shape == (900, width, 3), name
        pictures[name] = (255 * picture_HWC).round().astype(int)
    papers = {name: tuple(map(int, picture_HWC[2, 2])) for name, picture_HWC in pictures.items()}
    light, dark_paper = (255, 255, 255), (20, 23, 28)
    assert papers == {"light": light, "dark": dark_paper, "compared": light, "narrow": light}
    for name, picture_HWC in pictures.items():
        other = (picture_HWC != papers[name]).any(axis=2)
        assert 0.02 < other.mean() < 0.9, name
        # Text and tinted lines, down to the last quarter of the window.
        assert other[-225:].any(), name
        assert len(np.unique(picture_HWC.reshape(-1, 3), axis=0)) > 50, name
    assert (pictures["light"] != pictures["compared"]).any()


def test_only_the_chosen_response_is_in_the_document(page: Chromium, browser: Chromium) -> None:
    def elements() -> Any:
        return page.js("document.querySelectorAll('main *').length")

    first = elements()
    for _ in range(3):
        page.key("]")
    page.key("[")
    page.key("[")
    page.key("[")
    assert elements() == first
