"""What a line could have been: its text with one small change, to ask a model whether the change reads better.

The changes are those that people make by mistake and those that mend them: another variable, operator, comparison,
call or number, an index off by one, a `return` too few, another indentation. They work on tokens, so any prefix has
alternatives; not all of them would compile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from psgpo.prm.above import KEYWORDS, Above, is_name, is_quoted, is_variable, numbered

Change = Literal[
    "variable", "operator", "comparison", "call", "truth", "number", "start", "text", "off-by-one", "arguments",
    "return", "returned", "indentation", "not", "minus", "dropped-call",
]  # fmt: skip
CHANGES: tuple[Change, ...] = get_args(Change)
_VARIABLES = 5
"""Names above that come into question, the latest ones."""
_GROUPS: tuple[tuple[Change, str], ...] = (
    ("operator", "+ -, * +, * **, / // *, % //, & |, << >>, and or, += -= =, *= += =, //= /=, %= //="),
    ("operator", "break continue, while if, if elif"),
    ("comparison", "< <= >, > >= <, <= >= <, >= <= >, == !=, == <="),
    ("truth", "True False"),
    ("call", "max min, any all, sum max len, sorted list, list set, abs int, int float round, str repr, ord int"),
    ("call", "map filter, append extend, add discard, update add, upper lower, lower title, strip lstrip rstrip"),
    ("call", "startswith endswith, find rfind, index count, isdigit isalpha, isupper islower, keys values, items keys"),
    ("call", "floor ceil, sqrt exp, sin cos, union intersection, difference union, search match, findall split"),
    ("call", "combinations permutations, heappush heappop, nlargest nsmallest"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """One changed line."""

    change: Change
    tokens: tuple[str, ...]
    indent: int
    """In characters."""


def _exchanges() -> dict[str, list[tuple[Change, str]]]:
    found: dict[str, list[tuple[Change, str]]] = {}
    for change, text in _GROUPS:
        for group in text.split(","):
            for old in group.split():
                for new in group.split():
                    if old != new and (change, new) not in found.setdefault(old, []):
                        found[old].append((change, new))
    return found


EXCHANGES = _exchanges()
"""Token to (change, other token)."""


def alternatives(above: Above, tokens: Sequence[str], indent: int) -> list[Alternative]:
    """All lines one change away, each once, in a fixed order."""
    line = tuple(tokens)
    if not line:
        return []
    found: dict[tuple[tuple[str, ...], int], Alternative] = {}
    for change, changed in (*_inside(above, line), *_returns(line)):
        if changed and changed != line:
            found.setdefault((changed, indent), Alternative(change=change, tokens=changed, indent=indent))
    if above.previous[-1:] != [":"]:
        for other in sorted(set(above.indents)):
            if 0 < other != indent and abs(other - indent) <= 8:
                found[line, other] = Alternative(change="indentation", tokens=line, indent=other)
    return list(found.values())


def _inside(above: Above, line: tuple[str, ...]) -> Iterator[tuple[Change, tuple[str, ...]]]:
    """Changes at one token."""
    if line[0] in ("def", "import", "from"):
        return
    recent = above.variables[-_VARIABLES:]
    names = [*recent, *(name for name in numbered(line) if name not in recent)]
    for i in range(len(line)):
        for change, width, new in (
            *_exchanged(line, i),
            *_renamed(line, i, names),
            *_valued(line, i),
            *_moved(line, i),
        ):
            yield change, (*line[:i], *new, *line[i + width :])


Replacement = tuple[Change, int, tuple[str, ...]]
"""(change, how many tokens go, what comes)"""


def _around(line: Sequence[str], i: int) -> tuple[str, str]:
    """(token before, token behind), `^` and `$` at the ends."""
    return line[i - 1] if i else "^", line[i + 1] if i + 1 < len(line) else "$"


def _is_sign(before: str) -> bool:
    """A `+` or `-` behind this token belongs to one operand."""
    return before in ("(", ",", "=", "[", ":", "return", "^")


def _exchanged(line: tuple[str, ...], i: int) -> Iterator[Replacement]:
    token, (before, behind) = line[i], _around(line, i)
    if token == "-" and _is_sign(before):
        yield "minus", 1, ()
    elif not (token in ("if", "while") and i):
        yield from ((change, 1, (new,)) for change, new in EXCHANGES.get(token, ()))
    if token == "not":
        yield "not", 1, ()
    elif token in ("if", "while") and behind != "not":
        yield "not", 1, (token, "not")
    elif token == "in" and "for" not in line[:i]:
        yield "comparison", 1, ("not", "in")
    elif token == "is":
        yield ("comparison", 2, ("is",)) if behind == "not" else ("comparison", 1, ("is", "not"))
    if token in EXCHANGES and is_name(token) and behind == "(" and line[i + 3 : i + 4] == (")",):
        yield "dropped-call", 4, (line[i + 2],)


def _renamed(line: tuple[str, ...], i: int, names: Sequence[str]) -> Iterator[Replacement]:
    token, (before, behind) = line[i], _around(line, i)
    if not is_variable(token) or before == "." or behind == "(":
        return
    bound = (before == "^" and behind == "=") or (line[0] == "for" and "in" in line[i:] and "in" not in line[:i])
    if not bound:
        yield from (("variable", 1, (name,)) for name in names if name != token)


def _valued(line: tuple[str, ...], i: int) -> Iterator[Replacement]:
    token, (before, _) = line[i], _around(line, i)
    whole = before == "=" and i == 2 and len(line) == 3
    if token.isdecimal():
        value = int(token) if len(token) < 7 else 0
        change: Change = "start" if whole else "number"
        for other in dict.fromkeys((value + 1, abs(value - 1), 0)):
            yield change, 1, (str(other),)
        if not (before == "-" and _is_sign(_around(line, i - 1)[0])):
            yield change, 1, ("-", token)
    elif is_quoted(token):
        yield ("start" if whole else "text"), 1, ("' '" if len(token) == 2 else "''",)


def _moved(line: tuple[str, ...], i: int) -> Iterator[Replacement]:
    token, (before, behind) = line[i], _around(line, i)
    if token in ("+", "-") and behind == "1" and i and _around(line, i + 1)[1] in (")", ",", "]", ":", "$"):
        yield "off-by-one", 2, ()
    ends = behind in (")", "]", ":", ",") and not (behind == ":" and line[0] == "for")
    if i and ends and before not in ("+", "-") and (is_name(token) or token in (")", "]")):
        yield "off-by-one", 1, (token, "+", "1")
        yield "off-by-one", 1, (token, "-", "1")
    if token == "(" and before == "range":
        yield "off-by-one", 1, ("(", "1", ",")
    if behind == "," and i + 2 < len(line) and line[i + 2] != token and all(map(_is_plain, (token, line[i + 2]))):
        yield "arguments", 3, (line[i + 2], ",", token)


def _is_plain(token: str) -> bool:
    return is_name(token) or token.isdecimal()


def _returns(line: tuple[str, ...]) -> Iterator[tuple[Change, tuple[str, ...]]]:
    """A value returned or not, and another one."""
    if line[0] == "return":
        yield "return", line[1:]
        if len(line) == 2 and is_variable(line[1]):
            yield "returned", (*line, "+", "1")
            yield "returned", ("return", "not", line[1])
        if len(line) > 4 and line[-2:] == ("+", "1"):
            yield "returned", line[:-2]
    elif line[0] not in KEYWORDS and not any(token == "." or token.endswith("=") for token in line):
        yield "return", ("return", *line)
