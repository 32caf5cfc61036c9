"""Rewrites of whole statements that keep their meaning; execution checks each."""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Iterator
from itertools import pairwise

from psgpo.mutation.operators.bug_statements import exchange, neighbours
from psgpo.mutation.operators.refactor_expressions import opposite
from psgpo.mutation.operators.registry import Proposal, at, operator
from psgpo.mutation.program import Edit, Program, exchanged, names, reads, writes

_SYMBOLS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Global, ast.Nonlocal, ast.JoinedStr, ast.Match)
"""Functions that hold one of these keep their names: scopes of their own, positions or names that are hard to find."""
_ACTS = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom)
"""What may do more than give a value."""
FRESH = ("result", "value", "answer", "item_value", "current")
_PAIRS = (
    "i:idx j:pos k:step n:size m:width x:item y:other s:text res:result result:res sum:total count:counter "
    "temp:tmp max:largest min:smallest total:acc lst:items arr:values c:char ans:answer flag:found dp:table"
)
_NEW_NAMES = dict(pair.split(":") for pair in _PAIRS.split())
"""What people might have called a variable instead."""


@operator("plain-assignment", "assignment form", "refactor")
def plain_assignment(program: Program) -> Iterator[Proposal]:
    """`x += e` becomes `x = x + e`."""
    for node in program.nodes:
        if isinstance(node, ast.AugAssign) and type(node.op) in _SYMBOLS:
            target, value = program.source(node.target), program.operand(node.value)
            text = f"{target} = {target} {_SYMBOLS[type(node.op)]} {value}"
            yield at(node.lineno, program.replace(node, text))


@operator("augmented-assignment", "assignment form", "refactor")
def augmented_assignment(program: Program) -> Iterator[Proposal]:
    """`x = x + e` becomes `x += e`."""
    for node in program.nodes:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.value, ast.BinOp):
            continue
        target = program.source(node.targets[0])
        value = node.value
        if program.source(value.left) == target and type(value.op) in _SYMBOLS:
            text = f"{target} {_SYMBOLS[type(value.op)]}= {program.source(value.right)}"
            yield at(node.lineno, program.replace(node, text))


@operator("invert-if", "branch order", "refactor")
def invert_if(program: Program) -> Iterator[Proposal]:
    """`if c: A else: B` becomes `if not c: B else: A`."""
    for node in program.nodes:
        if not isinstance(node, ast.If) or not _two_blocks(program, node):
            continue
        a, b = _block_span(program, node.body), _block_span(program, node.orelse)
        first, second = exchanged(program.text[slice(*a)], program.text[slice(*b)])
        condition = program.replace(
            node.test, f"({opposite(program, node.test)})" if _tight(program, node) else opposite(program, node.test)
        )
        yield at(node.lineno, condition, Edit(start=a[0], end=a[1], new=second), Edit(start=b[0], end=b[1], new=first))


@operator("else-after-return", "branch form", "refactor")
def else_after_return(program: Program) -> Iterator[Proposal]:
    """`if c: return a` `else: return b`: the `else` goes, its block moves out."""
    for node in program.nodes:
        if not isinstance(node, ast.If) or not _two_blocks(program, node):
            continue
        if not isinstance(node.body[-1], ast.Return) or multiline_text(node.orelse):
            continue
        start, end = _block_span(program, node.orelse)
        body = textwrap.indent(textwrap.dedent(program.text[start:end]), program.indent(node))
        header = program.line_start(_else_line(program, node))
        yield at(node.orelse[0].lineno, Edit(start=header, end=end, new=body))


@operator("conditional-to-if", "branch form", "refactor")
def conditional_to_if(program: Program) -> Iterator[Proposal]:
    """`return a if c else b` becomes an `if` with two returns."""
    for node in program.nodes:
        if isinstance(node, ast.Return | ast.Assign) and isinstance(node.value, ast.IfExp) and program.own_lines(node):
            indent, value = program.indent(node), node.value
            inner = indent + indent_unit(program, node)
            head = program.text[program.start(node) : program.start(value)]
            if "(" in head or "\n" in program.source(node):
                continue
            lines = [
                f"if {program.source(value.test)}:",
                f"{inner}{head}{program.source(value.body)}",
                f"{indent}else:",
                f"{inner}{head}{program.source(value.orelse)}",
            ]
            yield at(node.lineno, program.replace(node, "\n".join(lines)))


