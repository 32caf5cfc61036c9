"""The small run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from inspect_world import World, make_run


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def small_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody writes into it; copy it to change something."""
    return make_run(tmp_path_factory.mktemp("inspect") / "run", world)
