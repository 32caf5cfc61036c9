"""Which calls a test script will make, known before it runs.

Most checks of HumanEval and MBPP are `assert f(literals) == literal`. When every check calls the program exactly once,
with literals, all calls can be sent at once and answered while nobody waits, instead of one by one.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

_MAY_SKIP_OR_REPEAT = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If, ast.IfExp, ast.Try,
    ast.With, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Match,
)  # fmt: skip
"""Inside of these a call may happen never or more than once."""


def known_calls(setup: str, checks: list[str], entry_point: str) -> list[list[object]] | None:
    """The arguments of the program's only call in each check; None when they cannot be known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = _aliases(ast.parse(setup), entry_point)
        if names is None:
            return None
        calls = [_only_call(ast.parse(check), names) for check in checks]
    known = [call for call in calls if call is not None]
    return known if len(known) == len(calls) else None


def _aliases(setup: ast.Module, entry_point: str) -> set[str] | None:
    """Names that mean the entry point: its own and those of `name = entry_point`; None when setup does more with it."""
    names = {entry_point}
    for statement in setup.body:
        if (
            isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Name)
            and statement.value.id in names
            and all(isinstance(target, ast.Name) for target in statement.targets)
        ):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif _mentions(statement, names):
            return None
    return names


def _mentions(node: ast.AST, names: set[str]) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner.id in names:
            return True
        if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and inner.name in names:
            return True
        if isinstance(inner, ast.alias) and (inner.asname or inner.name) in names:
            return True
    return False


def _only_call(check: ast.Module, names: set[str]) -> list[object] | None:
    mentions = sum(isinstance(node, ast.Name) and node.id in names for node in ast.walk(check))
    calls = [node for node in _always_run(check) if isinstance(node, ast.Call) and _is_one_of(node.func, names)]
    if mentions != 1 or len(calls) != 1 or calls[0].keywords:
        return None
    try:
        return [ast.literal_eval(argument) for argument in calls[0].args]
    except (ValueError, TypeError):  # no literal, a starred one included
        return None


def _is_one_of(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _always_run(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below that are evaluated exactly once, as far as their place can tell."""
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, _MAY_SKIP_OR_REPEAT):
            yield inner
            yield from _always_run(inner)