@operator("if-to-conditional", "branch form", "refactor")
def if_to_conditional(program: Program) -> Iterator[Proposal]:
    """`if c: return a` `else: return b` becomes `return a if c else b`; the same for assignments of one name."""
    for node in program.nodes:
        if not isinstance(node, ast.If) or not _two_blocks(program, node) or len(node.body) + len(node.orelse) != 2:
            continue
        first, second = node.body[0], node.orelse[0]
        if "\n" in program.source(first) + program.source(second) or "#" in program.source(node):
            continue
        test = program.operand(node.test)
        if isinstance(first, ast.Return) and isinstance(second, ast.Return) and first.value and second.value:
            a, b = program.operand(first.value), program.operand(second.value)
            yield at(node.lineno, program.replace(node, f"return {a} if {test} else {b}"))
        elif isinstance(first, ast.Assign) and isinstance(second, ast.Assign):
            targets = [program.source(t) for t in first.targets], [program.source(t) for t in second.targets]
            if targets[0] == targets[1] and len(targets[0]) == 1 and isinstance(first.targets[0], ast.Name):
                a, b = program.operand(first.value), program.operand(second.value)
                yield at(node.lineno, program.replace(node, f"{targets[0][0]} = {a} if {test} else {b}"))


@operator("elif-to-else-if", "branch form", "refactor", layout=True)
def elif_to_else_if(program: Program) -> Iterator[Proposal]:
    """`elif c:` becomes `else:` with an `if c:` inside."""
    for node in program.nodes:
        if not isinstance(node, ast.If) or not program.text.startswith("elif", program.start(node)):
            continue
        indent = program.indent(node)
        text = program.text[slice(*program.span(node))]
        if multiline_text([node]) or "\n" not in text:
            continue
        unit = indent_unit(program, node)
        moved = textwrap.indent(indent + "if" + text[len(indent) + len("elif") :], unit)
        start, end = program.span(node)
        yield at(node.lineno, Edit(start=start, end=end, new=f"{indent}else:\n{moved}"))


@operator("name-result", "temporary", "refactor")
def name_result(program: Program) -> Iterator[Proposal]:
    """`return e` becomes `result = e` and `return result`."""
    for node in program.nodes:
        if isinstance(node, ast.Return) and node.value is not None and program.own_lines(node):
            function = program.function_of(node)
            trivial = isinstance(node.value, ast.Name | ast.Constant)
            if (
                function is None
                or trivial
                or not program.text[program.start(node) : program.start(node.value)].endswith(" ")
            ):
                continue
            name = fresh_name(program, FRESH)
            text = f"{name} = {program.source(node.value)}\n{program.indent(node)}return {name}"
            yield at(node.lineno, program.replace(node, text))


@operator("inline-result", "temporary", "refactor")
def inline_result(program: Program) -> Iterator[Proposal]:
    """`x = e` before `return x` becomes `return e`."""
    for block in program.blocks():
        for first, second in pairwise(block):
            if not isinstance(first, ast.Assign) or not isinstance(second, ast.Return) or len(first.targets) != 1:
                continue
            target = first.targets[0]
            same = isinstance(second.value, ast.Name) and isinstance(target, ast.Name) and target.id == second.value.id
            if same and not _kept_elsewhere(program, second) and program.own_lines(first) and program.own_lines(second):
                start, end = program.span(first)[0], program.end(second)
                text = f"{program.indent(first)}return {program.source(first.value)}"
                yield at(first.lineno, Edit(start=start, end=end, new=text))


@operator("name-condition", "temporary", "refactor")
def name_condition(program: Program) -> Iterator[Proposal]:
    """`if c:` becomes `condition = c` and `if condition:`."""
    for node in program.nodes:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare | ast.BoolOp | ast.Call):
            starts_line = not program.line_text(node.lineno)[: node.col_offset].strip()
            if (
                not starts_line
                or program.text.startswith("elif", program.start(node))
                or node.test.lineno != node.lineno
            ):
                continue
            if _tight(program, node) or "\n" in program.source(node.test):
                continue
            name = fresh_name(program, ("condition", "holds", "matches"))
            line = f"{name} = {program.source(node.test)}\n{program.indent(node)}"
            start = program.start(node)
            yield at(node.lineno, Edit(start=start, end=start, new=line), program.replace(node.test, name))


