"""Small changes of one statement or header: what a one-line mistake looks like from the other side."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Pow, ast.Add),
    ast.Div: (ast.FloorDiv,),
    ast.FloorDiv: (ast.Div, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
}


def changed(head: ast.stmt, texts: Sequence[str] = ()) -> Iterator[ast.stmt]:
    """Copies of a statement with one place of its own expressions changed; bodies of compound statements stay.

    Args:
        texts: string constants that may stand for each other.
    """
    places = [place for field in _own_fields(head) for place in _places(field, texts)]
    for path, node in places:
        copied = copy.deepcopy(head)
        _put(copied, path, node)
        yield copied


_Path = tuple[tuple[str, int | None], ...]


def _own_fields(head: ast.stmt) -> list[tuple[_Path, ast.AST]]:
    found: list[tuple[_Path, ast.AST]] = []
    for name, value in ast.iter_fields(head):
        if isinstance(value, ast.expr):
            found.append((((name, None),), value))
        elif isinstance(value, list) and value and isinstance(value[0], ast.expr) and name != "decorator_list":
            found += [(((name, index),), item) for index, item in enumerate(value)]
    if isinstance(head, ast.AugAssign):
        found.append(((), head))
    return found


def _places(found: tuple[_Path, ast.AST], texts: Sequence[str]) -> Iterator[tuple[_Path, ast.AST]]:
    path, node = found
    for variant in _variants(node, texts):
        if path or isinstance(node, ast.AugAssign):
            yield path, variant
    if not path:
        return
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST) and not isinstance(value, ast.expr_context | ast.operator | ast.cmpop):
            yield from _places(((*path, (name, None)), value), texts)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.expr | ast.comprehension):
                    yield from _places(((*path, (name, index)), item), texts)


def _variants(node: ast.AST, texts: Sequence[str]) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in _COMPARISONS.get(type(node.ops[0]), ()):
            yield ast.Compare(left=node.left, ops=[operator()], comparators=node.comparators)
    elif isinstance(node, ast.BinOp):
        for arithmetic in _ARITHMETIC.get(type(node.op), ()):
            yield ast.BinOp(left=node.left, op=arithmetic(), right=node.right)
        yield node.left
        yield node.right
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield ast.BoolOp(op=other, values=node.values)
        if len(node.values) == 2:
            yield from node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant):
        for value in _constants(node.value, texts):
            yield ast.Constant(value=value)
    elif isinstance(node, ast.AugAssign):
        for arithmetic in _ARITHMETIC.get(type(node.op), ()):
            yield ast.AugAssign(target=node.target, op=arithmetic(), value=node.value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "sorted" and not node.keywords:
            yield ast.Call(func=node.func, args=node.args, keywords=[ast.keyword("reverse", ast.Constant(value=True))])
        if len(node.args) == 2:
            yield ast.Call(func=node.func, args=node.args[::-1], keywords=node.keywords)


def _constants(value: object, texts: Sequence[str]) -> Sequence[str | int]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1] + ([-value] if abs(value) > 1 else [])
    if isinstance(value, str):
        found = [value.lower(), value.upper(), "" if value else " ", *texts]
        return [text for text in dict.fromkeys(found) if text != value]
    return []


def _put(root: ast.AST, path: _Path, node: ast.AST) -> None:
    if not path:
        assert isinstance(root, ast.AugAssign)
        assert isinstance(node, ast.AugAssign)
        root.op = node.op
        return
    for name, index in path[:-1]:
        value = getattr(root, name)
        root = value if index is None else value[index]
    name, index = path[-1]
    if index is None:
        setattr(root, name, copy.deepcopy(node))
    else:
        getattr(root, name)[index] = copy.deepcopy(node)
