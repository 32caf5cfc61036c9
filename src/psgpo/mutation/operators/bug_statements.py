"""Bugs of whole statements: dropped, exchanged, wrongly indented, wrongly begun, wrongly returned.

Where a statement is missing, the first line that is wrong is the one that came too early. So a statement is dropped,
and two are exchanged, only where that line needs what should have stood before it (`_needs`) or leaves the function:
else the prefix is still good.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from psgpo.mutation.operators.registry import Proposal, at, operator
from psgpo.mutation.program import Edit, Program, exchanged, reads, writes

_SIMPLE = (ast.Assign, ast.AugAssign, ast.Expr, ast.AnnAssign, ast.Delete)


@operator("dropped-statement", "dropped statement", "bug")
def dropped_statement(program: Program) -> Iterator[Proposal]:
    """A statement is forgotten: the line below takes its place."""
    for block in program.blocks():
        for position, statement in enumerate(block):
            if not isinstance(statement, _SIMPLE) or not _droppable(program, block, position):
                continue
            start, end = program.span(statement)
            yield at(statement.lineno, Edit(start=start, end=end, new=""))


@operator("dropped-guard", "dropped statement", "bug")
def dropped_guard(program: Program) -> Iterator[Proposal]:
    """`if n < 2: return 1` before a `return` is forgotten."""
    for block in program.blocks():
        for position, statement in enumerate(block[:-1]):
            if not isinstance(statement, ast.If) or statement.orelse or _is_elif(program, statement):
                continue
            leaves = isinstance(statement.body[-1], ast.Return | ast.Break | ast.Continue | ast.Raise)
            if leaves and program.own_lines(statement) and isinstance(block[position + 1], ast.Return):
                start, end = program.span(statement)
                yield at(statement.lineno, Edit(start=start, end=end, new=""))


@operator("dropped-else", "dropped statement", "bug")
def dropped_else(program: Program) -> Iterator[Proposal]:
    """`else:` and its block are forgotten, where a statement follows that needs what it sets."""
    for block in program.blocks():
        for statement, following in pairwise(block):
            if not isinstance(statement, ast.If) or not statement.orelse or not program.own_lines(statement):
                continue
            first = statement.orelse[0]
            header = program.text.rfind("else", program.end(statement.body[-1]), program.start(first))
            if _is_elif(program, first) or header < 0 or not program.own_lines(first):
                continue
            if any(_needs(following, inner) for inner in statement.orelse):
                line = program.text.count("\n", 0, header) + 1
                end = program.span(statement.orelse[-1])[1]
                yield at(first.lineno, Edit(start=program.line_start(line), end=end, new=""))


@operator("swapped-statements", "swapped statements", "bug")
def swapped_statements(program: Program) -> Iterator[Proposal]:
    """Two neighbours are exchanged, of which one needs the other."""
    for first, second in _neighbours(program):
        if _needs(second, first) or _needs(first, second):
            yield at(first.lineno, *exchange(program, first, second))


@operator("into-block", "indentation", "bug")
def into_block(program: Program) -> Iterator[Proposal]:
    """The statement after a loop or `if` slips into it."""
    for block in program.blocks():
        for statement, following in pairwise(block):
            if not isinstance(statement, ast.For | ast.While | ast.If) or statement.orelse:
                continue
            inner = statement.body[-1]
            alone = program.own_lines(inner) and program.own_lines(following) and program.own_lines(statement)
            if alone and following.lineno == following.end_lineno and not _leaves(inner):
                yield at(following.lineno, _indented(program, following, program.indent(inner)))


@operator("out-of-block", "indentation", "bug")
def out_of_block(program: Program) -> Iterator[Proposal]:
    """The last statement of a loop or `if` slips out of it."""
    for node in program.nodes:
        if not isinstance(node, ast.For | ast.While | ast.If) or node.orelse or len(node.body) < 2:
            continue
        last = node.body[-1]
        if isinstance(last, ast.Break | ast.Continue) or last.lineno != last.end_lineno or _is_elif(program, node):
            continue
        if program.own_lines(last) and program.own_lines(node):
            yield at(last.lineno, _indented(program, last, program.indent(node)))


@operator("wrong-jump", "control flow", "bug")
def wrong_jump(program: Program) -> Iterator[Proposal]:
    """`break` becomes `continue` and the other way round."""
    for node in program.nodes:
        if isinstance(node, ast.Break | ast.Continue):
            yield at(node.lineno, program.replace(node, "continue" if isinstance(node, ast.Break) else "break"))


@operator("if-for-elif", "control flow", "bug")
def if_for_elif(program: Program) -> Iterator[Proposal]:
    """`elif` becomes `if`."""
    for node in program.nodes:
        if isinstance(node, ast.If) and _is_elif(program, node):
            start = program.start(node)
            yield at(node.lineno, Edit(start=start, end=start + len("elif"), new="if"))


@operator("while-for-if", "control flow", "bug")
def while_for_if(program: Program) -> Iterator[Proposal]:
    """`while` becomes `if`: the loop runs once."""
    for node in program.nodes:
        if isinstance(node, ast.While) and not any(isinstance(n, ast.Break | ast.Continue) for n in ast.walk(node)):
            start = program.start(node)
            yield at(node.lineno, Edit(start=start, end=start + len("while"), new="if"))


@operator("initialisation", "initialisation", "bug")
def initialisation(program: Program) -> Iterator[Proposal]:
    """`total = 0` becomes `total = 1`, `best = []` becomes `best = [0]` ..."""
    for node in program.nodes:
        if not isinstance(node, ast.Assign):
            continue
        for new in _other_beginnings(program, node.value):
            yield at(node.value.lineno, program.replace(node.value, new))


def _other_beginnings(program: Program, value: ast.expr) -> list[str]:
    if isinstance(value, ast.Constant):
        constant = value.value
        if type(constant) is bool:
            return [str(not constant)]
        if type(constant) is int:
            return {0: ["1", "-1"], 1: ["0", "2"]}.get(constant, [str(constant + 1), str(constant - 1), "0"])
        if type(constant) is float:
            return ["1.0" if constant == 0 else "0.0"]
        if type(constant) is str:
            return ["' '"] if constant == "" else ["''"]
        return ["0"] if constant is None else []
    if isinstance(value, ast.List) and not value.elts:
        return ["[0]"]
    if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant) and value.slice.value == 0:
        return ["0"]  # the largest so far begins at 0 instead of the first item
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub):
        return [program.operand(value.operand)]
    return []


@operator("returned-value", "return value", "bug")
def returned_value(program: Program) -> Iterator[Proposal]:
    """Another value is returned: another variable, the other truth value, one more, the items of a tuple exchanged."""
    for node in program.nodes:
        if isinstance(node, ast.Return) and node.value is not None:
            for new in _other_returns(program, node.value):
                yield at(node.value.lineno, program.replace(node.value, new))


def _other_returns(program: Program, value: ast.expr) -> list[str]:
    text = program.source(value)
    if isinstance(value, ast.Constant):
        constant = value.value
        if type(constant) is bool:
            return [str(not constant)]
        if type(constant) is int:
            return [str(constant + 1), str(constant - 1)]
        return ["None"] if constant is not None else ["0"]
    if isinstance(value, ast.Tuple) and len(value.elts) == 2:
        first, second = map(program.source, value.elts)
        return [text.replace(first, "\0", 1).replace(second, first, 1).replace("\0", second, 1)]
    if isinstance(value, ast.Compare | ast.BoolOp):
        return [f"not ({text})"]
    if isinstance(value, ast.BinOp | ast.UnaryOp):
        return [f"{program.operand(value)} + 1", f"-{program.operand(value)}"]
    if isinstance(value, ast.Name):
        return [f"not {text}", f"{text} + 1"]
    return []


@operator("forgotten-return", "return value", "bug")
def forgotten_return(program: Program) -> Iterator[Proposal]:
    """`return x` becomes `x`; not of a text, which would stand there as a comment does."""
    for node in program.nodes:
        if isinstance(node, ast.Return) and node.value is not None:
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str | bytes):
                continue
            start = program.start(node)
            end = start + len("return")
            end += program.text[end : end + 1] == " "
            yield at(node.lineno, Edit(start=start, end=end, new=""))


# --- helpers, also of the refactorings


def exchange(program: Program, first: ast.stmt, second: ast.stmt) -> tuple[Edit, ...]:
    """Exchange the lines of two neighbours; what stands between them stays."""
    (start, middle), (begin, end) = program.span(first), program.span(second)
    a, b = exchanged(program.text[start:middle], program.text[begin:end])
    return Edit(start=start, end=middle, new=b), Edit(start=begin, end=end, new=a)


def neighbours(program: Program) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    """Simple statements that follow one another, each on lines of its own."""
    yield from _neighbours(program)


def _neighbours(program: Program) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    for block in program.blocks():
        for first, second in pairwise(block):
            simple = isinstance(first, _SIMPLE) and isinstance(second, _SIMPLE)
            if simple and program.own_lines(first) and program.own_lines(second) and not _is_docstring(first):
                yield first, second


def _needs(later: ast.stmt, earlier: ast.stmt) -> bool:
    """Whether a statement reads (or overwrites) what another one writes."""
    header = _header(later)
    return any(writes(earlier) & (reads(node) | _bound(later)) for node in header)


def _bound(statement: ast.stmt) -> set[str]:
    return writes(statement) if isinstance(statement, ast.AugAssign) else set()


def _header(statement: ast.stmt) -> list[ast.AST]:
    """What is evaluated on the first line of a statement: a loop's iterable, a condition, or all of it."""
    if isinstance(statement, ast.For):
        return [statement.iter]
    if isinstance(statement, ast.If | ast.While):
        return [statement.test]
    return [statement]


def _droppable(program: Program, block: list[ast.stmt], position: int) -> bool:
    statement = block[position]
    if len(block) == 1 or not program.own_lines(statement) or _is_docstring(statement):
        return False
    if position + 1 < len(block):
        return _needs(block[position + 1], statement)
    # The last statement of a block: the next line is outside, hence too late. There must be one.
    parent = program.parents[statement]
    end = statement.end_lineno or statement.lineno
    is_last_line = not any(line.text.strip() and not line.neutral for line in program.lines[end:])
    return isinstance(parent, ast.For | ast.While | ast.If) and not is_last_line


def _is_elif(program: Program, statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and program.text.startswith("elif", program.start(statement))


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _leaves(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Return | ast.Break | ast.Continue | ast.Raise)


def _indented(program: Program, statement: ast.stmt, indent: str) -> Edit:
    start = program.line_start(statement.lineno)
    return Edit(start=start, end=program.start(statement), new=indent)
