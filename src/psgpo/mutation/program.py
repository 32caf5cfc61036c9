"""A reference solution as text and syntax tree at once: what operators look at, and how they edit.

Operators edit the *text*: an `Edit` replaces a span of characters, and every line that no edit touches stays as it is,
byte for byte. Positions of the tree (lines, UTF-8 bytes) become character offsets here and nowhere else.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from psgpo.lines import CodeLine, code_lines, code_span

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_CHANGING = frozenset({"pop", "popleft", "popitem", "setdefault", "__next__"})
"""Methods that change their object and are used for what they return."""
_BLOCKS = ("body", "orelse", "finalbody")


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """Replace `text[start:end]` by `new`."""

    start: int
    end: int
    new: str


class UnusableError(ValueError):
    """The program cannot be mutated; the message says why."""


class Program:
    """A parsed program.

    Args:
        text: Python source.
        given_lines: leading lines that belong to the prompt and must not change (HumanEval's signature and docstring).

    Raises:
        UnusableError: it does not parse, or its lines cannot be counted in one way.
    """

    def __init__(self, text: str, given_lines: int = 0) -> None:
        if "\r" in text.replace("\r\n", "") or "\f" in text:
            raise UnusableError("holds a lone carriage return or a form feed")
        if code_span(text) != (0, len(text)):
            raise UnusableError("holds a line that looks like the fence of a code block")
        try:
            self.tree = parse(text)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise UnusableError(f"is no Python program ({error})") from None
        self.text = text
        self.given_lines = given_lines
        self.lines: tuple[CodeLine, ...] = code_lines(text)
        self._raw = text.split("\n")
        self._starts = [0]
        for line in self._raw:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self.parents: dict[ast.AST, ast.AST] = {}
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node

    # --- positions

    def offset(self, line: int, column: int) -> int:
        """Character offset of a tree position: line from 1, column in UTF-8 bytes."""
        raw = self._raw[line - 1]
        return self._starts[line - 1] + (column if raw.isascii() else len(raw.encode()[:column].decode()))

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.end_lineno, node.end_col_offset)

    def source(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node, without parentheses around it."""
        return self.text[self.start(node) : self.end(node)]

    def operand(self, node: ast.expr) -> str:
        """The text of an expression, in parentheses unless it is one already whatever stands beside it."""
        text = self.source(node)
        safe = isinstance(node, ast.Name | ast.Attribute | ast.Subscript | ast.List | ast.Dict | ast.Set | ast.ListComp)
        safe = safe or (isinstance(node, ast.Call | ast.Constant) and not text.startswith("-"))
        if safe and "\n" not in text and not _is_bare_join(node, text):
            return text
        return f"({text})"

    def replace(self, node: ast.expr | ast.stmt, new: str) -> Edit:
        """Put other text in the place of a node, a space between where words would grow together (`if(a)`)."""
        start, end = self.start(node), self.end(node)
        before, after = self.text[:start][-1:], self.text[end : end + 1]
        new = f" {new}" if _is_word(before) and _is_word(new[:1]) else new
        return Edit(start=start, end=end, new=f"{new} " if _is_word(after) and _is_word(new[-1:]) else new)

    def line_start(self, line: int) -> int:
        return self._starts[line - 1]

    def line_text(self, line: int) -> str:
        """Line `line` (from 1) without its newline."""
        return self._raw[line - 1]

    def indent(self, statement: ast.stmt) -> str:
        """The white space before a statement that begins its line."""
        raw = self.line_text(statement.lineno)
        return raw[: len(raw) - len(raw.lstrip())]

    def own_lines(self, statement: ast.stmt) -> bool:
        """Whether nothing else stands on the statement's lines (no `if x: return`, no `a; b`), comments apart."""
        before = self.line_text(statement.lineno)[: self.start(statement) - self.line_start(statement.lineno)]
        last = statement.end_lineno or statement.lineno
        after = self.text[self.end(statement) : self.line_start(last) + len(self.line_text(last))].strip()
        return (
            not before.strip() and (not after or after.startswith("#")) and not getattr(statement, "decorator_list", 0)
        )

    def span(self, statement: ast.stmt) -> tuple[int, int]:
        """Offsets of the statement's whole lines, the last newline included."""
        assert statement.end_lineno is not None
        return self.line_start(statement.lineno), min(self._starts[statement.end_lineno], len(self.text))

    # --- what to look at

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Nodes that may change, in the order of the text; nothing given, no docstring, annotation or import."""
        found = [node for node in self._walk(self.tree) if self._may_change(node)]
        return tuple(sorted(found, key=lambda node: (node.lineno, node.col_offset)))  # type: ignore[attr-defined]

    def _walk(self, node: ast.AST) -> Iterator[ast.AST]:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_comment"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom):
                    continue
                if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                    continue  # a docstring, or a statement without effect
                yield child
                # Positions inside f-strings are unreliable before Python 3.12.
                if not isinstance(child, ast.JoinedStr):
                    yield from self._walk(child)

    def _may_change(self, node: ast.AST) -> bool:
        return isinstance(node, ast.expr | ast.stmt) and node.lineno > self.given_lines

    def expressions(self, *kinds: type[ast.expr]) -> Iterator[ast.expr]:
        """Expressions of these kinds that are read, not assigned to."""
        for node in self.nodes:
            if isinstance(node, kinds) and not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
                yield node

    @cached_property
    def bound_names(self) -> frozenset[str]:
        """Names that the program binds anywhere; what is not among them and a builtin's name is that builtin."""
        found = names(self.tree, ast.Store) | {n.arg for n in ast.walk(self.tree) if isinstance(n, ast.arg)}
        for node in ast.walk(self.tree):
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.alias):
                found.add((node.asname or node.name).split(".")[0])
        return frozenset(found)

    def blocks(self) -> Iterator[list[ast.stmt]]:
        """Lists of statements that may change."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Module | ast.ClassDef):
                continue  # definitions are no lines of an algorithm
            for name in _BLOCKS:
                block = getattr(node, name, None)
                if isinstance(block, list) and block and block[0].lineno > self.given_lines:
                    yield block

    def function_of(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The innermost `def` around a node."""
        current = self.parents.get(node)
        while current is not None and not isinstance(current, _FUNCTIONS):
            current = self.parents.get(current)
        return current

    def statement_of(self, node: ast.AST) -> ast.stmt:
        current = node
        while not isinstance(current, ast.stmt):
            current = self.parents[current]
        return current

    def names_before(self, node: ast.expr) -> list[str]:
        """Local names that are bound before a node, in its function: parameters first, then in order of appearance."""
        function = self.function_of(node)
        if function is None:
            return []
        names = parameters(function)
        stores = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        stores = [store for store in stores if self.function_of(store) is function]
        here = self.statement_of(node)
        for store in sorted(stores, key=lambda n: (n.lineno, n.col_offset)):
            inside = any(parent is here for parent in self.ancestors(store))
            if store.lineno < node.lineno and not inside and not self._in_comprehension(store):
                names.append(store.id)
        return list(dict.fromkeys(name for name in names if name not in ("self", "cls", "_")))

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node stands in, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def _in_comprehension(self, node: ast.AST) -> bool:
        return any(isinstance(parent, ast.comprehension) for parent in self.ancestors(node))

    def apply(self, edits: Sequence[Edit]) -> str:
        """The text after the edits, which must not overlap."""
        parts, position = [], 0
        for edit in sorted(edits, key=lambda e: (e.start, e.end)):
            assert edit.start >= position, "edits overlap"
            parts += [self.text[position : edit.start], self._lines_alike(edit.new)]
            position = edit.end
        return "".join([*parts, self.text[position:]])

    def _lines_alike(self, new: str) -> str:
        """New text whose lines end as those of the program do, where these all end in `\\r\\n`."""
        if "\n" not in new or self.text.count("\r\n") < self.text.count("\n"):
            return new
        return new.replace("\r\n", "\n").replace("\n", "\r\n")


