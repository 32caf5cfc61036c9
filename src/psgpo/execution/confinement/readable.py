"""What an untrusted program may read: the interpreter's standard library, shared libraries, time zones, /dev/null.

And the packages that the sandbox was told to offer.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from psgpo.execution.packages import Packages

_LIBRARY_DIRECTORIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom")
_SYSTEM_TREES = ("/usr/share/zoneinfo",)
_HIDDEN = ("site-packages", "dist-packages")


@dataclass(frozen=True, kw_only=True, slots=True)
class Readable:
    """Absolute paths."""

    standard_library: str
    library_directories: tuple[str, ...]
    """Directories that hold shared libraries, to be bound as a whole into a private root."""
    hidden: tuple[str, ...]
    """Directories below the ones above that a private root covers with nothing."""
    packages: tuple[str, ...]
    """Files and directories to be bound into a private root, inside hidden directories too."""
    listed: tuple[str, ...]
    """Directories whose names may be listed."""
    trees: tuple[str, ...]
    """Directories that may be read with all that is in them."""
    files: tuple[str, ...]


def readable_paths(packages: Packages) -> Readable:
    """Look the paths up in the running interpreter."""
    library = os.path.dirname(os.path.abspath(os.__file__))
    entries = [entry for entry in os.scandir(library) if entry.name not in _HIDDEN]
    directories = [*_LIBRARY_DIRECTORIES, os.path.dirname(library), os.path.join(sys.base_prefix, "lib")]
    directories = [path for path in dict.fromkeys(directories) if os.path.isdir(path)]
    triplets = [entry.path for path in directories for entry in os.scandir(path) if entry.name.endswith("-linux-gnu")]
    shared = [
        entry.path
        for path in dict.fromkeys(map(os.path.realpath, [*directories, *triplets]))
        for entry in os.scandir(path)
        if ".so" in entry.name and entry.is_file()
    ]
    candidates = [os.path.join(library, name) for name in _HIDDEN]
    candidates += [os.path.join("/usr/lib", f"python{sys.version_info.major}", name) for name in _HIDDEN]
    offered = packages.trees
    return Readable(
        standard_library=library,
        library_directories=tuple(directories),
        hidden=tuple(path for path in candidates if os.path.isdir(path)),
        packages=packages.trees,
        listed=(library, *packages.folders),
        trees=(*(entry.path for entry in entries if entry.is_dir()), *filter(os.path.isdir, offered), *_SYSTEM_TREES),
        files=(
            *(entry.path for entry in entries if entry.is_file()),
            *filter(os.path.isfile, offered),
            *shared,
            *_SYSTEM_FILES,
        ),
    )
