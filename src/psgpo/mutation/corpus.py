"""Python functions that every machine has: the standard library and installed packages, as (words, code)."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from psgpo.errors import UserError

_SKIPPED = frozenset({"site-packages", "test", "tests", "benchmarks", "idlelib", "turtledemo", "lib2to3", "pydoc_data"})
LINES = (3, 22)
"""Fewest and most lines of a function that is taken."""
CHARACTERS = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A function without its docstring, comments and blank lines, at no indentation."""

    name: str
    words: str
    """First paragraph of the docstring, or the words of the name; at most 200 characters."""
    code: str


def source_folders(packages: Sequence[str]) -> list[Path]:
    """The standard library and the folders of installed packages.

    Raises:
        UserError: a package is not installed.
    """
    folders = [Path(sysconfig.get_paths()["stdlib"])]
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise UserError(f"package {package!r} is not installed here; install it or leave it out")
        folders.append(Path(next(iter(found.submodule_search_locations))))
    return folders


def functions(folders: Sequence[Path]) -> list[Function]:
    """Short functions of all Python files below the folders, each text once, in the order of paths. Tests left out."""
    found: dict[str, Function] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if _SKIPPED.isdisjoint(path.relative_to(folder).parts):
                for function in _functions(path):
                    found.setdefault(function.code, function)
    return list(found.values())


def _functions(path: Path) -> Iterator[Function]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    lines = source.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            function = _function(node, lines)
            if function is not None:
                yield function


def _function(node: ast.FunctionDef, lines: Sequence[str]) -> Function | None:
    doc = ast.get_docstring(node)
    body = node.body if doc is None else node.body[1:]
    if not body or (node.body[0].end_lineno or 0) >= body[0].lineno > node.body[0].lineno:
        return None
    kept = [*lines[node.lineno - 1 : node.body[0].lineno - 1], *lines[body[0].lineno - 1 : node.end_lineno]]
    kept = [line for line in kept if line.strip() and not line.lstrip().startswith("#")]
    code = textwrap.dedent("\n".join(kept))
    if not LINES[0] <= len(kept) <= LINES[1] or len(code) > CHARACTERS or '"""' in code or "'''" in code:
        return None
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return None
    words = re.split(r"\n\s*\n", doc.strip())[0] if doc else node.name.strip("_").replace("_", " ")
    return Function(name=node.name, words=" ".join(words.split())[:200], code=code)


def restyled(code: str, rng: random.Random) -> str:
    """The code in another hand: now and then without spaces around operators, or indented by two or by tabs."""
    lines = code.split("\n")
    if rng.random() < 0.3:
        lines = [
            line if "'" in line or '"' in line else re.sub(r" (==|!=|<=|>=|[-+*/%<>]) ", r"\1", line) for line in lines
        ]
    unit = rng.choice(["    ", "    ", "  ", "\t"])
    return "\n".join(re.sub(r"^(?: {4})+", lambda m: unit * (len(m.group()) // 4), line) for line in lines)