@operator("rename-local", "renamed variable", "refactor")
def rename_local(program: Program) -> Iterator[Proposal]:
    """A local variable gets another name, everywhere in its function."""
    for function in (n for n in ast.walk(program.tree) if isinstance(n, ast.FunctionDef)):
        inner = [n for statement in function.body for n in ast.walk(statement)]
        if any(isinstance(n, _SCOPES) for n in inner) or _calls_locals(function):
            continue
        taken = names(program.tree) | program.bound_names | set(dir(builtins))
        parameters = {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
        bound = [n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        handlers = {n.name for n in inner if isinstance(n, ast.ExceptHandler)}
        imported = {(a.asname or a.name) for n in inner if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
        for name in dict.fromkeys(bound):
            if name in parameters or name in handlers or name in imported:
                continue
            new = _NEW_NAMES.get(name, f"{name}_value")
            new = new if new not in taken else f"new_{name}"
            places = [n for n in inner if isinstance(n, ast.Name) and n.id == name]
            if new not in taken and min(place.lineno for place in places) > program.given_lines:
                edits = [program.replace(place, new) for place in places]
                yield at(min(place.lineno for place in places), *edits)


@operator("swap-independent", "statement order", "refactor")
def swap_independent(program: Program) -> Iterator[Proposal]:
    """Two assignments that do not need each other change places."""
    for first, second in neighbours(program):
        plain = isinstance(first, ast.Assign | ast.AugAssign) and isinstance(second, ast.Assign | ast.AugAssign)
        mixed = (writes(first) & (reads(second) | writes(second))) | (writes(second) & reads(first))
        acts = any(isinstance(n, _ACTS) for n in (*ast.walk(first), *ast.walk(second)))
        if plain and not mixed and not acts and program.source(first) != program.source(second):
            yield at(first.lineno, *exchange(program, first, second))


# --- helpers


def _two_blocks(program: Program, node: ast.If) -> bool:
    """`if` and `else`, each block on lines of its own, without `elif`."""
    if not node.orelse or program.text.startswith("elif", program.start(node)) or not program.own_lines(node):
        return False
    first, other = node.body[0], node.orelse[0]
    if program.text.startswith("elif", program.start(other)) or first.lineno == node.lineno:
        return False
    clean = program.line_text(_else_line(program, node)).strip() == "else:"
    return clean and all(program.own_lines(statement) for statement in (*node.body, *node.orelse))


def _else_line(program: Program, node: ast.If) -> int:
    """Line of the `else` that belongs to an `if` with two blocks."""
    position = program.text.rfind("else", program.end(node.body[-1]), program.start(node.orelse[0]))
    return program.text.count("\n", 0, max(position, 0)) + 1


def _block_span(program: Program, block: list[ast.stmt]) -> tuple[int, int]:
    return program.span(block[0])[0], program.span(block[-1])[1]


def _tight(program: Program, node: ast.If) -> bool:
    """`if(a < b):`, whose condition brings its own parentheses."""
    return program.text[program.start(node.test) - 1] == "("


def indent_unit(program: Program, node: ast.stmt) -> str:
    """One step of indentation, as the function around a statement uses it."""
    function = program.function_of(node)
    if function is None or function.body[0].lineno == function.lineno:
        return "    "
    return program.indent(function.body[0])[len(program.indent(function)) :] or "    "


def fresh_name(program: Program, candidates: tuple[str, ...]) -> str:
    taken = names(program.tree) | program.bound_names
    return next((name for name in candidates if name not in taken), f"new_{candidates[0]}")


def multiline_text(block: list[ast.stmt]) -> bool:
    """A string over several lines: moving it sideways would change it."""
    texts = (n for s in block for n in ast.walk(s) if isinstance(n, ast.Constant | ast.JoinedStr))
    return any(n.lineno != n.end_lineno for n in texts)


def _kept_elsewhere(program: Program, node: ast.Return) -> bool:
    """Whether the returned variable outlives the `return`: in a closure, a `finally`, or outside the function."""
    assert isinstance(node.value, ast.Name)
    function = program.function_of(node)
    for inner in ast.walk(function) if function is not None else ():
        if isinstance(inner, ast.Global | ast.Nonlocal) and node.value.id in inner.names:
            return True
        later = isinstance(inner, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef | ast.GeneratorExp)
        if later and inner is not function and node.value.id in names(inner):
            return True
        if isinstance(inner, ast.Try) and any(node.value.id in names(statement) for statement in inner.finalbody):
            return True
    return False


def _calls_locals(function: ast.AST) -> bool:
    return bool(names(function) & {"locals", "vars", "eval", "exec"})
