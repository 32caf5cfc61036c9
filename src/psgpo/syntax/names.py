"""Which names a statement reads, binds and changes; renaming. Approximate where Python is dynamic."""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Iterable, Mapping

BUILTINS = frozenset(dir(builtins))
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def reads(node: ast.AST | None) -> set[str]:
    """Names whose value the node needs from outside it, in any order of evaluation; builtins included."""
    if node is None:
        return set()
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, _FUNCTIONS):
        return _reads_of_function(node)
    if isinstance(node, _COMPREHENSIONS):
        bound = {name for part in node.generators for name in binds(part.target)}
        return _children(node) - bound
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return {node.target.id} | reads(node.value)
    return _children(node)


def _children(node: ast.AST) -> set[str]:
    found: set[str] = set()
    for child in ast.iter_child_nodes(node):
        found |= reads(child)
    return found


def _reads_of_function(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    arguments = node.args
    outside: set[str] = set()
    for default in [*arguments.defaults, *arguments.kw_defaults]:
        outside |= reads(default)
    inside: set[str] = set()
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    local = parameters(node)
    for statement in body:
        inside |= reads(statement)
        local |= binds(statement)
    return outside | (inside - local)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """Names of a function's parameters."""
    arguments = node.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in listed if argument is not None}


def binds(node: ast.AST | None) -> set[str]:
    """Names the node binds in the scope it stands in."""
    if node is None:
        return set()
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Lambda):
        return set()
    if isinstance(node, ast.alias):
        return {(node.asname or node.name).split(".")[0]}
    found: set[str] = set()
    if isinstance(node, ast.ExceptHandler) and node.name:
        found.add(node.name)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.comprehension):
            found |= binds(child)
    return found


def base_name(node: ast.AST) -> str | None:
    """`a` of `a.b[c].d`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def needs(statements: Iterable[ast.stmt]) -> set[str]:
    """Names that statements read before they have surely bound them, run one after the other.

    A name bound in one branch only, or in a loop's body, is not surely bound after it.
    """
    bound: set[str] = set()
    wanted: set[str] = set()
    for statement in statements:
        wanted |= _needs(statement) - bound
        bound |= surely_binds(statement)
    return wanted


def _needs(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.For | ast.AsyncFor):
        target = binds(node.target)
        return reads(node.iter) | (needs(node.body) - target) | needs(node.orelse) | (reads(node.target) - target)
    if isinstance(node, ast.While | ast.If):
        return reads(node.test) | needs(node.body) | needs(node.orelse)
    if isinstance(node, ast.With | ast.AsyncWith):
        items = {name for item in node.items for name in reads(item)}
        targets = {name for item in node.items for name in binds(item)}
        return items | (needs(node.body) - targets)
    if isinstance(node, ast.Try):
        inside = needs([*node.body, *node.orelse])
        for handler in node.handlers:
            inside |= reads(handler.type) | (needs(handler.body) - {handler.name or ""})
        return inside | needs(node.finalbody)
    return reads(node)


def surely_binds(node: ast.stmt) -> set[str]:
    """Names that are bound once the statement has run to its end."""
    if isinstance(node, ast.If):
        branches = [block for block in (node.body, node.orelse) if not ends(block)]
        if len(branches) < 2 and node.orelse:
            return _bound(branches[0]) if branches else set()
        return _bound(node.body) & _bound(node.orelse) if not ends(node.body) else _bound(node.orelse)
    if isinstance(node, ast.For | ast.AsyncFor | ast.While):
        return set()
    if isinstance(node, ast.Try):
        return _bound(node.body) if not node.handlers else _bound(node.finalbody)
    if isinstance(node, ast.With | ast.AsyncWith):
        return _bound(node.body) | {name for item in node.items for name in binds(item)}
    return binds(node)


def _bound(block: Iterable[ast.stmt]) -> set[str]:
    found: set[str] = set()
    for statement in block:
        found |= surely_binds(statement)
    return found


def ends(block: list[ast.stmt]) -> bool:
    """Whether nothing after the block's last statement can run."""
    if not block:
        return False
    last = block[-1]
    if isinstance(last, ast.If):
        return ends(last.body) and ends(last.orelse)
    return isinstance(last, ast.Return | ast.Raise | ast.Break | ast.Continue)


class _Renamer(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self.names.get(node.arg, node.arg)
        self.generic_visit(node)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        node.name = None if node.name is None else self.names.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = self.names.get(node.name, node.name)
        self.generic_visit(node)
        return node


def renamed(statements: Iterable[ast.stmt], names: Mapping[str, str]) -> list[ast.stmt]:
    """Copies with names replaced everywhere; all at once, so two names may be swapped."""
    if not any(old != new for old, new in names.items()):
        return list(statements)
    renamer = _Renamer(names)
    return [renamer.visit(copy.deepcopy(statement)) for statement in statements]
