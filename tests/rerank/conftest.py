"""What `psgpo rerank` is tried on, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from rerank_world import make_world, search


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make_world`; read only."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.fixture(scope="session")
def searched(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with what it printed, printed.txt; read only."""
    out = tmp_path_factory.mktemp("searched")
    (out / "printed.txt").write_text(search(world, out))
    return out
