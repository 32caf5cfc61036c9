"""Rewrites of loops that keep their meaning; execution checks each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from psgpo.mutation.operators.refactor_statements import FRESH, fresh_name, indent_unit
from psgpo.mutation.operators.registry import Proposal, at, operator
from psgpo.mutation.program import Edit, Program, names, parameters, reads, writes

_LATER = (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef, ast.GeneratorExp)
"""What may look at a variable later, when it has another value."""


@operator("loop-to-comprehension", "loop form", "refactor")
def loop_to_comprehension(program: Program) -> Iterator[Proposal]:
    """`r = []` and a loop that appends become a list comprehension."""
    for block in program.blocks():
        for first, loop in pairwise(block):
            appended = _appended(first, loop)
            if appended is None or not program.own_lines(first) or not program.own_lines(loop):
                continue
            assert isinstance(first, ast.Assign)
            assert isinstance(loop, ast.For)
            value, test = appended
            target = program.source(first.targets[0])
            condition = f" if {program.operand(test)}" if test is not None else ""
            head = f"{program.operand(value)} for {program.source(loop.target)} in {program.operand(loop.iter)}"
            text = f"{target} = [{head}{condition}]"
            if _is_seen_outside(program, loop, names(loop.target)):
                continue
            if "\n" not in text and "#" not in program.source(loop):
                yield at(first.lineno, Edit(start=program.start(first), end=program.end(loop), new=text))


@operator("comprehension-to-loop", "loop form", "refactor")
def comprehension_to_loop(program: Program) -> Iterator[Proposal]:
    """A list comprehension that is assigned or returned becomes a loop that appends."""
    for node in program.nodes:
        if not isinstance(node, ast.Return | ast.Assign) or not isinstance(node.value, ast.ListComp):
            continue
        value = node.value
        generator = value.generators[0]
        if len(value.generators) > 1 or generator.is_async or len(generator.ifs) > 1 or "\n" in program.source(node):
            continue
        if not program.own_lines(node) or (isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name)):
            continue
        name = program.source(node.targets[0]) if isinstance(node, ast.Assign) else fresh_name(program, FRESH)
        if isinstance(node, ast.Assign) and (len(node.targets) > 1 or name in reads(value)):
            continue
        if _is_seen_outside(program, value, names(generator.target)):
            continue
        indent, unit = program.indent(node), indent_unit(program, node)
        lines = [f"{name} = []", f"{indent}for {program.source(generator.target)} in {program.source(generator.iter)}:"]
        inner = indent + unit
        if generator.ifs:
            lines.append(f"{inner}if {program.source(generator.ifs[0])}:")
            inner += unit
        lines.append(f"{inner}{name}.append({program.source(value.elt)})")
        if isinstance(node, ast.Return):
            lines.append(f"{indent}return {name}")
        yield at(node.lineno, program.replace(node, "\n".join(lines)))


@operator("for-to-while", "loop form", "refactor")
def for_to_while(program: Program) -> Iterator[Proposal]:
    """`for i in range(n):` becomes a `while` loop that counts."""
    for node in program.nodes:
        if not isinstance(node, ast.For) or node.orelse or not isinstance(node.target, ast.Name):
            continue
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            continue
        jumps = any(isinstance(n, ast.Continue) for n in ast.walk(node))
        if (
            jumps
            or not 1 <= len(call.args) <= 2
            or call.keywords
            or not program.own_lines(node)
            or "\n" in program.source(call)
        ):
            continue
        name, bound = node.target.id, call.args[-1]
        changed = set().union(*(writes(statement) for statement in node.body))
        if name in changed or names(bound) & changed or not program.own_lines(node.body[-1]):
            continue
        # The bound is evaluated again each time, and the variable ends one higher.
        if not _is_steady(bound) or _is_seen_outside(program, node, {name}):
            continue
        if any(isinstance(n, _LATER) for statement in node.body for n in ast.walk(statement)):
            continue
        begin = program.source(call.args[0]) if len(call.args) == 2 else "0"
        indent, inner = program.indent(node), program.indent(node.body[0])
        header = f"{name} = {begin}\n{indent}while {name} < {program.operand(bound)}:"
        colon = program.text.index(":", program.end(call)) + 1
        end = program.end(node.body[-1])
        step = Edit(start=end, end=end, new=f"\n{inner}{name} += 1")
        if (
            program.text[program.end(call) : colon].strip(" )") == ":"
            and not program.text[colon:].split("\n", 1)[0].strip()
        ):
            yield at(node.lineno, Edit(start=program.start(node), end=colon, new=header), step)


def _appended(first: ast.stmt, loop: ast.stmt) -> tuple[ast.expr, ast.expr | None] | None:
    """(value, condition) of `r = []`, `for ...: [if c:] r.append(value)`."""
    if not isinstance(first, ast.Assign) or not isinstance(loop, ast.For) or loop.orelse or len(first.targets) != 1:
        return None
    target = first.targets[0]
    if not isinstance(target, ast.Name) or not isinstance(first.value, ast.List) or first.value.elts:
        return None
    body, test = loop.body, None
    if len(body) == 1 and isinstance(body[0], ast.If) and not body[0].orelse:
        test, body = body[0].test, body[0].body
    if len(body) != 1 or not isinstance(body[0], ast.Expr) or not isinstance(body[0].value, ast.Call):
        return None
    call = body[0].value
    appends = isinstance(call.func, ast.Attribute) and call.func.attr == "append" and len(call.args) == 1
    if not appends or not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
        return None
    uses = names(call.args[0]) | names(loop.iter) | (names(test) if test else set())
    return (call.args[0], test) if call.func.value.id == target.id and target.id not in uses else None


def _is_seen_outside(program: Program, loop: ast.AST, targets: set[str]) -> bool:
    """Whether the function uses one of a loop's variables elsewhere, other than in loops that set it themselves."""
    inside = set(ast.walk(loop))
    function = program.function_of(loop) or program.tree
    return bool(targets & set(parameters(function))) or any(
        isinstance(node, ast.Name) and node.id in targets and node not in inside and not _is_set_around(program, node)
        for node in ast.walk(function)
    )


def _is_set_around(program: Program, name: ast.Name) -> bool:
    """Whether a loop or comprehension around a name sets it."""
    for node in program.ancestors(name):
        if isinstance(node, ast.For) and name.id in names(node.target):
            return True
        parts = getattr(node, "generators", [])
        if any(name.id in names(part.target) for part in parts):
            return True
    return False


def _is_steady(bound: ast.expr) -> bool:
    """A number, a variable, an item, a length, or arithmetic on these."""
    if isinstance(bound, ast.BinOp):
        return _is_steady(bound.left) and _is_steady(bound.right)
    if isinstance(bound, ast.Call):
        length = isinstance(bound.func, ast.Name) and bound.func.id == "len"
        return length and all(map(_is_steady, bound.args))
    if isinstance(bound, ast.Subscript):
        return _is_steady(bound.value) and _is_steady(bound.slice)
    return isinstance(bound, ast.Name | ast.Constant)
