"""What a teacher proposes: a changed program, before anything has run it."""

from __future__ import annotations

import ast
import types
import warnings
from dataclasses import dataclass
from typing import Any, Protocol

from psgpo.lines import code_lines
from psgpo.mutation.operators.registry import Family
from psgpo.mutation.program import Program, parse
from psgpo.records import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One changed program."""

    code: str
    """Empty where the teacher's answer was no program."""
    teacher: str
    """`catalogue`, or the name of a model."""
    operator: str
    """Name of the operator; for a model `model-bug` or `model-refactor`."""
    kind: str
    family: Family
    line: int
    """Line of the reference (from 1) that must be executed for the change to matter."""
    mutated_line: int
    """First line of `code` (from 1) that differs from the reference's line of the same number."""
    in_place: bool
    """The mutated line is the only one that differs, and no line came or went."""
    layout: bool = False
    """The tree may equal the reference's: a rewrite of layout only."""


class Teacher(Protocol):
    """Proposes changes of a reference solution; execution decides what they are worth."""

    @property
    def name(self) -> str: ...

    def settings(self) -> dict[str, object]:
        """What decides its proposals, for the record of the run; JSON values."""
        ...

    def propose(self, problem: Problem, program: Program, *, seed: int) -> list[Candidate]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """Where two programs differ."""

    first: int
    """First line of the new program, from 1, that differs from the line at its place and says something."""
    in_place: bool


def changed_lines(before: str, after: str) -> Changed | None:
    """Compare line by line; None when the new program only ends earlier.

    Where a neutral line (comment, blank, bare string) is the first that differs, a statement is gone: the line that
    stands behind it came too early.
    """
    old, new = before.rstrip().split("\n"), code_lines(after)
    differs = [index >= len(old) or line.text != old[index] for index, line in enumerate(new)]
    first = next((i for i, line in enumerate(new) if not line.neutral and any(differs[: i + 1])), None)
    if first is None:
        return None
    return Changed(first=first + 1, in_place=len(old) == len(new) and sum(differs) == 1 and differs[first])


def tree_key(code: str) -> str:
    """Equal for programs with the same syntax tree."""
    return ast.dump(parse(code))


def compiled_key(code: str) -> Any:
    """Equal for programs that compile to the same instructions, wherever these stand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _instructions(compile(code, "<program>", "exec", dont_inherit=True))


def _instructions(code: types.CodeType) -> Any:
    constants = tuple(
        _instructions(item) if isinstance(item, types.CodeType) else (type(item).__name__, repr(item))
        for item in code.co_consts
    )
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    arguments = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return (code.co_code, constants, names, arguments, code.co_exceptiontable)
