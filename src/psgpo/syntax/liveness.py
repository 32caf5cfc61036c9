"""Which statements of a program take part in its result: strong liveness, backwards over the syntax tree.

An assignment is *used* when what it binds is needed later by something that is used; returns, raises and jumps of used
loops are. Starting from what the tests call, this finds code whose result is thrown away: a program that computes
something, forgets it and starts over has unused statements.

Names stand for objects; two names that may share one object (`a = b`, `a.append(b)`) are used together where one of
them is changed in place. Where Python is more dynamic than that, statements count as used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psgpo.syntax.names import base_name, binds, parameters, reads

_PLAIN = (None, True, False, 0, 1, -1, "", 0.0, 1.0)
_EMPTY_CALLS = frozenset({"list", "dict", "set", "tuple", "str", "int", "float", "deque", "defaultdict", "Counter"})


def idle(statement: ast.stmt) -> bool:
    """Statements that say nothing by being unused: docstrings, `pass`, imports, first values (`r = []`), `print`."""
    if isinstance(statement, ast.Pass | ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal | ast.Delete):
        return True
    if isinstance(statement, ast.Expr):
        call = statement.value
        return isinstance(call, ast.Constant) or (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"
        )
    return is_first_value(statement)


def is_first_value(statement: ast.stmt) -> bool:
    """Whether the statement gives variables a plain value to start from: 0, an empty list, infinity."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return statement.value is None or _is_first_value(statement.value)
    return False


def _is_first_value(value: ast.expr) -> bool:
    if isinstance(value, ast.UnaryOp):
        return _is_first_value(value.operand)
    if isinstance(value, ast.Constant):
        return value.value in _PLAIN
    if isinstance(value, ast.List | ast.Set | ast.Tuple):
        return all(_is_first_value(item) for item in value.elts)
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in _EMPTY_CALLS:
        return all(isinstance(argument, ast.Constant | ast.Name) for argument in value.args)
    return False


@dataclass(slots=True)
class _Loop:
    after: set[str]
    again: set[str]


class Liveness:
    """The used statements of one program.

    Args:
        tree: the program.
        roots: module-level names that the tests use; None for a program run for its output.
    """

    def __init__(self, tree: ast.Module, roots: Iterable[str] | None) -> None:
        self._script = roots is None
        self._shared = _shared_objects(tree)
        self.used: set[ast.stmt] = set()
        self._block(tree.body, set(roots or ()), None)

    def unused(self, statements: Iterable[ast.stmt]) -> list[ast.stmt]:
        """Those of the statements that are neither used nor idle."""
        return [statement for statement in statements if statement not in self.used and not idle(statement)]

    def _block(self, block: Sequence[ast.stmt], live: set[str], loop: _Loop | None) -> set[str]:
        for statement in reversed(block):
            live = self._statement(statement, live, loop)
        return live

    def _statement(self, node: ast.stmt, live: set[str], loop: _Loop | None) -> set[str]:
        match node:
            case ast.Return() | ast.Raise():
                self.used.add(node)
                return reads(node)
            case ast.Break():
                self.used.add(node)
                return set(loop.after) if loop else live
            case ast.Continue():
                self.used.add(node)
                return set(loop.again) if loop else live
            case ast.Assert():
                self.used.add(node)
                return live | reads(node)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                return self._assignment(node, live)
            case ast.Expr():
                return self._expression(node, live)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._function(node, live)
            case ast.ClassDef():
                if node.name not in live and not self._script:
                    return live
                self.used.update(inner for inner in ast.walk(node) if isinstance(inner, ast.stmt))
                return (live - {node.name}) | reads(node)
            case ast.If():
                return self._if(node, live, loop)
            case ast.For() | ast.AsyncFor() | ast.While():
                return self._loop(node, live)
            case ast.With() | ast.AsyncWith():
                inner = self._block(node.body, live, loop)
                self._use_if_any(node, node.body)
                return inner | {name for item in node.items for name in reads(item)}
            case ast.Try():
                return self._try(node, live, loop)
            case ast.Import() | ast.ImportFrom():
                return live - binds(node)
            case _:
                if not idle(node):
                    self.used.update(inner for inner in ast.walk(node) if isinstance(inner, ast.stmt))
                return live | reads(node)

    def _assignment(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, live: set[str]) -> set[str]:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        bound = {name for target in targets for name in binds(target)}
        changed = {name for target in targets for name in _changed(target)}
        if not (bound & live or self._alive(changed, live) or _has_yield(node)):
            return live
        self.used.add(node)
        kept = live if isinstance(node, ast.AugAssign) else live - bound
        return kept | reads(node)

    def _expression(self, node: ast.Expr, live: set[str]) -> set[str]:
        if isinstance(node.value, ast.Constant):
            return live
        touched: set[str] = set()
        for call in ast.walk(node.value):
            if isinstance(call, ast.Call):
                name = base_name(call.func)
                touched |= {name} if name and isinstance(call.func, ast.Attribute) else set()
                touched |= {name for argument in call.args if (name := base_name(argument))}
        if self._alive(touched, live) or _has_yield(node) or self._script:
            self.used.add(node)
            return live | reads(node)
        return live

    def _alive(self, changed: set[str], live: set[str]) -> bool:
        return any(self._shared.get(name, {name}) & live for name in changed)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, live: set[str]) -> set[str]:
        if node.name not in live and not node.decorator_list:
            return live
        self.used.add(node)
        # What a function changes in its arguments or in names outside it may be seen by its caller.
        outside = parameters(node) & _changed_anywhere(node)
        free = reads(node)
        self._block(node.body, outside | (free & _changed_anywhere(node)), None)
        return (live - {node.name}) | free

    def _if(self, node: ast.If, live: set[str], loop: _Loop | None) -> set[str]:
        body = self._block(node.body, live, loop)
        other = self._block(node.orelse, live, loop)
        if not self._use_if_any(node, [*node.body, *node.orelse]):
            return live
        return body | other | reads(node.test)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, live: set[str]) -> set[str]:
        own = reads(node.test) if isinstance(node, ast.While) else set()
        target = set() if isinstance(node, ast.While) else binds(node.target)
        after = self._block(node.orelse, live, None) | live
        again = after | own
        while True:
            inner = self._block(node.body, again, _Loop(after=live, again=again))
            grown = again | (inner - target)
            if grown == again:
                break
            again = grown
        if not (_works(node.body, self.used) or target & live or _works(node.orelse, self.used)):
            self.used.difference_update(inner for inner in ast.walk(node) if isinstance(inner, ast.stmt))
            return live
        self.used.add(node)
        return again | (set() if isinstance(node, ast.While) else reads(node.iter))

    def _try(self, node: ast.Try, live: set[str], loop: _Loop | None) -> set[str]:
        after = self._block(node.finalbody, live, loop)
        handled = set(after)
        for handler in node.handlers:
            handled |= self._block(handler.body, after, loop) | reads(handler.type)
        other = self._block(node.orelse, after, loop)
        inside = self._block(node.body, other | handled, loop)
        parts = [*node.body, *node.orelse, *node.finalbody, *(s for h in node.handlers for s in h.body)]
        self._use_if_any(node, parts)
        return inside | handled | other

    def _use_if_any(self, node: ast.stmt, inside: Iterable[ast.stmt]) -> bool:
        if any(statement in self.used for statement in inside):
            self.used.add(node)
            return True
        return False


