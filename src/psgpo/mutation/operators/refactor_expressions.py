"""Rewrites of an expression that keep its meaning, for the values programs usually have; execution checks each."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from psgpo.mutation.operators.registry import Proposal, at, operator
from psgpo.mutation.program import Program

_FLIPPED: dict[type[ast.cmpop], str] = {
    ast.Lt: ">",
    ast.LtE: ">=",
    ast.Gt: "<",
    ast.GtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_OPPOSITE: dict[type[ast.cmpop], str] = {
    ast.Lt: ">=",
    ast.LtE: ">",
    ast.Gt: "<=",
    ast.GtE: "<",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
_AND, _OR = "and", "or"


def opposite(program: Program, test: ast.expr) -> str:
    """The condition that holds when `test` does not."""
    if _is_not(test):
        assert isinstance(test, ast.UnaryOp)
        return program.source(test.operand)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        left, right = program.operand(test.left), program.operand(test.comparators[0])
        return f"{left} {_OPPOSITE[type(test.ops[0])]} {right}"
    return f"not {program.operand(test)}"


def is_condition(program: Program, node: ast.expr) -> bool:
    """Whether only the truth of the expression counts."""
    parent = program.parents[node]
    if isinstance(parent, ast.If | ast.While | ast.IfExp):
        return parent.test is node
    return isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not)


@operator("swap-operands", "operand order", "refactor")
def swap_operands(program: Program) -> Iterator[Proposal]:
    """`a * b` becomes `b * a`; `a + b` too, where neither side is surely a text or a list."""
    for node in program.expressions(ast.BinOp):
        assert isinstance(node, ast.BinOp)
        if not isinstance(node.op, ast.Add | ast.Mult | ast.BitAnd | ast.BitOr | ast.BitXor):
            continue
        if isinstance(node.left, ast.BinOp) or isinstance(node.right, ast.BinOp | ast.JoinedStr):
            continue  # another grouping changes the last bit of a float
        left, right = program.operand(node.left), program.operand(node.right)
        symbol = {ast.Add: "+", ast.Mult: "*", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"}[type(node.op)]
        joins = isinstance(node.op, ast.Add) and (_is_sequence(node.left) or _is_sequence(node.right))
        if left != right and not joins:
            yield at(node.lineno, program.replace(node, f"{right} {symbol} {left}"))


@operator("flip-comparison", "comparison form", "refactor")
def flip_comparison(program: Program) -> Iterator[Proposal]:
    """`a < b` becomes `b > a`."""
    for node in program.expressions(ast.Compare):
        assert isinstance(node, ast.Compare)
        if len(node.ops) == 1 and type(node.ops[0]) in _FLIPPED:
            left, right = program.operand(node.left), program.operand(node.comparators[0])
            yield at(node.lineno, program.replace(node, f"{right} {_FLIPPED[type(node.ops[0])]} {left}"))


@operator("negate-comparison", "comparison form", "refactor")
def negate_comparison(program: Program) -> Iterator[Proposal]:
    """`a < b` becomes `not a >= b` in a condition."""
    for node in program.expressions(ast.Compare):
        assert isinstance(node, ast.Compare)
        if len(node.ops) == 1 and is_condition(program, node):
            text = f"not {opposite(program, node)}"
            yield at(node.lineno, program.replace(node, f"({text})" if _inside_not(program, node) else text))


@operator("shift-bound", "comparison form", "refactor")
def shift_bound(program: Program) -> Iterator[Proposal]:
    """`a < 3` becomes `a <= 2` for whole numbers."""
    shifted: dict[type[ast.cmpop], tuple[str, int]] = {
        ast.Lt: ("<=", -1),
        ast.LtE: ("<", 1),
        ast.Gt: (">=", 1),
        ast.GtE: (">", -1),
    }
    for node in program.expressions(ast.Compare):
        assert isinstance(node, ast.Compare)
        bound = node.comparators[0]
        if len(node.ops) != 1 or not isinstance(bound, ast.Constant) or type(bound.value) is not int:
            continue
        if type(node.ops[0]) in shifted and bound.value < 10**6:
            symbol, step = shifted[type(node.ops[0])]
            text = f"{program.operand(node.left)} {symbol} {bound.value + step}"
            yield at(node.lineno, program.replace(node, text))


@operator("de-morgan", "logic form", "refactor")
def de_morgan(program: Program) -> Iterator[Proposal]:
    """`a and b` becomes `not (not a or not b)` in a condition; `not (a and b)` becomes `not a or not b`."""
    for node in program.expressions(ast.BoolOp):
        assert isinstance(node, ast.BoolOp)
        if not is_condition(program, node) or len(node.values) > 3:
            continue
        word = _OR if isinstance(node.op, ast.And) else _AND
        joined = f" {word} ".join(_opposite_part(program, value) for value in node.values)
        parent = program.parents[node]
        if isinstance(parent, ast.UnaryOp):
            if any(map(_is_not, node.values)) and not is_condition(program, parent):
                continue  # `not (not a and b)` is a truth value, `a or not b` need not be one
            yield at(parent.lineno, program.replace(parent, f"({joined})"))
        else:
            yield at(node.lineno, program.replace(node, f"not ({joined})"))


@operator("chain-comparison", "logic form", "refactor")
def chain_comparison(program: Program) -> Iterator[Proposal]:
    """`a < b and b < c` becomes `a < b < c`, and the other way round."""
    for node in program.expressions(ast.BoolOp, ast.Compare):
        if isinstance(node, ast.Compare) and len(node.ops) == 2 and isinstance(node.comparators[0], ast.Name):
            middle = program.source(node.comparators[0])
            first = program.text[program.start(node) : program.end(node.comparators[0])]
            second = program.text[program.start(node.comparators[0]) : program.end(node)]
            if middle and "\n" not in first + second:
                yield at(node.lineno, program.replace(node, f"({first} and {second})"))
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) and len(node.values) == 2:
            first_, second_ = node.values
            simple = all(isinstance(side, ast.Compare) and len(side.ops) == 1 for side in node.values)
            if simple and isinstance(first_, ast.Compare) and isinstance(second_, ast.Compare):
                shared = program.source(first_.comparators[0])
                if shared == program.source(second_.left) and isinstance(second_.left, ast.Name):
                    rest = program.text[program.end(second_.left) : program.end(second_)]
                    text = program.source(first_) + rest
                    if "(" not in program.text[program.end(first_) : program.start(second_)] and "\n" not in text:
                        yield at(node.lineno, program.replace(node, text))


@operator("swap-conditional", "branch order", "refactor")
def swap_conditional(program: Program) -> Iterator[Proposal]:
    """`a if c else b` becomes `b if not c else a`."""
    for node in program.expressions(ast.IfExp):
        assert isinstance(node, ast.IfExp)
        a, b = program.operand(node.body), program.operand(node.orelse)
        yield at(node.lineno, program.replace(node, f"{b} if {opposite(program, node.test)} else {a}"))


@operator("parentheses", "parentheses", "refactor", layout=True)
def parentheses(program: Program) -> Iterator[Proposal]:
    """`return a + b` becomes `return (a + b)`; conditions and assigned values too."""
    for node in program.nodes:
        value: ast.expr | None = None
        if isinstance(node, ast.Return | ast.Assign | ast.AugAssign):
            value = node.value
        elif isinstance(node, ast.If | ast.While):
            value = node.test
        if isinstance(value, ast.BinOp | ast.Compare | ast.BoolOp | ast.Call) and _is_bare(program, value):
            start = program.start(value)
            space = "" if program.text[start - 1].isspace() else " "
            yield at(value.lineno, program.replace(value, f"{space}({program.source(value)})"))


@operator("explicit-range", "equivalent call", "refactor")
def explicit_range(program: Program) -> Iterator[Proposal]:
    """`range(n)` becomes `range(0, n)`, and the other way round."""
    for node in program.expressions(ast.Call):
        assert isinstance(node, ast.Call)
        if not isinstance(node.func, ast.Name) or node.func.id != "range" or node.keywords:
            continue
        arguments = [program.source(argument) for argument in node.args]
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            continue
        if len(arguments) == 1:
            yield at(node.lineno, program.replace(node, f"range(0, {arguments[0]})"))
        elif len(arguments) == 2:
            new = f"range({arguments[1]})" if arguments[0] == "0" else f"range({', '.join(arguments)}, 1)"
            yield at(node.lineno, program.replace(node, new))


@operator("literal-form", "equivalent literal", "refactor")
def literal_form(program: Program) -> Iterator[Proposal]:
    """`[]` becomes `list()` and `{}` becomes `dict()`, and the other way round."""
    if program.bound_names & {"list", "dict"}:
        return
    for node in program.expressions(ast.List, ast.Dict, ast.Call):
        if isinstance(node, ast.List) and not node.elts:
            yield at(node.lineno, program.replace(node, "list()"))
        elif isinstance(node, ast.Dict) and not node.keys:
            yield at(node.lineno, program.replace(node, "dict()"))
        elif isinstance(node, ast.Call) and program.source(node) in ("list()", "dict()"):
            yield at(node.lineno, program.replace(node, "[]" if program.source(node) == "list()" else "{}"))


@operator("power-form", "equivalent arithmetic", "refactor")
def power_form(program: Program) -> Iterator[Proposal]:
    """`x ** 2` becomes `x * x`, `x * x` becomes `x ** 2`, `2 * x` becomes `x + x`, `-x` becomes `0 - x`."""
    for node in program.expressions(ast.BinOp, ast.UnaryOp):
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Name):
                yield at(node.lineno, program.replace(node, f"(0 - {program.source(node.operand)})"))
            continue
        assert isinstance(node, ast.BinOp)
        left, right = node.left, node.right
        same = isinstance(left, ast.Name) and isinstance(right, ast.Name) and left.id == right.id
        if isinstance(node.op, ast.Pow) and _is(right, 2) and isinstance(left, ast.Name | ast.Subscript):
            yield at(node.lineno, program.replace(node, f"({program.source(left)} * {program.source(left)})"))
        elif isinstance(node.op, ast.Mult) and same:
            yield at(node.lineno, program.replace(node, f"{program.source(left)} ** 2"))
        elif isinstance(node.op, ast.Mult) and _is(left, 2) and isinstance(right, ast.Name):
            yield at(node.lineno, program.replace(node, f"({right.id} + {right.id})"))
        elif isinstance(node.op, ast.Mult) and _is(right, 2) and isinstance(left, ast.Name):
            yield at(node.lineno, program.replace(node, f"({left.id} + {left.id})"))


@operator("parity-form", "equivalent arithmetic", "refactor")
def parity_form(program: Program) -> Iterator[Proposal]:
    """`x % 2 == 0` becomes `not x % 2` in a condition; `len(x) == 0` becomes `not x`."""
    for node in program.expressions(ast.Compare):
        assert isinstance(node, ast.Compare)
        if len(node.ops) != 1 or not is_condition(program, node) or _inside_not(program, node):
            continue
        left, right = node.left, node.comparators[0]
        remainder = isinstance(left, ast.BinOp) and isinstance(left.op, ast.Mod)
        length = isinstance(left, ast.Call) and isinstance(left.func, ast.Name) and left.func.id == "len" and left.args
        if _is(right, 0) and (remainder or length) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            text = program.source(left.args[0]) if isinstance(left, ast.Call) else program.source(left)
            word = "not " if isinstance(node.ops[0], ast.Eq) else ""
            yield at(node.lineno, program.replace(node, f"{word}({text})" if word else text))


@operator("text-form", "text form", "refactor")
def text_form(program: Program) -> Iterator[Proposal]:
    """`f"{a}-{b}"` becomes `"{}-{}".format(a, b)`; `str(x)` becomes `f"{x}"`; `"%s" % x` becomes `"{}".format(x)`."""
    for node in program.expressions(ast.JoinedStr, ast.Call, ast.BinOp):
        new: str | None = None
        if isinstance(node, ast.JoinedStr):
            new = _formatted(node)
        elif isinstance(node, ast.Call):
            named = isinstance(node.func, ast.Name) and node.func.id == "str" and "str" not in program.bound_names
            if named and len(node.args) == 1 and isinstance(node.args[0], ast.Name) and not node.keywords:
                new = f'f"{{{node.args[0].id}}}"'
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and _is(node.left, "%s"):
            new = f'"{{}}".format({program.source(node.right)})' if isinstance(node.right, ast.Name) else None
        if new is not None and "\n" not in program.source(node):
            yield at(node.lineno, program.replace(node, new))


@operator("negative-index", "equivalent index", "refactor")
def negative_index(program: Program) -> Iterator[Proposal]:
    """`a[len(a) - 1]` becomes `a[-1]`, `a[-1]` becomes `a[len(a) - 1]`; `a[0:n]` becomes `a[:n]`."""
    for node in program.nodes:
        if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
            continue
        name, place = node.value.id, node.slice
        text = program.source(place)
        if text == "-1" and "len" not in program.bound_names:
            yield at(node.lineno, program.replace(place, f"len({name}) - 1"))
        elif text.replace(" ", "") == f"len({name})-1":
            yield at(node.lineno, program.replace(place, "-1"))
        elif isinstance(place, ast.Slice) and place.lower is None and place.upper is not None and place.step is None:
            yield at(node.lineno, program.replace(place, f"0:{program.source(place.upper)}"))
        elif isinstance(place, ast.Slice) and _is(place.lower, 0) and place.upper is not None and place.step is None:
            yield at(node.lineno, program.replace(place, f":{program.source(place.upper)}"))


def _formatted(node: ast.JoinedStr) -> str | None:
    """The f-string as a call of `format`; None where it formats in a special way."""
    template, values = "", []
    for part in node.values:
        if isinstance(part, ast.Constant):
            template += str(part.value).replace("{", "{{").replace("}", "}}")
        elif isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None:
            template += "{}"
            values.append(ast.unparse(part.value))
        else:
            return None
    return f"{template!r}.format({', '.join(values)})" if values else None


def _is_sequence(node: ast.expr) -> bool:
    """Whether the order counts where the value is added: a text, list, tuple or slice."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    sliced = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice)
    return sliced or isinstance(node, ast.List | ast.ListComp | ast.Tuple | ast.JoinedStr)


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


def _opposite_part(program: Program, test: ast.expr) -> str:
    """The opposite of a condition, fit to stand beside `and` and `or`."""
    if _is_not(test):
        assert isinstance(test, ast.UnaryOp)
        simple = isinstance(test.operand, ast.Compare | ast.BinOp) and test.operand.lineno == test.operand.end_lineno
        return program.source(test.operand) if simple else program.operand(test.operand)
    return opposite(program, test)


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _inside_not(program: Program, node: ast.expr) -> bool:
    return isinstance(program.parents[node], ast.UnaryOp)


def _is_bare(program: Program, value: ast.expr) -> bool:
    """On one line and not in parentheses already."""
    before = program.text[program.line_start(value.lineno) : program.start(value)].rstrip()
    return value.lineno == value.end_lineno and not before.endswith("(")
