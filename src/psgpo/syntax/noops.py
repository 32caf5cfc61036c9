"""Lines that do nothing, told by their text alone: what a policy pads with when more lines pay.

`unused_lines` knows more, but parses and follows the data; this reads any text, cut off anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from psgpo.lines import CodeLine

_STANDS_STILL = re.compile(r"(?:pass|\.\.\.|[A-Za-z_]\w*|\d[\d_.]*|([A-Za-z_]\w*) *= *\1) *(?:;|#.*)?$")
"""`pass`, an ellipsis, a name or a number alone, an assignment of a name to itself."""
_LEAVES = frozenset({"break", "continue", "return", "raise", "yield"})
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*) *= *([^=(].*)$")


def noop_lines(lines: Sequence[CodeLine]) -> list[bool]:
    """Per line, whether it does nothing: `pass`, `x`, `x = x`, or the same assignment as the code line before it.

    Neutral lines are none, nor are lines inside brackets. A repeated assignment counts when it has no call and does not
    read its own name.
    """
    found, before, depth = list[bool](), "", 0
    for line in lines:
        if line.neutral:
            found.append(False)
            continue
        text = line.text.rstrip()
        statement = text.lstrip()
        found.append(not depth and (_stands_still(statement) or (text == before and _settles(statement))))
        depth = max(0, depth + sum(map(text.count, "([{")) - sum(map(text.count, ")]}")))
        before = text
    return found


def _stands_still(statement: str) -> bool:
    match = _STANDS_STILL.match(statement)
    return match is not None and statement.split("#")[0].rstrip(" ;") not in _LEAVES


def _settles(statement: str) -> bool:
    """Whether doing it twice is doing it once."""
    match = _ASSIGNMENT.match(statement)
    return match is not None and "(" not in match[2] and not re.search(rf"\b{match[1]}\b", match[2])
