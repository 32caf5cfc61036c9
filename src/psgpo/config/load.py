"""From a TOML file, or the `recipe.json` of a run, to a recipe, with errors that name file and key."""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from psgpo.config.problems import BenchmarkSource, JsonlSource, OpChainSource
from psgpo.config.recipe import RECORDED, Recipe
from psgpo.errors import UserError


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides (values in TOML syntax, bare words are strings).

    Relative paths in a recipe are relative to the working directory.

    Args:
        path: a TOML file, or a `.json` file: the resolved recipe that every run directory holds.

    Raises:
        UserError: naming the file and key, what was found and what is allowed.
    """
    path = Path(path)
    resolved = path.suffix == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if resolved else tomllib.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid {'JSON' if resolved else 'TOML'}: {error}") from None
    if not isinstance(table, dict):
        raise UserError(f"{path}: expected a JSON object with a recipe's tables, found {type(table).__name__}")
    for override in overrides or []:
        _apply_override(table, override)
    return parse_recipe(table, origin=str(path), recorded=resolved)


def parse_recipe(table: dict[str, Any], *, origin: str, recorded: bool = False) -> Recipe:
    """Check a recipe given as nested dicts; `origin` names it in errors.

    Args:
        recorded: it is that of a run, which an earlier version may have accepted: settings without effect, which are
            refused in a new recipe, were carried out then and have to be read.
    """
    try:
        return Recipe.model_validate(table, strict=False, context={RECORDED: recorded})
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_explain(item) for item in error.errors()[:3])) from None


def _apply_override(table: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override!r}: write key.path=value, e.g. --set rl.steps=40")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, last = key.strip().split(".")
    node = table
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override!r}: {parent!r} is a value, not a table")
    node[last] = value


def _explain(item: Any) -> str:
    # The discriminated union adds its tag ('opchain') to the location; the key in the file has no such part.
    location = [
        str(part) for index, part in enumerate(item["loc"]) if not (index == 1 and item["loc"][0] == "problems")
    ]
    key = ".".join(location) or "recipe"
    if item["type"] == "extra_forbidden":
        allowed = _allowed_keys(list(item["loc"])[:-1])
        close = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown key {key!r}{hint} (allowed here: {', '.join(allowed)})"
    if item["type"] == "missing":
        return f"missing key {key!r}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message if key == "recipe" else f"{key}: {message}"
    return f"{key} = {json.dumps(item['input'], default=str)}: {message[0].lower()}{message[1:]}"


def _allowed_keys(location: list[Any]) -> list[str]:
    section: type[BaseModel] = Recipe
    tables: dict[str, type[BaseModel]] = {
        "opchain": OpChainSource,
        "jsonl": JsonlSource,
        "benchmark": BenchmarkSource,
    }
    for part in location:
        if part in tables and section is Recipe:  # the tag of problems.kind
            section = tables[part]
        elif part in section.model_fields and part != "problems":
            section = _table(section.model_fields[part].annotation) or section
    return sorted(section.model_fields)


def _table(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds: itself, or one of a union or of a dict of them."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
