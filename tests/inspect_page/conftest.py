"""The small run, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inspect_world import World, make_run

from chromium import Chromium
from psgpo.inspect_page.build import build_page


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def small_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody writes into it; copy it to change something."""
    return make_run(tmp_path_factory.mktemp("inspect") / "run", world)


@pytest.fixture(scope="session")
def page_file(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "page.html"
    build_page(small_run, out, policies=["baseline", "dense"], command="psgpo inspect runs/small --out page.html")
    return out


@pytest.fixture
def page(browser: Chromium, page_file: Path) -> Iterator[Chromium]:
    """The page, fresh; a test fails when the page reports an error or asks for anything but itself."""
    with browser.alone_with(page_file):
        yield browser
