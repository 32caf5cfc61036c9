"""The recipes that come with psgpo, from a checkout and from an installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from psgpo.cli.main import app
from psgpo.config import load_recipe
from psgpo.config.shipped import headline, shipped_recipes
from psgpo.errors import UserError

ROOT = Path(__file__).parents[2]
NAMES = sorted(file.stem for file in (ROOT / "recipes").glob("*.toml"))


def test_a_checkout_lists_and_shows_its_recipes(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["recipe", "list"], catch_exceptions=False).output
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(line.partition("  ")[2].strip() for line in lines)  # each says what it is
    shown = CliRunner().invoke(app, ["recipe", "show", "demo"], catch_exceptions=False).output
    (tmp_path / "demo.toml").write_text(shown, encoding="utf-8")
    assert load_recipe(tmp_path / "demo.toml") == load_recipe(ROOT / "recipes" / "demo.toml")


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=rf"no recipe 'demp' comes with psgpo; there are: {', '.join(NAMES)}"):
        CliRunner().invoke(app, ["recipe", "show", "demp"], catch_exceptions=False)


def test_the_first_comment_is_the_headline() -> None:
    assert headline("# Two arms.\n# More.\nname = 'x'\n") == "Two arms."
    assert headline("name = 'x'\n") == ""


def test_a_build_without_the_checkout_has_them(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="pip install setuptools")
    tree, installed = tmp_path / "tree", tmp_path / "installed"
    for folder in ("src", "recipes"):
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
        shutil.copytree(ROOT / folder, tree / folder, ignore=unwanted)
    for file in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree / file)
    build = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(installed)]
    made = subprocess.run(build, cwd=tree, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(tree)
    code = "from psgpo.config.shipped import shipped_recipes; print(*shipped_recipes().values(), sep='\\n')"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [Path(line) for line in done.stdout.splitlines()]
    assert found == [installed / "psgpo" / "recipes" / f"{name}.toml" for name in NAMES]
    assert [file.read_bytes() for file in found] == [file.read_bytes() for file in shipped_recipes().values()]