def parse(text: str) -> ast.Module:
    """The syntax tree, without Python's warnings about the program's own style."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def parameters(function: ast.AST) -> list[str]:
    """Names of a function's parameters, `*args` and `**options` among them; none for anything else."""
    arguments = getattr(function, "args", None)
    if not isinstance(arguments, ast.arguments):
        return []
    plain = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [a.arg for a in (*plain, arguments.vararg, arguments.kwarg) if a is not None]


def names(node: ast.AST, context: type[ast.expr_context] | None = None) -> set[str]:
    """Names in a node; only those loaded or stored where `context` says so."""
    found = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {n.id for n in found if context is None or isinstance(n.ctx, context)}


def writes(statement: ast.stmt) -> set[str]:
    """What a statement binds or changes: `x`, `a` of `a[i] = x` and `a.append(x)`, `self.b` of `self.b = 1`."""
    found = names(statement, ast.Store)
    alone = {part for node in ast.walk(statement) if isinstance(node, ast.Expr) for part in ast.walk(node)}
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            found |= _roots(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            # `e = match.end()` changes nothing, as a rule; a call for its own sake does, and so does `pop`.
            changes = node in alone or node.func.attr in _CHANGING
            found |= _roots(node.func.value) if changes else set()
    return found


def reads(statement: ast.AST) -> set[str]:
    """Whose value a statement uses, attributes as `self.b`; what it only assigns into does not count."""
    targets: set[ast.AST] = set()
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.AugAssign):
            found |= names(node.target) | {ast.unparse(node.target)}
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            inner: ast.AST = node.value
            while isinstance(inner, ast.Subscript | ast.Attribute):
                targets.add(inner)
                inner = inner.value
            targets.add(inner)
    for node in ast.walk(statement):
        if node in targets:
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(ast.unparse(node))
    return found


def _roots(node: ast.expr) -> set[str]:
    """`a` of `a[i][j]`; both `self.b` and `self` of `self.b[i]`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    found = {ast.unparse(node)} if isinstance(node, ast.Attribute) else set()
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return found | ({node.id} if isinstance(node, ast.Name) else set())


def exchanged(first: str, second: str) -> tuple[str, str]:
    """Two pieces of whole lines, fit to change places where the second is the end of a file without a newline."""
    if second.endswith("\n"):
        return first, second
    return first.removesuffix("\n").removesuffix("\r"), second + "\n"


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _is_bare_join(node: ast.expr, text: str) -> bool:
    """Adjacent string literals: `"a" "b"`."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and text.count(text[-1]) > 2
