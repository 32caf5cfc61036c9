"""The page docs/recipes.md: every key of a recipe with its type, default and docstring, from the classes themselves.

Docstrings under fields are read from the source (`ast`), and only here: a recipe that is loaded needs none of them.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from psgpo.config.base import Section
from psgpo.config.recipe import Recipe
from psgpo.errors import UserError

COMMAND = "psgpo recipe reference --out docs/recipes.md"
"""What writes the page anew."""
HEAD = f"""# Recipes: every key

Written by `{COMMAND}` from [`src/psgpo/config/`](../src/psgpo/config/); do not edit it by hand.
`psgpo recipe reference rl` prints one table. Which keys do not go together is said by `psgpo run RECIPE --dry-run`.

A recipe is a TOML file; `--set table.key=value` overrides a key for one command. Examples: [`recipes/`](../recipes/);
`psgpo recipe list` names them, `psgpo recipe show NAME` prints one.
Relative paths start at the working directory. *absent*: the key may be left out, and nothing takes its place.
"""
LIMITS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
WORDS = {int: "integer", float: "number", str: "string", bool: "true or false", Path: "path"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One row of a table."""

    name: str
    type: str
    default: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table of a recipe."""

    path: tuple[str, ...]
    """Of the table in the file; `NAME` is the user's choice. Empty for the keys above all tables."""
    kind: str
    """Value of `kind` that chooses it; empty where there is no choice."""
    text: str
    keys: tuple[Key, ...]


def reference(only: str = "") -> str:
    """The page as Markdown.

    Args:
        only: a table as it stands in a recipe (`rl`, `prm`, `model.lora`), for that one and those in it; empty for all.

    Raises:
        UserError: no table has that name.
    """
    tables = list(_tables(Recipe, ()))
    if not only:
        return "\n".join([HEAD, *map(_rendered, tables)]).rstrip() + "\n"
    wanted = tuple(only.strip("[]").split("."))
    shown = [table for table in tables if table.path and table.path[: len(wanted)] == wanted]
    if not shown:
        names = dict.fromkeys(".".join(table.path) for table in tables if table.path)
        raise UserError(f"{only}: no table of a recipe; there are: {', '.join(names)}")
    return "\n".join(map(_rendered, shown)).rstrip() + "\n"


def _tables(section: type[Section], path: tuple[str, ...], kind: str = "") -> Iterator[Table]:
    """The table of a section, then those inside it, in the order of the fields."""
    texts = _field_texts(section)
    keys, first, inner = list[Key](), dict[type[Section], str](), list[Iterator[Table]]()
    own = inspect.get_annotations(section)  # what it inherits stands where it is declared
    for name, field in section.model_fields.items():
        if name not in own:
            continue
        found, place = _sections(field.annotation), (*path, name)
        if get_origin(field.annotation) is dict and found:
            place = (*place, "NAME")
        for one in found:
            choice = _choice(one) if len(found) > 1 else ""
            if one not in first:  # ranges of tasks are described where the first one stands
                first[one] = _anchor(place, choice)
                inner.append(_tables(one, place, choice))
        links = ", ".join(f"[{_choice(one) if len(found) > 1 else _title(place)}](#{first[one]})" for one in found)
        text = texts.get(name) or (_opening(found[0]) if found else "")
        keys.append(
            Key(name=name, type=f"table {links}" if found else _type(field), default=_default(field), text=text)
        )
    yield Table(path=path, kind=kind, text=inspect.getdoc(section) or "", keys=tuple(keys))
    for tables in inner:
        yield from tables


def _choice(section: type[Section]) -> str:
    """The `kind` that chooses it among others."""
    return str(get_args(section.model_fields["kind"].annotation)[0])


def _title(path: tuple[str, ...]) -> str:
    return f"`[{'.'.join(path)}]`" if path else "Above all tables"


def _anchor(path: tuple[str, ...], kind: str) -> str:
    return "-".join([*path, *([kind] if kind else [])]).lower() or "top"


def _opening(section: type[Section]) -> str:
    """The first paragraph of its docstring."""
    return (inspect.getdoc(section) or "").partition("\n\n")[0]


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that a field holds: itself, or those of a union or of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _field_texts(section: type[Section]) -> dict[str, str]:
    """Docstrings under the fields of a class."""
    tree = ast.parse(Path(inspect.getfile(section)).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == section.__name__)
    found = {}
    for before, after in pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(before.target, ast.Name)
            found[before.target.id] = inspect.cleandoc(str(after.value.value))
    return found


def _type(field: FieldInfo) -> str:
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """A type as a user of TOML calls it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(parts[0], parts[1].metadata if isinstance(parts[1], FieldInfo) else parts[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part, metadata) for part in parts if part is not type(None))
    if origin is Literal:
        return ", ".join(f"`{_toml(value)}`" for value in parts)
    if origin is tuple:
        inner = [_words(part) for part in parts if part is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in parts else f"[{', '.join(inner)}]"
    if origin is dict:
        return f"table of {_words(parts[0])} = {_words(parts[1])}"
    limits = {name: value for part in metadata for name in LIMITS if (value := getattr(part, name, None)) is not None}
    if limits.keys() == {"ge", "le"}:
        return f"{WORDS[annotation]} in [{limits['ge']}, {limits['le']}]"
    pattern = next((f"`{part.pattern}`" for part in metadata if getattr(part, "pattern", None)), "")
    bounds = ", ".join(f"{LIMITS[name]} {value}" for name, value in limits.items())
    return " ".join(word for word in (WORDS[annotation], bounds, pattern) if word)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    if value is None:
        return "*absent*"
    return "" if isinstance(value, Section) else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """A plain value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\n", "\\n") + '"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def _rendered(table: Table) -> str:
    """Its own anchor, since headings with brackets have none that people can guess."""
    chosen = f' with `kind = "{table.kind}"`' if table.kind else ""
    head = [
        f'<a id="{_anchor(table.path, table.kind)}"></a>',
        "",
        f"## {_title(table.path)}{chosen}",
        "",
        _linked(table.text),
        "",
    ]
    rows = [
        f"| {' | '.join(map(_cell, (f'`{key.name}`', key.type, key.default, _linked(key.text))))} |"
        for key in table.keys
    ]
    if not rows:
        return "\n".join(head)
    return "\n".join([*head, "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _linked(text: str) -> str:
    """Pages that a docstring names become links, as seen from docs/."""
    return re.sub(r"\bdocs/([\w-]+)\.md", r"[\1](\1.md)", text)
