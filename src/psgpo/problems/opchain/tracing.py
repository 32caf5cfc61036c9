"""Running programs with a look at `x` after every statement: the untrusted half of the exact oracle.

The trusted side parses (never runs) a response, inserts one recording call after each statement of the function body
and one counting call at the start of each loop body, and sends the text to a driver program in the sandbox. Requests
and replies are JSON text. A reply is only believed to be data of the expected shape; see docs/opchain.md for what that
means for a program that tampers with the driver.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psgpo.problems.opchain.operation import FUNCTION, INDENT

MAX_LINE = 2_000
"""Longest line that is parsed, characters; a longer one ends the part of a response that is looked at."""
MAX_LINES = 500
MAX_STATE = 200
"""Longest list that counts as a state."""
CALLS_PER_DRIVER = 16
"""Requests that share one driver process; when it fails, each is sent again alone."""

_RECORD, _TICK = "_opchain_record", "_opchain_tick"
_LOOP = re.compile(r"^(\s*)(for|while)\b.*:\s*(#.*)?$")
_UNREADABLE = re.compile(r"[\r\f\x00]")

ODD = True
"""A recorded value that is no state of the benchmark: not exactly a list of int, an int or a str, or too large."""

_DRIVER = f"""
import json

class Overrun(BaseException):
    pass

def plain(x):
    if type(x) is list:
        if len(x) <= {MAX_STATE} and all(type(v) is int and -10**15 < v < 10**15 for v in x):
            return list(x)
    elif type(x) is int:
        if -10**15 < x < 10**15:
            return x
    elif type(x) is str and len(x) <= 500:
        return x
    return True

