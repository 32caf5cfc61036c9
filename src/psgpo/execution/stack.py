"""The stack of a program, which says how deep it may recurse: the same whatever `ulimit -s` the owner was started with.

The kernel asks for the limit whenever the main thread's stack grows; the C library reads it once, when a process
starts, as the size of every other thread's stack, which takes address space at once. So the zygote starts with the
limit of threads and then sets that of its main thread, which its children inherit.

Only the soft limit is set: programs that raise it themselves, as many from contests do, go on to work.
"""

from __future__ import annotations

import resource

MAIN = 64 << 20
"""Bytes of the main thread."""
THREAD = 8 << 20
"""Bytes of any other; a program may ask for more by `threading.stack_size`."""


def limit_stack(size: int) -> None:
    """Set this process's soft limit: `size` bytes, or the hard limit where that is lower."""
    resource.setrlimit(resource.RLIMIT_STACK, (_allowed(size), _hard()))


def stack_limits() -> str:
    """What verdicts depend on: the soft limit that programs get here, and the hard one."""
    return f"{_allowed(MAIN)} {_hard()}"


def _allowed(size: int) -> int:
    return size if _hard() == resource.RLIM_INFINITY else min(size, _hard())


def _hard() -> int:
    return resource.getrlimit(resource.RLIMIT_STACK)[1]
