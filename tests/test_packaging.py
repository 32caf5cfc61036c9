"""What an installation asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def lower_bounds(lines: list[str]) -> dict[str, set[str]]:
    """Package to its `>=` bounds."""
    found = [Requirement(line) for line in lines]
    return {one.name.lower(): {spec.version for spec in one.specifier if spec.operator == ">="} for one in found}


@pytest.mark.parametrize("name", ["vllm.txt", "verl.txt"])
def test_other_environments_take_no_older_command_line_than_the_project(name: str) -> None:
    """typer 0.18 ends every command with a traceback, in these environments too."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    listed = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    wanted = lower_bounds([line for line in listed if re.match(r"\w", line)])
    assert wanted["typer"] == lower_bounds(declared)["typer"]