def execute(source, records, stop, inputs):
    try:
        code = compile(source, "<response>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    states, left = [], 10000
    def record(index, x):
        states[index] = plain(x)
    def tick():
        nonlocal left
        left -= 1
        if left < 0:
            raise Overrun
    scope = {{"__name__": "response", "{_RECORD}": record, "{_TICK}": tick}}
    try:
        exec(code, scope)
    except BaseException:
        return None
    results = []
    for value in inputs:
        states, left = [None] * records, 10000
        try:
            end = [plain(scope["{FUNCTION}"](list(value) if type(value) is list else value))]
        except BaseException:
            end = []
            if stop:
                return None
        results.append([states, end])
    return results

def run(request):
    inputs, programs = json.loads(request)
    return json.dumps([execute(*program, inputs) for program in programs])
"""


class OutcomeLike(Protocol):
    """What the sandbox says about one call."""

    @property
    def value(self) -> Any: ...

    @property
    def error(self) -> str | None: ...


EvaluateMany = Callable[[Sequence[tuple[str, str, Sequence[tuple[Any, ...]]]]], Sequence[Sequence[OutcomeLike]]]
"""`Sandbox.evaluate_many`: (program, function, calls) triples -> one outcome per call of each."""


@dataclass(frozen=True, slots=True)
class Source:
    """A program to run on every input of a problem."""

    text: str
    records: int = 0
    """How many recording calls it has."""
    stop: bool = False
    """Whether the first input it fails on ends its run, without an answer."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one program did with one input."""

    states: tuple[Any, ...]
    """`x` at every recording call; None where it was not reached, ODD where it was no state of the benchmark."""
    returned: bool
    value: Any = None
    """What it returned; ODD as above, None when it did not return."""


@dataclass(frozen=True, slots=True)
class Request:
    """Programs of one response and the inputs they run on."""

    inputs: tuple[Any, ...]
    sources: tuple[Source, ...]


Reply = tuple[tuple[Run, ...] | None, ...]
"""Per source its runs, one per input; None for a program that does not compile, or that failed and was to stop."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The statements of a response's function, as far as the response parses."""

    ends: tuple[int, ...]
    """Last line (from 1) of each statement of the function body that ends a line."""
    indent: str
    """Indentation of the function body."""
    whole: bool
    """The whole response parses."""
    alone: bool
    """The function is the response's only statement, so that tracing it is running the response."""


def readable_lines(lines: Sequence[str]) -> int:
    """How many leading lines are fit to be parsed: none beyond the limits, no carriage return, form feed or NUL."""
    for index, line in enumerate(lines[:MAX_LINES]):
        if len(line) > MAX_LINE or _UNREADABLE.search(line):
            return index
    return min(len(lines), MAX_LINES)


def structure_of(lines: Sequence[str], header: int) -> Structure:
    """Statements of the function whose `def` is line `header` (from 1), in the longest leading part that parses."""
    length = len(lines)
    while length > header:
        try:
            with warnings.catch_warnings():  # of responses that compile with a warning; it is theirs
                warnings.simplefilter("ignore")
                tree = ast.parse("\n".join(lines[:length]) + "\n")
        except SyntaxError as error:
            length = min(length - 1, max(error.lineno or 0, header))
            continue
        except (ValueError, RecursionError, MemoryError):
            length -= 1
            continue
        function = next(
            (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.lineno == header), None
        )
        if function is None or function.body[0].lineno == header:
            return Structure((), INDENT, length == len(lines), False)
        body = function.body
        following = [node.lineno for node in body[1:]] + [length + 1]
        ends = [node.end_lineno or node.lineno for node in body]
        first = lines[body[0].lineno - 1]
        return Structure(
            tuple(end for end, after in zip(ends, following, strict=True) if after > end),
            first[: len(first) - len(first.lstrip())],
            length == len(lines),
            len(tree.body) == 1,
        )
    return Structure((), INDENT, len(lines) == 0, False)


def instrument(lines: Sequence[str], ends: Sequence[int] = (), indent: str = INDENT, *, stop: bool = False) -> Source:
    """The lines as a program that counts loop iterations and records `x` after each line in `ends`."""
    place = {end: index for index, end in enumerate(ends)}
    out: list[str] = []
    loop: str | None = None
    for number, line in enumerate(lines, start=1):
        stripped = line.lstrip()
        if loop is not None and stripped and stripped[0] != "#":
            inner = line[: len(line) - len(stripped)]
            if len(inner) > len(loop):
                out.append(f"{inner}{_TICK}()")
            loop = None
        out.append(line)
        if match := _LOOP.match(line):
            loop = match.group(1)
        if number in place:
            out.append(f"{indent}{_RECORD}({place[number]}, x)")
    return Source("\n".join(out) + "\n", len(ends), stop)


def run_requests(evaluate_many: EvaluateMany, requests: Sequence[Request]) -> list[Reply | None]:
    """Run every request; None where the driver gave no answer even alone (endless loop, memory, exit).

    Requests share driver processes; those whose process failed are sent again, each alone.
    """
    texts = [_encode(request) for request in requests]
    replies: list[Reply | None] = [None] * len(requests)
    groups = [range(at, min(at + CALLS_PER_DRIVER, len(texts))) for at in range(0, len(texts), CALLS_PER_DRIVER)]
    for _ in range(2):
        answers = evaluate_many([(_DRIVER, "run", [(texts[i],) for i in group]) for group in groups])
        failed = []
        for group, outcomes in zip(groups, answers, strict=True):
            for index, outcome in zip(group, outcomes, strict=True):
                replies[index] = _decode(outcome, requests[index])
                if replies[index] is None and len(group) > 1:
                    failed.append(range(index, index + 1))
        if not failed:
            break
        groups = failed
    return replies


def _encode(request: Request) -> str:
    return json.dumps([request.inputs, [(source.text, source.records, source.stop) for source in request.sources]])


def _decode(outcome: OutcomeLike, request: Request) -> Reply | None:
    if outcome.error is not None or type(outcome.value) is not str:
        return None
    try:
        reply = json.loads(outcome.value)
        return tuple(
            None if runs is None else _decode_runs(runs, source.records, len(request.inputs))
            for runs, source in zip(reply, request.sources, strict=True)
        )
    except (ValueError, TypeError, RecursionError):
        return None


def _state(value: Any) -> Any:
    """The value if it is a state of the benchmark or None, else ODD: the driver is not to be trusted with types."""
    if type(value) is list and len(value) <= MAX_STATE and all(type(item) is int for item in value):
        return value
    return value if value is None or type(value) in (int, str) else ODD


def _decode_runs(runs: Any, records: int, inputs: int) -> tuple[Run, ...]:
    decoded = tuple(Run(tuple(map(_state, states)), bool(end), _state(end[0]) if end else None) for states, end in runs)
    if len(decoded) != inputs or any(len(run.states) != records for run in decoded):
        raise ValueError("a reply of the wrong shape")
    return decoded
