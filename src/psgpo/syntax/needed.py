"""Whether a program that passes needs the lines it begins with, or does their work again further down.

Any prefix can be completed by starting over: behind a wrong loop whose result is thrown away, or by sorting again what
was sorted the wrong way. Such a program passes and says nothing about those lines. So of the lines in question every
statement must take part in the result (`Liveness`), and the program must fail without it (run it to see).
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Iterator, Sequence

from psgpo.syntax.liveness import Liveness, idle
from psgpo.syntax.tree import parse

_KEPT = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Return | ast.Raise | ast.Break | ast.Continue | ast.Try
)
"""Statements whose removal changes more than a value."""


def unused_lines(program: str, roots: Iterable[str] | None) -> set[int]:
    """Lines where a statement begins that the program makes no use of; none for a text that does not parse."""
    tree = parse(program)
    if tree is None:
        return set()
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return {node.lineno for node in Liveness(tree, roots).unused(statements)}


def reductions(
    program: str, lines: range, roots: Sequence[str] | None, exempt: Container[int] = ()
) -> list[str] | None:
    """The program without one of the statements that lie in `lines`, once for each.

    Where one of these passes, the program does not need the statement. First values (`r = []`), `x = x` and the like
    do nothing anyway and are not taken out; of statements inside one another the outermost is.

    Args:
        lines: line numbers, from 1.
        roots: names that the tests use; None for a program that is run for its output.
        exempt: lines whose statements may be unused.

    Returns:
        None where a statement in these lines takes no part in the result; nothing for a text that does not parse.
    """
    tree = parse(program)
    if tree is None:
        return []
    inside = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno in lines]
    if any(node.lineno not in exempt for node in Liveness(tree, roots).unused(inside)):
        return None
    text = program.split("\n")
    return [_without(text, node) for node in _outermost(tree.body, lines) if _removable(text, node)]


def _outermost(block: Sequence[ast.stmt], lines: range) -> Iterator[ast.stmt]:
    for node in block:
        if node.lineno in lines and (node.end_lineno or node.lineno) in lines:
            yield node
        else:
            for name in ("body", "orelse", "finalbody"):
                yield from _outermost(getattr(node, name, []), lines)


def _removable(text: Sequence[str], node: ast.stmt) -> bool:
    line = text[node.lineno - 1]
    if isinstance(node, _KEPT) or idle(node) or _itself(node) or line.lstrip().startswith("elif"):
        return False
    return not line[: node.col_offset].strip() and ";" not in text[(node.end_lineno or node.lineno) - 1]


def _itself(node: ast.stmt) -> bool:
    """`x = x`"""
    return isinstance(node, ast.Assign) and all(
        ast.unparse(target) == ast.unparse(node.value) for target in node.targets
    )


def _without(text: Sequence[str], node: ast.stmt) -> str:
    indent = text[node.lineno - 1][: node.col_offset]
    return "\n".join([*text[: node.lineno - 1], f"{indent}pass", *text[node.end_lineno or node.lineno :]])
