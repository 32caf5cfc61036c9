"""Third-party packages that programs may import, such as numpy: by default there are none."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from psgpo.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Packages:
    """What the zygote makes readable and loads ahead."""

    names: tuple[str, ...] = ()
    """Modules to import before the first program, in order."""
    folders: tuple[str, ...] = ()
    """Folders to search for modules; only their names can be listed."""
    trees: tuple[str, ...] = ()
    """Files and folders below them that can be read."""
    versions: tuple[str, ...] = ()
    """`name version`, for the verdict's cache key."""

    def to_argument(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> Packages:
        return cls(**{key: tuple(value) for key, value in json.loads(argument).items()})


def find_packages(names: Sequence[str]) -> Packages:
    """Where the packages lie in this environment, with the shared libraries that wheels put beside them.

    Raises:
        UserError: one of them is not installed here.
    """
    import importlib.metadata  # here, for the zygote loads this module too and must stay small
    import importlib.util

    folders: list[str] = []
    trees: list[str] = []
    versions: list[str] = []
    for name in names:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            raise UserError(f"sandbox: the package {name!r} is not installed here; install it, or leave it out")
        place = os.path.abspath(spec.submodule_search_locations[0] if spec.submodule_search_locations else spec.origin)
        folder = os.path.dirname(place)
        folders.append(folder)
        trees += [path for path in (place, os.path.join(folder, f"{name}.libs")) if os.path.exists(path)]
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(name)
    return Packages(
        names=tuple(names), folders=tuple(dict.fromkeys(folders)), trees=tuple(trees), versions=tuple(versions)
    )
