"""Reading trusted Python of a benchmark: what a prompt brings along, test scripts as single checks. Runs nothing."""

from __future__ import annotations

import ast
import builtins
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Import = (ast.Import, ast.ImportFrom)


def parse(code: str) -> ast.Module:
    """The syntax tree, without the warnings that Python has about old benchmark code (`"\\d"`).

    Raises:
        SyntaxError: it is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stub:
    """The code of a prompt that ends in an unfinished function."""

    preamble: str
    """Its imports (those inside the unfinished function too) and helpers, everything but that function."""
    helpers: frozenset[str]
    """Names of the helpers that are functions or classes."""


def read_stub(prompt: str, entry_point: str) -> Stub:
    """Take a prompt of code apart.

    Raises:
        SyntaxError: it is not Python, even with a body for its last function.
    """
    try:
        body = parse(prompt).body
    except SyntaxError:
        body = parse(prompt + "\n    pass\n").body
    preamble: list[str] = []
    helpers: set[str] = set()
    for statement in body:
        if isinstance(statement, _Definition):
            if statement.name == entry_point:
                preamble += [ast.unparse(inner) for inner in statement.body if isinstance(inner, _Import)]
                continue
            helpers.add(statement.name)
        if not _is_text(statement):
            preamble.append(ast.get_source_segment(prompt, statement) or ast.unparse(statement))
    return Stub(preamble="".join(f"{part}\n" for part in preamble), helpers=frozenset(helpers))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def split_checks(statements: Sequence[ast.stmt]) -> list[str]:
    """One check per statement that asserts something; others join the check that follows them.

    Statements that nothing follows are left out, as are asserts of a constant such as `assert True`, which hold for
    every program.
    """
    checks: list[str] = []
    pending: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Constant) and statement.test.value:
            continue
        pending.append(ast.unparse(statement))
        if any(isinstance(node, ast.Assert) for node in ast.walk(statement)):
            checks.append("\n".join(pending))
            pending = []
    return checks


def names_used(code: Iterable[str]) -> set[str]:
    """Every name that the code reads or writes."""
    return {node.id for part in code for node in ast.walk(parse(part)) if isinstance(node, ast.Name)}


def top_level_names(code: str) -> set[str]:
    """Names that the code defines or assigns at its top level."""
    names: set[str] = set()
    for statement in parse(code).body:
        if isinstance(statement, _Definition):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {
                node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
            }
    return names


def classes(code: str) -> set[str]:
    """Names of the classes that the code defines at its top level."""
    return {statement.name for statement in parse(code).body if isinstance(statement, ast.ClassDef)}


def imports_for(code: Sequence[str]) -> str:
    """Imports of the standard modules that the code uses by name without binding it."""
    bound = {
        node.id
        for part in code
        for node in ast.walk(parse(part))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    modules = (names_used(code) - bound - set(dir(builtins))) & sys.stdlib_module_names
    return "".join(f"import {name}\n" for name in sorted(modules))
