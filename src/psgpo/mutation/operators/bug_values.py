"""Bugs in a value: bounds, indices and lengths off by one, and wrong constants."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from psgpo.mutation.operators.registry import Proposal, at, operator
from psgpo.mutation.program import Program

_BINDS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
"""Operators that bind as tightly as the `- 1` behind them, or tighter."""


@operator("range-bound", "off-by-one", "bug")
def range_bound(program: Program) -> Iterator[Proposal]:
    """`range(n)` becomes `range(n - 1)`, `range(n + 1)` or `range(1, n)`; bounds of `range(a, b)` move by one."""
    for node in program.expressions(ast.Call):
        assert isinstance(node, ast.Call)
        if not (isinstance(node.func, ast.Name) and node.func.id == "range") or node.keywords:
            continue
        arguments = node.args[:2]
        for argument in arguments:
            if not isinstance(argument, ast.Starred):
                yield from _moved(program, argument)
        if len(node.args) == 1:
            yield at(node.lineno, program.replace(node.args[0], f"1, {program.source(node.args[0])}"))


@operator("slice-bound", "off-by-one", "bug")
def slice_bound(program: Program) -> Iterator[Proposal]:
    """`a[i:j]` becomes `a[i + 1:j]`, `a[i:j - 1]` ..."""
    for node in program.expressions(ast.Subscript):
        assert isinstance(node, ast.Subscript)
        if isinstance(node.slice, ast.Slice):
            for bound in (node.slice.lower, node.slice.upper):
                if bound is not None:
                    yield from _moved(program, bound)


@operator("index", "off-by-one", "bug")
def index(program: Program) -> Iterator[Proposal]:
    """`a[i]` becomes `a[i - 1]` or `a[i + 1]`."""
    for node in program.nodes:
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple):
            if isinstance(node.slice, ast.Constant) and not isinstance(node.slice.value, int):
                continue
            yield from _moved(program, node.slice)


@operator("length", "off-by-one", "bug")
def length(program: Program) -> Iterator[Proposal]:
    """`len(a)` becomes `len(a) - 1`."""
    for node in program.expressions(ast.Call):
        assert isinstance(node, ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "len":
            yield at(node.lineno, program.replace(node, f"({program.source(node)} - 1)"))


@operator("compared-value", "off-by-one", "bug")
def compared_value(program: Program) -> Iterator[Proposal]:
    """`a < b` becomes `a < b - 1` or `a < b + 1`."""
    for node in program.expressions(ast.Compare):
        assert isinstance(node, ast.Compare)
        if isinstance(node.ops[-1], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            yield from _moved(program, node.comparators[-1])


@operator("number", "constant", "bug")
def number(program: Program) -> Iterator[Proposal]:
    """A number becomes one more or one less; a float is doubled or halved."""
    for node in program.expressions(ast.Constant):
        assert isinstance(node, ast.Constant)
        if _is_first_value(program, node) or _has_own_operator(program, node):
            continue
        if type(node.value) is int:
            values: tuple[object, ...] = (node.value + 1, node.value - 1) if abs(node.value) < 10**6 else (1,)
        elif type(node.value) is float:
            values = (node.value * 2, node.value / 2)
        else:
            continue
        for value in values:
            text = f"({value})" if str(value).startswith("-") else str(value)
            yield at(node.lineno, program.replace(node, text))


@operator("truth-value", "constant", "bug")
def truth_value(program: Program) -> Iterator[Proposal]:
    """`True` becomes `False` and the other way round."""
    for node in program.expressions(ast.Constant):
        assert isinstance(node, ast.Constant)
        returned = isinstance(program.parents[node], ast.Return)
        if type(node.value) is bool and not returned and not _is_first_value(program, node):
            yield at(node.lineno, program.replace(node, str(not node.value)))


@operator("text", "constant", "bug")
def text(program: Program) -> Iterator[Proposal]:
    """A string literal loses its last character, or gets a space where it is empty; its case may change."""
    for node in program.expressions(ast.Constant):
        assert isinstance(node, ast.Constant)
        value = node.value
        if type(value) is not str or "\n" in program.source(node) or _is_first_value(program, node):
            continue
        changed = [value[:-1] if value else " "]
        changed += [value.swapcase()] if value.swapcase() != value and "\\" not in value and "%" not in value else []
        for new in changed:
            yield at(node.lineno, program.replace(node, repr(new)))


@operator("swapped-indices", "off-by-one", "bug")
def swapped_indices(program: Program) -> Iterator[Proposal]:
    """`a[i][j]` becomes `a[j][i]`."""
    for node in program.expressions(ast.Subscript):
        assert isinstance(node, ast.Subscript)
        outer, inner = node, node.value
        if isinstance(inner, ast.Subscript):
            first, second = program.source(inner.slice), program.source(outer.slice)
            if first != second:
                yield at(node.lineno, program.replace(inner.slice, second), program.replace(outer.slice, first))


def _moved(program: Program, node: ast.expr) -> Iterator[Proposal]:
    """The value of an expression one lower and one higher."""
    if (value := _whole(node)) is not None:
        for moved in (value + 1, value - 1):
            yield at(node.lineno, program.replace(node, str(moved)))
        return
    step = node.right if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) else None
    if isinstance(node, ast.BinOp) and isinstance(step, ast.Constant) and step.value == 1:
        left = node.left
        text = program.source(left) if isinstance(left, ast.BinOp) else program.operand(left)
        yield at(node.lineno, program.replace(node, text))  # `n - 1` is often forgotten
        return
    if isinstance(node, ast.Constant | ast.JoinedStr):
        return
    binds = isinstance(node, ast.UnaryOp) or (isinstance(node, ast.BinOp) and isinstance(node.op, _BINDS))
    text = program.source(node) if binds else program.operand(node)
    for sign in "-+":
        yield at(node.lineno, program.replace(node, f"{text} {sign} 1"))


def _whole(node: ast.expr) -> int | None:
    """The value of a whole number that is written out, its sign included."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _whole(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _is_first_value(program: Program, node: ast.expr) -> bool:
    """The whole right side of `name = constant`: operator `initialisation` has these."""
    parent = program.parents[node]
    return isinstance(parent, ast.Assign) and parent.value is node


def _has_own_operator(program: Program, node: ast.expr) -> bool:
    """Bounds, indices and returned values, which have operators of their own."""
    parent = program.parents[node]
    if isinstance(parent, ast.Return | ast.Slice | ast.Subscript):
        return True
    return isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "range"
