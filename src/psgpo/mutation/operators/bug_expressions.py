"""Bugs inside an expression: a wrong operator, comparison, constant, variable, call, bound or condition."""

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


def _moved(program: Program, node: ast.expr) -> Iterator[Proposal]:
    """The value of an expression one lower and one higher."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        for value in (node.value + 1, node.value - 1):
            yield at(node.lineno, program.replace(node, str(value)))
        return
    step = node.right if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) else None
    if isinstance(node, ast.BinOp) and isinstance(step, ast.Constant) and step.value == 1:
        yield at(node.lineno, program.replace(node, program.source(node.left)))  # `n - 1` is often forgotten
        return
    if isinstance(node, ast.Constant | ast.JoinedStr):
        return
    text = program.source(node)
    text = f"({text})" if isinstance(node, ast.IfExp | ast.BoolOp | ast.Compare | ast.Lambda) else text
    for sign in "-+":
        yield at(node.lineno, program.replace(node, f"{text} {sign} 1"))


@operator("number", "constant", "bug")
def number(program: Program) -> Iterator[Proposal]:
    """A number becomes one more or one less; a float is doubled, halved or loses its sign."""
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
            for new in _CALLS.get(node.attr, ()):
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


def _line_of(program: Program, position: int) -> int:
    return program.text.count("\n", 0, position) + 1


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


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
