"""The optional extension `_lean`: the zygote's loop in C. Whether it is wanted, and whether it is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from psgpo.errors import UserError

NAME = "c"
"""Stands among the layers of confinement in the zygote's arguments and first frame: what can be left off, and why it is
not in use. It confines nothing by itself."""
VARIABLE = "PSGPO_SANDBOX_BACKEND"
PROTOCOL = 1
"""What the C file was written for; an extension that an older version has left behind says another number."""

Serve = Callable[[int, bytes, int, bool, int], tuple[list[bytes], bytes] | None]
"""Answer requests at a descriptor: None when the tester is gone, in each child the first frames that came for it and
what was read beyond them. Also needs the fence's filter, a limit of processes or 0, whether an orphan must die, and the
milliseconds of grace after `END_AFTER_EXIT`."""


def unwanted() -> tuple[str, ...]:
    """What the owner's environment wants left off.

    Raises:
        UserError: the variable has a value without a meaning.
    """
    wanted = os.environ.get(VARIABLE, "c")
    if wanted not in ("c", "python"):
        raise UserError(f"{VARIABLE}={wanted}: must be `c` (the default: the C helper where it is built) or `python`")
    return (NAME,) if wanted == "python" else ()


def backend(refusal: str) -> str:
    """Its name, by what the zygote says of the helper."""
    return "python" if refusal else "c"


def load() -> tuple[Serve | None, str]:
    """The helper's loop, or None and why there is none."""
    try:
        extension: Any = __import__("psgpo.execution._lean", fromlist=["serve"])
    except ModuleNotFoundError:
        return None, "not built for this Python"
    except ImportError as error:
        return None, str(error)
    if extension.PROTOCOL != PROTOCOL:
        return None, "built from another version"
    return extension.serve, ""
