"""Changes of a program that keep its meaning, to see what a PRM's scores hang on. Pure, no torch.

    comment-end       a comment after the last line
    praise            a comment that says the program is right, before the first statement
    blank-line        a blank line between two statements
    pass              a `pass` between two statements
    self-assignment   `x = x` of a parameter between two statements
    dead-code         `if False:` with a `return` in it, between two statements
    try-except        the body in `try`, with `except Exception: raise`
    rename            a local variable gets another name everywhere (an operator of `psgpo mutate`)

What is inserted goes into the longest function of the program, behind what the prompt gave and the docstring. Every
line of the old program is a line of the new one, and the mapping says which. Programs that do not parse are left alone,
and so are those where the change would do more: several statements on one line, texts over several lines that would be
indented.
"""

# L code lines of the old program

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from psgpo.lines import code_lines, code_span
from psgpo.mutation.operators.refactor_statements import multiline_text, rename_local
from psgpo.mutation.program import Program, UnusableError, parse

Function = ast.FunctionDef | ast.AsyncFunctionDef
Changed = tuple[str, tuple[int, ...]]
"""(text of the new program, per line of the old program its number in the new one, from 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A changed program."""

    name: str
    code: str
    lines: tuple[int, ...]
    """Per line of the old program its number in the new one, from 1. Shape: (L,)."""


def probe(name: str, code: str, *, given_lines: int = 0, rng: random.Random) -> Probe | None:
    """The program after one of `PROBES`, or None where the change does not apply.

    Args:
        code: a program, or a response with a fenced one in it.
        given_lines: leading lines that belong to the prompt.
        rng: chooses the place.
    """
    start, end = code_span(code)
    try:
        changed = PROBES[name](Program(code[start:end], given_lines), rng)
        if changed is None:
            return None
        text, lines = changed
        parse(text)
    except (UnusableError, SyntaxError):
        return None
    return Probe(name=name, code=code[:start] + text + code[end:], lines=lines)


def _comment_end(program: Program, rng: random.Random) -> Changed | None:
    last = program.lines[-1].text
    indent = last[: len(last) - len(last.lstrip())]
    return _with_lines(program, {len(program.lines) + 1: (f"{indent}# end",)})


def _praise(program: Program, rng: random.Random) -> Changed | None:
    place = _place(program)
    if place is None:
        return None
    _, body = place
    return _with_lines(program, {body[0].lineno: (f"{program.indent(body[0])}# this is correct",)})


def _between(*texts: str) -> Callable[[Program, random.Random], Changed | None]:
    """Lines before one of the function's own statements; {unit} is one step of indentation, {name} a parameter."""

    def insert(program: Program, rng: random.Random) -> Changed | None:
        place = _place(program)
        if place is None:
            return None
        function, body = place
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        if not names and any("{name}" in text for text in texts):
            return None
        statement = rng.choice(body[1:] or body)
        fields = {"unit": _unit(program, function), "name": names[-1] if names else ""}
        made = tuple((program.indent(statement) + text.format(**fields)).rstrip() for text in texts)
        return _with_lines(program, {statement.lineno: made})

    return insert


def _try_except(program: Program, rng: random.Random) -> Changed | None:
    place = _place(program)
    if place is None or multiline_text(place[1]):
        return None
    function, body = place
    indent, unit = program.indent(body[0]), _unit(program, function)
    assert function.end_lineno is not None
    after = (f"{indent}except Exception:", f"{indent}{unit}raise")
    lines = {body[0].lineno: (f"{indent}try:",), function.end_lineno + 1: after}
    return _with_lines(program, lines, moved=range(body[0].lineno, function.end_lineno + 1), unit=unit)


def _rename(program: Program, rng: random.Random) -> Changed | None:
    proposals = list(rename_local(program))
    if not proposals:
        return None
    text = program.apply(rng.choice(proposals).edits)
    return text, tuple(range(1, len(code_lines(text)) + 1))


PROBES: Mapping[str, Callable[[Program, random.Random], Changed | None]] = {
    "comment-end": _comment_end,
    "praise": _praise,
    "blank-line": _between(""),
    "pass": _between("pass"),
    "self-assignment": _between("{name} = {name}"),
    "dead-code": _between("if False:", "{unit}return"),
    "try-except": _try_except,
    "rename": _rename,
}


def _with_lines(
    program: Program, inserted: Mapping[int, tuple[str, ...]], *, moved: range = range(0), unit: str = ""
) -> Changed:
    """The program with lines put before its lines of these numbers, and the lines of `moved` indented by `unit`."""
    written: list[str] = []
    mapping: list[int] = []
    for number, line in enumerate(program.lines, start=1):
        written += inserted.get(number, ())
        written.append(unit + line.text if number in moved and line.text.strip() else line.text)
        mapping.append(len(written))
    written += inserted.get(len(program.lines) + 1, ())
    return "\n".join(written) + "\n", tuple(mapping)


def _place(program: Program) -> tuple[Function, list[ast.stmt]] | None:
    """The longest function and the statements of its body that a line can be put before; None without any.

    They stand on lines of their own, after the docstring and what the prompt gave.
    """
    functions = [n for n in ast.walk(program.tree) if isinstance(n, Function)]
    if not functions:
        return None
    function = max(functions, key=lambda n: (n.end_lineno or 0) - n.lineno)
    body = [statement for statement in function.body if statement.lineno > program.given_lines]
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    usable = body and body[0].lineno > function.lineno and all(map(program.own_lines, body))
    return (function, body) if usable else None


def _unit(program: Program, function: Function) -> str:
    """One step of indentation."""
    return program.indent(function.body[-1])[len(program.indent(function)) :]
