"""What the task and the lines above say about a line: the words, the types, and what every name is so far.

Text only, nothing is parsed as a program, so any prefix has an answer.
"""

# L lines above

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

TOKEN = re.compile(
    r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|[^\W\d]\w*|\d+\.\d+|\d+"
    r"|==|!=|<=|>=|//=|\*\*=|//|\*\*|<<|>>|->|:=|[-+*/%&|^]=|[^\w\s]"
)
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "def return if elif else for in while not and or is None True False break continue import from as try except "
        "lambda with yield pass class",
    )
)
KNOWN = frozenset(
    re.findall(
        r"\w+",
        "max min sum len sorted set range list str int float abs all any map filter zip enumerate dict tuple reversed "
        "print sort append count math re self round pow ord chr lower upper join split add remove pop items keys "
        "values index insert extend replace find isdigit isalpha counter defaultdict bool sqrt floor ceil pi heapq "
        "collections sys iter next bin startswith endswith strip format isinstance type key reverse",
    )
)
"""Names that mean the same everywhere, so they stay names."""
_CALLS = re.compile(r"(?:assert|>>>) (.+?)\s*(?:\n\s*(?!>>>)(.+))?$", re.MULTILINE)
"""A test or a docstring's example, and the line behind it."""


def tokens_of(line: str) -> list[str]:
    """Words, numbers, whole texts in quotes, and operators."""
    return TOKEN.findall(line)


def indent_of(line: str) -> int:
    """In characters."""
    return len(line) - len(line.lstrip())


def is_name(token: str) -> bool:
    return (token[0].isalpha() or token[0] == "_") and token not in KEYWORDS


def is_variable(token: str) -> bool:
    """A name that is not `KNOWN`."""
    return is_name(token) and token not in KNOWN


def is_quoted(token: str) -> bool:
    return token[0] in "'\""


def type_name(value: object, depth: int = 0) -> str:
    """`int`, `list[int]`, `tuple[list[str]]`: a container by its first item, three levels deep."""
    name = type(value).__name__
    if isinstance(value, list | tuple | set) and value and depth < 2:
        return f"{name}[{type_name(next(iter(value)), depth + 1)}]"
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What the problem's text says."""

    text: str
    words: frozenset[str]
    """Words and numbers, in lower case."""
    argument_types: dict[int, str]
    """Position to type, from the first test or example that shows it."""
    result_type: str
    """`?` where none is shown."""


@lru_cache(maxsize=4096)
def read_task(problem: str) -> Task:
    """The words of a problem, and the types in its first `assert f(...) == ...` or `>>> f(...)`."""
    arguments: dict[int, str] = {}
    result = "?"
    for found in _CALLS.finditer(problem):
        call, expected = _example(found.group(1), found.group(2) or "")
        if call is None:
            continue
        for position, argument in enumerate(call.args):
            if (kind := _literal_type(argument)) is not None:
                arguments.setdefault(position, kind)
        result = _literal_type(expected) or "?"
        if isinstance(call.func, ast.Name):
            break
    words = frozenset(re.findall(r"[a-z]+|\d+", problem.lower()))
    return Task(text=problem, words=words, argument_types=arguments, result_type=result)


def _example(source: str, below: str) -> tuple[ast.Call | None, ast.expr | None]:
    node = _expression(source)
    if isinstance(node, ast.Compare) and isinstance(node.left, ast.Call):
        return node.left, node.comparators[0]
    return (node, _expression(below.strip())) if isinstance(node, ast.Call) else (None, None)


def _expression(source: str) -> ast.expr | None:
    try:
        return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _literal_type(node: ast.expr | None) -> str | None:
    if node is None:
        return None
    try:
        return type_name(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


class Above:
    """The lines above a line, with what each name in them is.

    Args:
        problem: the task.
        lines: those above. Shape: (L,).
    """

    def __init__(self, problem: str, lines: Sequence[str]) -> None:
        self.task = read_task(problem)
        self.rows = [tokens_of(line) for line in lines]
        self.indents = [indent_of(line) for line in lines]
        self.seen: dict[str, list[int]] = {}
        """Name to the lines that hold it, each once."""
        self.role: dict[str, str] = {}
        """Variable to how it came up: a parameter of a type, a loop's variable, what it was first set to."""
        self.last: dict[str, str] = {}
        """Name to what stood around it the last time."""
        for number, row in enumerate(self.rows):
            for position, token in enumerate(row):
                if is_name(token):
                    self._enter(number, row, position)
        self.variables = [name for name in self.seen if is_variable(name) and self.role[name] != "F"]
        self.previous = self.rows[-1] if self.rows else []
        self.parameters = next((numbered(row[2:]) for row in self.rows if row[:1] == ["def"]), {})
        self.pairs = {pair for row in self.rows for pair in pairwise(row)}
        self.triples = {triple for row in self.rows for triple in zip(row, row[1:], row[2:], strict=False)}
        self.whole_lines = {tuple(row) for row in self.rows}
        self.shapes = {" ".join(shape(row)) for row in self.rows}
        bracketed = [row[1] == "(" for row in self.rows if len(row) > 1 and row[0] in ("if", "elif", "while", "return")]
        self.brackets = 0 if not bracketed else 2 if 2 * sum(bracketed) >= len(bracketed) else 1
        """Conditions and returned values so far: none (0), mostly bare (1), mostly in parentheses (2)."""

    def header(self, indent: int) -> list[str]:
        """Tokens of the innermost block that a line of this indentation stands in; none in a function's own body."""
        for row, other in zip(reversed(self.rows), reversed(self.indents), strict=True):
            if other < indent and row:
                return [] if row[0] == "def" else row
        return []

    def _enter(self, number: int, row: Sequence[str], position: int) -> None:
        token = row[position]
        before = row[position - 1] if position else "^"
        after = row[position + 1] if position + 1 < len(row) else "$"
        rows = self.seen.setdefault(token, [])
        if not rows or rows[-1] != number:
            rows.append(number)
        self.last[token] = f"{'N' if is_variable(before) else before}_{after}"
        if token in KNOWN:
            return
        if row[0] == "def" and before in ("(", ",", "*"):
            commas = row[:position].count(",")
            self.role.setdefault(token, f"P{self.task.argument_types.get(commas, '')}")
        elif before == "def":
            self.role[token] = "F"
        elif before == "^" and after == "=" and position + 2 < len(row):
            value, behind = row[position + 2], row[position + 3] if position + 3 < len(row) else "$"
            self.role[token] = f"={self.role_of(value)}{'I' if is_name(behind) else behind}"
        elif row[0] == "for" and "in" in row[position:]:
            source = row[row.index("in") + 1 :][:1]
            self.role[token] = f"for{min(position, 3)}{self.role_of(source[0]) if source else ''}"
        else:
            self.role.setdefault(token, "I")

    def role_of(self, token: str) -> str:
        """The role of a variable, `S` for a text, any other token as it is."""
        return self.role.get(token, "I") if is_variable(token) else "S" if is_quoted(token) else token


def shape(tokens: Iterable[str]) -> list[str]:
    """Each name replaced by its number in the line (`KNOWN` names stay readable), each text by `S`."""
    numbers: dict[str, int] = {}
    return [
        f"v{token if token in KNOWN else ''}{numbers.setdefault(token, len(numbers))}"
        if is_name(token)
        else "S"
        if is_quoted(token)
        else token
        for token in tokens
    ]


def numbered(row: Iterable[str]) -> dict[str, int]:
    """Variables by the order in which they come."""
    return {name: number for number, name in enumerate(dict.fromkeys(token for token in row if is_variable(token)))}
