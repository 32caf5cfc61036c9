"""The recipes that come with psgpo: `recipes/` of a checkout, a folder of the package in an installation."""

from __future__ import annotations

from pathlib import Path

from psgpo.errors import UserError

_PACKAGE = Path(__file__).parent.parent
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent.parent / "recipes")
"""Of an installation, and of a checkout; setup.py makes the first of the second."""


def shipped_recipes() -> dict[str, Path]:
    """Files by name."""
    return {file.stem: file for folder in _FOLDERS for file in sorted(folder.glob("*.toml"))}


def shipped_recipe(name: str) -> str:
    """The text of one.

    Raises:
        UserError: none has this name.
    """
    known = shipped_recipes()
    if name not in known:
        raise UserError(f"no recipe {name!r} comes with psgpo; there are: {', '.join(known)}")
    return known[name].read_text(encoding="utf-8")


def headline(text: str) -> str:
    """What a recipe says of itself: its first comment.

    >>> headline("# Two arms.\\n# More.\\nname = 'x'\\n")
    'Two arms.'
    """
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
