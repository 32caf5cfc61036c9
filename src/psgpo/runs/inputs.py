"""What a stage reads of a recipe, as values that can be compared. A file or model folder counts by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from psgpo.config import HOW_KEYS, Recipe
from psgpo.labeling.identity import folder_fingerprint

UNKNOWN = "a file that left no fingerprint"
"""Of a receipt that an older psgpo wrote."""


def inputs(recipe: Recipe, reads: Iterable[str], prints: Mapping[str, str]) -> dict[str, Any]:
    """The keys below `reads` with their values, in that order, but for those of `HOW_KEYS`.

    Args:
        reads: tables and keys, `rl` or `arms.both` or `model.dtype`; what the recipe does not have is left out.
        prints: of the files that it names, by key (`file_prints`).
    """
    found = dict(_leaves(recipe, reads))
    return {key: prints.get(key, UNKNOWN) if isinstance(value, Path) else value for key, value in found.items()}


def file_prints(recipe: Recipe, reads: Iterable[str]) -> dict[str, str]:
    """Fingerprints of the files and folders that keys below `reads` name, by key."""
    return {key: fingerprint(value) for key, value in _leaves(recipe, reads) if isinstance(value, Path)}


def fingerprint(path: Path) -> str:
    """What lies there now, as text: of a file SHA-256, of a model folder `folder_fingerprint` and its chat template, of
    an RL arm's folder its name and those of its checkpoints: labels say whose response they are of by these names. The
    Hub's `owner/name` is its name, whatever version the Hub gives."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if not path.is_dir():
        return f"name {path.as_posix()}"
    checkpoints = sorted(path.glob("checkpoints/step-*"))
    digest = hashlib.sha256(f"{path.resolve().name}\n".encode() if checkpoints else b"")
    for folder in checkpoints or [path]:
        template = folder / "chat_template.jinja"
        digest.update(f"{folder.name if checkpoints else ''} {folder_fingerprint(folder)}\n".encode())
        digest.update(template.read_bytes() if template.is_file() else b"")
    return digest.hexdigest()


def first_difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> str | None:
    """The first key whose values differ, as `key: there -> here`; None where all are equal."""
    for key in dict.fromkeys([*here, *there]):
        if key not in here or key not in there or here[key] != there[key]:
            old, new = (_said(values, key) for values in (there, here))
            return f"{key}: {old} there, {new} here"
    return None


def _said(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], default=str) if key in values else "absent"


def _leaves(recipe: Recipe, reads: Iterable[str]) -> Iterator[tuple[str, Any]]:
    table = recipe.model_dump()
    for key in reads:
        node: Any = table
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        yield from _flat(key, node)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(f"{key}.{name}", item)
    elif value not in (None, {}) and key not in HOW_KEYS:
        yield key, value
