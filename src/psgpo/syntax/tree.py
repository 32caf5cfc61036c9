"""Where a statement stands in a program, and which blocks are open at the end of a prefix. Standard library only.

A *position* is a place between statements: one frame per open block, outermost first, each with the number of
statements before it. An `elif` is a clause of its `if`, as in the text, not a block inside an `else`.

    def f(n):           position after line 3: module (0 whole statements before), function (1), if (1)
        r = 0
        if n: r += n    # on a line of its own in real code
"""

from __future__ import annotations

import ast
import codeop
import keyword
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

Block = list[ast.stmt]

_KINDS: dict[type[ast.AST], str] = {
    ast.Module: "module",
    ast.FunctionDef: "function",
    ast.AsyncFunctionDef: "function",
    ast.ClassDef: "class",
    ast.For: "loop",
    ast.AsyncFor: "loop",
    ast.While: "loop",
    ast.If: "if",
    ast.With: "with",
    ast.AsyncWith: "with",
    ast.Try: "try",
    ast.ExceptHandler: "except",
}
FILLER = "pass"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One open block."""

    kind: str
    """module, function, class, loop, if, with, try, except; `else` for the other branch of if, loop and try."""
    owner: ast.AST
    """The statement (module, handler) whose block it is."""
    block: Block
    """All statements of the block."""
    before: int
    """How many of them stand before the position. The next inner frame belongs to the statement `before - 1`."""

    @property
    def rest(self) -> Block:
        return self.block[self.before :]


Position = tuple[Frame, ...]


def parse(text: str) -> ast.Module | None:
    """The syntax tree; None for what is no program, however it is malformed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=4096)
def begins_statement(line: str) -> bool:
    """Whether a line can begin a statement of a program or of a function's body; a header or an open bracket can.

    Prose cannot: two words in a row are no Python. What Python allows and no program begins with is taken for prose: a
    lone word that is no keyword, an annotation without a value (`Answer: 42`), a value that goes nowhere (`- item`). A
    string is a docstring.

    >>> begins_statement("def f(x"), begins_statement("    return 1"), begins_statement("Here is the code:")
    (True, True, False)
    """
    text = line.strip()
    if text.isidentifier():
        return keyword.iskeyword(text)
    tree = parse(text)  # None too for a header or an open bracket
    if tree is not None and tree.body and _goes_nowhere(tree.body[0]):
        return False
    return any(_compiles(head + text) for head in ("", "def _():\n "))


