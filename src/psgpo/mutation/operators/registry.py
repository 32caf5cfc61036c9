"""What an operator is, and the table of all of them.

An operator knows one kind of change and nothing about tests: it proposes, execution decides. To add one, write a
generator of proposals under `@operator(...)` in a module of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from psgpo.mutation.program import Edit, Program

Family = Literal["bug", "refactor"]
Edits = tuple[Edit, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """One change of a program."""

    edits: Edits
    line: int
    """Line of the reference (from 1) that must be executed for the change to matter."""


Propose = Callable[[Program], Iterator[Proposal]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """A named way to change a program."""

    name: str
    kind: str
    """What people call the mistake, or the rewrite; tables count by it."""
    family: Family
    """bug: meant to be wrong. refactor: meant to change nothing. Execution has the last word on both."""
    propose: Propose
    layout: bool = False
    """The change may leave the syntax tree as it is (parentheses): such rewrites are told apart by their text."""


OPERATORS: dict[str, Operator] = {}
"""By name, in the order of definition."""


def operator(name: str, kind: str, family: Family, *, layout: bool = False) -> Callable[[Propose], Propose]:
    """Enter a generator of proposals into `OPERATORS`."""

    def enter(propose: Propose) -> Propose:
        assert name not in OPERATORS, name
        OPERATORS[name] = Operator(name=name, kind=kind, family=family, propose=propose, layout=layout)
        return propose

    return enter


def at(line: int, *edits: Edit) -> Proposal:
    return Proposal(edits=edits, line=line)
