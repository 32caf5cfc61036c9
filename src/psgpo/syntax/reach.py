"""A prefix made a program whose open ends are marked: a test that never reaches a mark is decided by the prefix alone.

Every place where the prefix can be continued raises `MemoryError`, which the sandbox reports as a status of its own. A
test that fails in any other way was decided before any continuation could act; no continuation that leaves the
prefix's definitions alone can mend it. That is a proof that the prefix cannot be completed, as a passing splice is a
proof that it can.

Functions that the prefix calls and does not define may be defined later, so calling them is an open end too. Where a
proof could be wrong there is none: a `try` may swallow the mark, an undefined name may stand for more than a function.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable

from psgpo.records import Status, Verdict
from psgpo.syntax.names import BUILTINS, binds
from psgpo.syntax.tree import Prefix

MARK = "raise MemoryError"


def open_ended(prefix: Prefix, *, roots: Iterable[str], known: Iterable[str] = ()) -> str | None:
    """The prefix with its open ends marked; None where no proof can come of it.

    Args:
        roots: names that the tests use; those that the prefix does not define may be defined later.
        known: names that the program may use without defining them.
    """
    nodes = list(ast.walk(prefix.tree))
    if any(isinstance(node, ast.Try | ast.ClassDef | ast.Yield | ast.YieldFrom | ast.With) for node in nodes):
        return None
    wanted = _wanted(prefix)
    defined = {name for node in prefix.tree.body for name in binds(node)} | BUILTINS | set(known)
    undefined = wanted - defined
    if len(prefix.position) == 1 and not any(isinstance(node, ast.FunctionDef) for node in nodes):
        return None
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    if any(isinstance(node, ast.Name) and node.id in undefined and id(node) not in called for node in nodes):
        return None
    marks = "".join(f"{indent}{MARK}\n" for indent in prefix.indents[:0:-1])
    stubs = "".join(f"def {name}(*_, **__):\n    {MARK}\n" for name in sorted((undefined | set(roots)) - defined))
    return prefix.text + marks + stubs


def decided(verdict: Verdict) -> bool:
    """Whether the verdict on an `open_ended` program shows a failed test that reached no mark."""
    return any(outcome not in (Status.PASSED, Status.MEMORY) for outcome in verdict.outcomes)


def _wanted(prefix: Prefix) -> set[str]:
    """Names read anywhere as globals."""
    wanted: set[str] = set()

    def visit(table: symtable.SymbolTable) -> None:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
                wanted.add(symbol.get_name())
        for child in table.get_children():
            visit(child)

    visit(symtable.symtable(ast.unparse(prefix.tree), "<prefix>", "exec"))
    return wanted
