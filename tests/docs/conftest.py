"""The working directory of somebody who follows the pages: a small finished run and the recipes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from docs_world import PSGPO, ROOT, run, tiny


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_overrides: list[str]) -> Path:
    """A folder with recipes/ and runs/demo, the demo's run shrunk to seconds. Copy it before writing into it."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    run([*PSGPO, "run", "recipes/demo.toml", *tiny(tiny_overrides)], folder)
    return folder
