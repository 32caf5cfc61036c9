"""The ladder of confinement: which layers are in force decides the rung, and a sandbox can require one."""

from __future__ import annotations

from collections.abc import Iterable

LAYERS = ("namespaces", "landlock", "seccomp", "uid")
"""What a zygote tries to put in force, each alone."""

MEANING = {
    "namespaces": "the program sees no other process, no network and no file but the standard library",
    "landlock": "the kernel refuses every file access outside the standard library",
    "seccomp": "the kernel refuses new processes, network, signals, ptrace and every write",
    "uid": "the program runs as a user that owns nothing and no other process has",
}

RUNGS: tuple[tuple[str, frozenset[str]], ...] = (
    ("full", frozenset({"namespaces", "landlock", "seccomp"})),
    ("seccomp+landlock", frozenset({"landlock", "seccomp"})),
    ("seccomp+namespaces", frozenset({"namespaces", "seccomp"})),
    ("seccomp", frozenset({"seccomp"})),
    ("landlock+uid", frozenset({"landlock", "uid"})),
    ("landlock", frozenset({"landlock"})),
    ("rlimits+uid", frozenset({"uid"})),
    ("rlimits", frozenset()),
)
"""Strongest first: a name and the layers it needs."""

LOWEST_CONFINED = "landlock+uid"
"""Below this rung a sandbox starts only when the user says so: a program could start processes without end."""

_NAMES = [name for name, _ in RUNGS]


def rung(in_force: Iterable[str]) -> str:
    """The strongest rung whose layers are all in force."""
    have = frozenset(in_force)
    return next(name for name, needed in RUNGS if needed <= have)


def at_least(name: str, required: str) -> bool:
    """Whether rung `name` is `required` or a stronger one."""
    return _NAMES.index(name) <= _NAMES.index(required)


def known(name: str) -> bool:
    """Whether there is a rung of that name."""
    return name in _NAMES
