"""The layout: imports point one way, and the torch-free part is torch-free."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "psgpo"
ROOMS = [
    ("errors", "jsonl", "plain", "records", "seeds", "config", "lines", "prompts", "chats", "remote", "job", "syntax"),
    ("execution",),
    ("problems",),
    ("mutation",),
    ("firsterror",),
    ("models", "optimizers", "parallel", "training"),
    ("sampling", "sft"),
    ("labeling",),
    ("prm",),
    ("rl",),
    ("engines",),
    ("evaluation", "rerank"),
    ("exchange",),
    ("report", "inspect_page"),
    ("runs",),
    ("cli", "__main__"),
]
"""Left to right; a room imports from its own group and from those left of it."""
RANK = {name: rank for rank, group in enumerate(ROOMS) for name in group}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.name != "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            parts = node.module.split(".")
            names |= {".".join([*parts, alias.name]) for alias in node.names} if parts == ["psgpo"] else {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("psgpo.")}


def test_every_room_has_a_place() -> None:
    assert {room(path) for path in modules()} == set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_left(path: Path) -> None:
    here = RANK[room(path)]
    wrong = {name for name in imported(path) if name in RANK and RANK[name] > here}
    assert not wrong, f"{path.name} imports {wrong}, which lie to its right"


@pytest.mark.parametrize(
    "package",
    [
        "psgpo.config",
        "psgpo.problems.opchain",
        "psgpo.execution",
        "psgpo.labeling.search",
        "psgpo.labeling.splice",
        "psgpo.syntax",
        "psgpo.mutation.run",
        "psgpo.firsterror.run",
        "psgpo.rerank.strategies",
        "psgpo.rerank.choose",
        "psgpo.report",
        "psgpo.inspect_page.build",
    ],
)
def test_torch_free(package: str) -> None:
    code = f"import sys, {package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
