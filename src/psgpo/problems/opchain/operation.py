"""What an operation of OpChain is: words for it, its meaning, right code for it and wrong code for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

StateType = Literal["list", "int", "str"]
Code = tuple[str, ...]
"""Lines of a function body, indented by four spaces, that rebind the one variable `x`."""

INDENT = "    "
HEADER = "def solve(x):"
FOOTER = f"{INDENT}return x"
FUNCTION = "solve"

_PARAMETER = re.compile(r"\b(K|KM|KP)\b")


def always(state: Any, parameter: int) -> bool:
    """An operation that has a meaning everywhere."""
    return True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Operation:
    """One step that a prompt can ask for. Compared by identity: there is one object per name.

    Code and phrasings are written with `K` for the parameter, `KM` for one less and `KP` for one more.
    """

    name: str
    takes: StateType
    """Type of `x` before the operation; `list` is a list of integers."""
    gives: StateType
    """Type of `x` after it."""
    apply: Callable[[Any, int], Any]
    """The meaning: (state, parameter) -> new state. Never changes its argument."""
    phrasings: tuple[str, ...]
    """Three or four ways to ask for it; all mean the same."""
    correct: tuple[str, ...]
    """Programs that do it; the first is the canonical one."""
    wrong: tuple[tuple[str, ...], ...]
    """Misconceptions; each is one mistake in one or more spellings, shaped like the correct ones."""
    parameters: tuple[int, ...] = ()
    """Values the parameter can take; empty when there is none."""
    defined: Callable[[Any, int], bool] = always
    """Whether the operation has a meaning for (state, parameter)."""
    weight: float = 1.0
    """Relative frequency among the operations that take this type."""
    last_only: bool = False
    """Comes only at the end of a chain, because what it gives suits no other operation."""


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its parameter chosen (0 when it has none): one link of a chain."""

    operation: Operation
    parameter: int = 0

    @property
    def name(self) -> str:
        return self.operation.name

    def apply(self, state: Any) -> Any:
        return self.operation.apply(state, self.parameter)

    def defined(self, state: Any) -> bool:
        return self.operation.defined(state, self.parameter)

    def phrase(self, index: int) -> str:
        """The `index`-th phrasing (modulo their number) with the parameter filled in."""
        phrasings = self.operation.phrasings
        return _fill(phrasings[index % len(phrasings)], self.parameter)

    def correct(self) -> tuple[Code, ...]:
        """Every correct variant; the first is canonical."""
        return tuple(code_lines_of(text, self.parameter) for text in self.operation.correct)

    def wrong(self, misconception: int) -> tuple[Code, ...]:
        """Every spelling of one misconception."""
        return tuple(code_lines_of(text, self.parameter) for text in self.operation.wrong[misconception])


Chain = tuple[Step, ...]


@lru_cache(maxsize=8192)
def code_lines_of(text: str, parameter: int) -> Code:
    """Fill the parameter into code and indent it into a function body."""
    return tuple(INDENT + line for line in _fill(text, parameter).split("\n"))


def _fill(text: str, parameter: int) -> str:
    values = {"K": parameter, "KM": parameter - 1, "KP": parameter + 1}
    return _PARAMETER.sub(lambda match: str(values[match.group()]), text)


def program(body: Sequence[str]) -> str:
    """The text of a whole program around body lines."""
    return "\n".join((HEADER, *body, FOOTER)) + "\n"


@lru_cache(maxsize=8192)
def runnable(code: Code) -> Callable[[Any], Any]:
    """Compile the benchmark's *own* code into a function of the state. Never give it a model's code."""
    namespace: dict[str, Any] = {}
    exec(program(code), namespace)
    function: Callable[[Any], Any] = namespace[FUNCTION]
    return function


def copy_state(state: Any) -> Any:
    """A copy that code working in place (`x.sort()`) can be let loose on."""
    return list(state) if isinstance(state, list) else state


def each(expression: str) -> tuple[str, ...]:
    """Code that maps `v` over a list: as a comprehension and as a loop."""
    return f"x = [{expression} for v in x]", f"out = []\nfor v in x:\n    out.append({expression})\nx = out"


def keep(condition: str) -> tuple[str, ...]:
    """Code that filters a list by a condition on `v`: as a comprehension and as a loop."""
    return (
        f"x = [v for v in x if {condition}]",
        f"out = []\nfor v in x:\n    if {condition}:\n        out.append(v)\nx = out",
    )
