"""Bugs inside an expression: a wrong operator, comparison, condition, variable, call or argument."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from psgpo.mutation.operators.registry import Proposal, at, operator
from psgpo.mutation.program import Edit, Program

_ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "**")),
    ast.Div: ("/", ("//", "*")),
    ast.FloorDiv: ("//", ("/", "%")),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
    ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)),
    ast.BitXor: ("^", ("|",)),
    ast.LShift: ("<<", (">>",)),
    ast.RShift: (">>", ("<<",)),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=", "<=")),
    ast.NotEq: ("!=", ("==",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
}
_CALLS: dict[str, tuple[str, ...]] = {
    "max": ("min",),
    "min": ("max",),
    "any": ("all",),
    "all": ("any",),
    "sum": ("max", "len"),
    "len": ("max",),
    "sorted": ("list",),
    "list": ("set",),
    "set": ("list",),
    "abs": ("int",),
    "int": ("float", "round"),
    "float": ("int",),
    "round": ("int",),
    "str": ("repr",),
    "ord": ("int",),
    "map": ("filter",),
    "filter": ("map",),
    "append": ("extend", "insert"),
    "extend": ("append",),
    "add": ("discard",),
    "update": ("add",),
    "upper": ("lower", "title"),
    "lower": ("upper",),
    "strip": ("lstrip", "rstrip"),
    "lstrip": ("rstrip",),
    "rstrip": ("lstrip",),
    "startswith": ("endswith",),
    "endswith": ("startswith",),
    "find": ("rfind",),
    "index": ("count",),
    "count": ("index",),
    "isdigit": ("isalpha",),
    "isalpha": ("isdigit",),
    "isupper": ("islower",),
    "islower": ("isupper",),
    "keys": ("values",),
    "values": ("keys",),
    "items": ("keys",),
    "floor": ("ceil",),
    "ceil": ("floor",),
    "sqrt": ("exp",),
    "sin": ("cos",),
    "cos": ("sin",),
    "union": ("intersection",),
    "intersection": ("union",),
    "difference": ("union",),
    "search": ("match",),
    "match": ("search",),
    "findall": ("split",),
    "combinations": ("permutations",),
    "permutations": ("combinations",),
    "heappush": ("heappop",),
    "nlargest": ("nsmallest",),
    "nsmallest": ("nlargest",),
}
_MAX_OTHER_NAMES = 3


def operator_edit(program: Program, left: ast.expr, right: ast.expr, old: str, new: str) -> Edit | None:
    """Replace the operator between two operands; None where comments or newlines hide it."""
    start, end = program.end(left), program.start(right)
    between = program.text[start:end]
    # What closes parentheses around the left operand stands before the operator, what opens them behind it.
    if "#" in between or between.count(old) != 1:
        return None
    position = start + between.index(old)
    return Edit(start=position, end=position + len(old), new=new)


@operator("arithmetic-operator", "operator", "bug")
def arithmetic_operator(program: Program) -> Iterator[Proposal]:
    """`a + b` becomes `a - b`."""
    for node in program.expressions(ast.BinOp):
        assert isinstance(node, ast.BinOp)
        if _is_text(node.left) or type(node.op) not in _ARITHMETIC:
            continue  # formatting and joining text: another operator only raises
        old, replacements = _ARITHMETIC[type(node.op)]
        for new in replacements:
            if edit := operator_edit(program, node.left, node.right, old, new):
                yield at(_line_of(program, edit.start), edit)


@operator("augmented-operator", "operator", "bug")
def augmented_operator(program: Program) -> Iterator[Proposal]:
    """`a += b` becomes `a -= b` or `a = b`."""
    for node in program.nodes:
        if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
            old, replacements = _ARITHMETIC[type(node.op)]
            for new in (*(f"{other}=" for other in replacements), "="):
                if edit := operator_edit(program, node.target, node.value, f"{old}=", new):
                    yield at(node.lineno, edit)


@operator("comparison-operator", "comparison", "bug")
def comparison_operator(program: Program) -> Iterator[Proposal]:
    """`a < b` becomes `a <= b` or `a > b`."""
    for node in program.expressions(ast.Compare):
        assert isinstance(node, ast.Compare)
        operands = [node.left, *node.comparators]
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            old, replacements = _COMPARISONS[type(op)]
            for new in replacements:
                if edit := operator_edit(program, left, right, old, new):
                    yield at(_line_of(program, edit.start), edit)


@operator("logical-operator", "condition", "bug")
def logical_operator(program: Program) -> Iterator[Proposal]:
    """`a and b` becomes `a or b`, one operator at a time."""
    for node in program.expressions(ast.BoolOp):
        assert isinstance(node, ast.BoolOp)
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            if edit := operator_edit(program, left, right, old, new):
                yield at(_line_of(program, edit.start), edit)


@operator("negated-condition", "condition", "bug")
def negated_condition(program: Program) -> Iterator[Proposal]:
    """`if c` becomes `if not c`, and `if not c` becomes `if c`."""
    for node in program.nodes:
        if not isinstance(node, ast.If | ast.While | ast.IfExp):
            continue
        test = node.test
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield at(test.lineno, program.replace(test, program.operand(test.operand)))
        elif isinstance(test, ast.Compare | ast.BoolOp | ast.Name | ast.Call | ast.BinOp | ast.Subscript):
            yield at(test.lineno, program.replace(test, f"not {program.operand(test)}"))


@operator("dropped-condition", "condition", "bug")
def dropped_condition(program: Program) -> Iterator[Proposal]:
    """`a and b` becomes `a`, or `b`."""
    for node in program.expressions(ast.BoolOp):
        assert isinstance(node, ast.BoolOp)
        if len(node.values) == 2:
            for kept in node.values:
                yield at(node.lineno, program.replace(node, program.operand(kept)))


@operator("wrong-variable", "variable", "bug")
def wrong_variable(program: Program) -> Iterator[Proposal]:
    """A variable is taken for another one that exists at this place."""
    for node in program.expressions(ast.Name):
        assert isinstance(node, ast.Name)
        parent = program.parents[node]
        local = program.names_before(node)
        if (isinstance(parent, ast.Call) and parent.func is node) or node.id not in local:
            continue
        others = [name for name in local if name != node.id]
        # The names bound last are those that people confuse.
        for other in others[-_MAX_OTHER_NAMES:]:
            yield at(node.lineno, program.replace(node, other))


@operator("wrong-call", "call", "bug")
def wrong_call(program: Program) -> Iterator[Proposal]:
    """`max` becomes `min`, `append` becomes `extend` ..."""
    for node in program.expressions(ast.Name, ast.Attribute):
        parent = program.parents[node]
        called = isinstance(parent, ast.Call)
        if isinstance(node, ast.Name):
            for new in _CALLS.get(node.id, ()) if called and node.id not in program.names_before(node) else ():
                yield at(node.lineno, program.replace(node, new))
        elif isinstance(node, ast.Attribute) and called and isinstance(parent, ast.Call) and parent.func is node:
            end = program.end(node)
            for new in _CALLS.get(node.attr, ()) if program.text[:end].endswith(node.attr) else ():
                extra = (Edit(start=end + 1, end=end + 1, new="0, "),) if new == "insert" else ()
                edit = Edit(start=end - len(node.attr), end=end, new=new)
                if not extra or program.text[end : end + 1] == "(":
                    yield at(node.end_lineno or node.lineno, edit, *extra)


@operator("dropped-call", "call", "bug")
def dropped_call(program: Program) -> Iterator[Proposal]:
    """`abs(x)` becomes `x`: the conversion is forgotten."""
    for node in program.expressions(ast.Call):
        assert isinstance(node, ast.Call)
        known = isinstance(node.func, ast.Name) and node.func.id in _CALLS
        if not known or len(node.args) != 1 or node.keywords:
            continue
        if not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
            yield at(node.lineno, program.replace(node, program.operand(node.args[0])))


@operator("swapped-arguments", "argument", "bug")
def swapped_arguments(program: Program) -> Iterator[Proposal]:
    """`f(a, b)` becomes `f(b, a)`."""
    for node in program.expressions(ast.Call):
        assert isinstance(node, ast.Call)
        for first, second in zip(node.args, node.args[1:], strict=False):
            if isinstance(first, ast.Starred) or isinstance(second, ast.Starred):
                continue
            new = (program.replace(first, program.source(second)), program.replace(second, program.source(first)))
            if program.source(first) != program.source(second):
                yield at(node.lineno, *new)


@operator("dropped-keyword", "argument", "bug")
def dropped_keyword(program: Program) -> Iterator[Proposal]:
    """`sorted(a, reverse=True)` becomes `sorted(a)`."""
    for node in program.expressions(ast.Call):
        assert isinstance(node, ast.Call)
        previous = node.args[-1] if node.args else None
        for keyword in node.keywords:
            if previous is not None and keyword.arg is not None:
                end = program.end(keyword.value)
                start = program.end(previous)
                if "#" not in program.text[start:end] and "(" not in program.text[start : program.start(keyword.value)]:
                    yield at(node.lineno, Edit(start=start, end=end, new=""))
            previous = keyword.value


@operator("dropped-minus", "operator", "bug")
def dropped_minus(program: Program) -> Iterator[Proposal]:
    """`-x` becomes `x`."""
    for node in program.expressions(ast.UnaryOp):
        assert isinstance(node, ast.UnaryOp)
        if isinstance(node.op, ast.USub):
            yield at(node.lineno, program.replace(node, program.operand(node.operand)))


def _line_of(program: Program, position: int) -> int:
    return program.text.count("\n", 0, position) + 1


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