def _goes_nowhere(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    is_string = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return not is_string and not isinstance(value, ast.Call | ast.Yield | ast.YieldFrom | ast.Await)


def _compiles(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codeop.compile_command(text, symbol="exec")  # an unfinished statement is no error
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return False
    return True


def blocks_of(node: ast.AST) -> Iterator[tuple[str, ast.AST, Block]]:
    """The blocks of one compound statement: (kind, owner, statements), in the order of the text."""
    kind = _KINDS.get(type(node))
    if kind is None:
        return
    body: Block = getattr(node, "body", [])
    yield kind, node, body
    for handler in getattr(node, "handlers", []):
        yield "except", handler, handler.body
    orelse: Block = getattr(node, "orelse", [])
    if orelse:
        yield "else", node, orelse
    final: Block = getattr(node, "finalbody", [])
    if final:
        yield "else", node, final


def clauses_after(frame: Frame) -> tuple[Block, ...]:
    """What the statement that owns the frame has after it, as blocks: only the `else` of an if or a loop counts."""
    if frame.kind not in ("if", "loop"):
        return ()
    orelse: Block = getattr(frame.owner, "orelse", [])
    return (orelse,) if orelse else ()


def statement_texts(tree: ast.Module) -> list[str]:
    """The program's statements in the order of the text, normalised; of a compound one its header."""
    found: list[str] = []

    def visit(block: Block) -> None:
        for statement in block:
            inner = list(blocks_of(statement))
            found.append(ast.unparse(statement).split("\n", 1)[0] if inner else ast.unparse(statement))
            for _, _, part in inner:
                visit(part)

    visit(tree.body)
    return found


def is_elif(frame_kind: str, block: Block) -> bool:
    """Whether a block is an `elif` clause: an else that holds one `if` and nothing else."""
    return frame_kind == "else" and len(block) == 1 and isinstance(block[0], ast.If)


def positions(tree: ast.Module) -> list[tuple[Position, int]]:
    """Every position of a program and how many statements begin before it, in the order of the text.

    The end of every block is a position too.
    """
    found: list[tuple[Position, int]] = []
    count = 0

    def visit(kind: str, owner: ast.AST, block: Block, outer: Position) -> None:
        nonlocal count
        through = is_elif(kind, block)
        for index, statement in enumerate(block):
            if not through:
                found.append(((*outer, Frame(kind=kind, owner=owner, block=block, before=index)), count))
            count += 1
            entered = Frame(kind=kind, owner=owner, block=block, before=index + 1)
            for inner_kind, inner_owner, inner in blocks_of(statement):
                visit(inner_kind, inner_owner, inner, outer if through else (*outer, entered))
        if not through:
            found.append(((*outer, Frame(kind=kind, owner=owner, block=block, before=len(block))), count))

    visit("module", tree, tree.body, ())
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """The first lines of a program, cut between statements."""

    text: str
    """The lines, each with its newline."""
    tree: ast.Module
    """Its syntax tree; a block that has only a header holds one `pass` that the text has not."""
    position: Position
    """The open blocks at its end."""
    indents: tuple[str, ...]
    """Per open block, what its lines begin with."""
    open_header: bool
    """The innermost block has only a header."""

    @property
    def depth(self) -> int:
        return len(self.position) - 1


def parse_prefix(lines: Sequence[str]) -> Prefix | None:
    """The prefix of these lines (without newlines); None when they end inside a statement or are no program's start."""
    text = "".join(f"{line}\n" for line in lines)
    last = next((line for line in reversed(lines) if line.strip() and not line.lstrip().startswith("#")), "")
    for open_header in (False, True):
        indent = _indent(last) + "    "
        filled = text + (f"{indent}{FILLER}\n" if open_header else "")
        tree = parse(filled) or parse(filled + _closed_try(filled))
        if tree is not None and tree.body:
            return _prefix(text, tree, filled.splitlines(), open_header)
    return None


def _closed_try(text: str) -> str:
    """Clauses that close every `try` still open, innermost first."""
    opened: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        indent = _indent(line)
        opened = [seen for seen in opened if len(seen) < len(indent) or (seen == indent and not _closes(line))]
        if line.strip().split("#")[0].strip() == "try:":
            opened.append(indent)
    return "".join(f"{indent}finally:\n{indent}    {FILLER}\n" for indent in reversed(opened))


def _closes(line: str) -> bool:
    return line.strip().startswith(("except", "finally"))


def _prefix(text: str, tree: ast.Module, lines: Sequence[str], open_header: bool) -> Prefix | None:
    frames: list[Frame] = []
    indents: list[str] = []
    kind, owner, block = "module", tree, tree.body
    last_line = sum(1 for _ in lines)
    while True:
        if not is_elif(kind, block):
            frames.append(Frame(kind=kind, owner=owner, block=block, before=len(block)))
            indents.append(_indent(lines[block[0].lineno - 1]))
        inner = [part for part in blocks_of(block[-1]) if part[2] and part[2][0].lineno <= last_line]
        if not inner:
            break
        kind, owner, block = inner[-1]  # type: ignore[assignment]
        if block[0].lineno == getattr(frames[-1].block[-1], "lineno", 0):
            return None  # a block on its header's line cannot be continued
    return Prefix(text=text, tree=tree, position=tuple(frames), indents=tuple(indents), open_header=open_header)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