def _works(block: Iterable[ast.stmt], used: set[ast.stmt]) -> bool:
    """Whether a used statement other than a jump of the loop itself stands in its body."""
    for statement in block:
        if statement not in used or isinstance(statement, ast.Break | ast.Continue):
            continue
        if not isinstance(statement, ast.If) or _works([*statement.body, *statement.orelse], used):
            return True
    return False


def _changed(target: ast.AST) -> set[str]:
    """Names whose object an assignment to `target` changes in place."""
    if isinstance(target, ast.Tuple | ast.List):
        return {name for item in target.elts for name in _changed(item)}
    if isinstance(target, ast.Attribute | ast.Subscript):
        name = base_name(target)
        return {name} if name else set()
    return set()


def _changed_anywhere(node: ast.AST) -> set[str]:
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute | ast.Subscript) and (name := base_name(inner)):
            found.add(name)
        elif isinstance(inner, ast.Nonlocal | ast.Global):
            found |= set(inner.names)
    return found


def _has_yield(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.Yield | ast.YieldFrom | ast.Await) for inner in ast.walk(node))


def _shared_objects(tree: ast.AST) -> dict[str, set[str]]:
    """Per name, the names that may share an object with it, itself included."""
    groups: dict[str, set[str]] = {}

    def join(left: str, right: str) -> None:
        merged = groups.get(left, {left}) | groups.get(right, {right})
        for name in merged:
            groups[name] = merged

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for left, right in _pairs(target, node.value):
                    join(left, right)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            left_name = base_name(node.func)
            for argument in node.args:
                if left_name and isinstance(argument, ast.Name):
                    join(left_name, argument.id)
        elif isinstance(node, ast.For) and (name := base_name(node.iter)):
            for target_name in binds(node.target):
                join(target_name, name)
    return groups


def _pairs(target: ast.AST, value: ast.AST) -> Iterable[tuple[str, str]]:
    """(name, name) pairs that an assignment may make share an object; results of calls and arithmetic are new."""
    if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        for left, right in zip(target.elts, value.elts, strict=False):
            yield from _pairs(left, right)
        return
    left_name, right_name = base_name(target), base_name(value)
    if left_name and right_name:
        yield left_name, right_name
