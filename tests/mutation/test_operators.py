"""Every operator on a program written for it: exactly these programs come out, and nothing else of the text changes."""

from __future__ import annotations

import ast
from itertools import pairwise

import pytest
from mutation_world import COUNT, LARGEST, body, changes

from psgpo.mutation.catalogue import Catalogue, candidates_of
from psgpo.mutation.operators.registry import OPERATORS
from psgpo.mutation.program import Program

CASES: dict[str, tuple[list[str], list[list[str]]]] = {
    # operator: (lines of f(a, b), the lines after each change)
    "arithmetic-operator": (["return a - (b)"], [["return a + (b)"]]),
    "augmented-operator": (["a -= b"], [["a += b"], ["a = b"]]),
    "comparison-operator": (["return a<b"], [["return a<=b"], ["return a>b"]]),
    "logical-operator": (["return a and b"], [["return a or b"]]),
    "negated-condition": (["while a < b:", "    a += 1"], [["while not (a < b):", "    a += 1"]]),
    "dropped-condition": (["return a and b"], [["return a"], ["return b"]]),
    "range-bound": (["x = range(a)"], [["x = range(a - 1)"], ["x = range(a + 1)"], ["x = range(1, a)"]]),
    "slice-bound": (["return a[:b]"], [["return a[:b - 1]"], ["return a[:b + 1]"]]),
    "index": (["return a[b - 1]"], [["return a[b]"]]),
    "length": (["return len(a)"], [["return (len(a) - 1)"]]),
    "compared-value": (["return a < 3"], [["return a < 4"], ["return a < 2"]]),
    "number": (["return a + 7"], [["return a + 8"], ["return a + 6"]]),
    "truth-value": (["f(a, True)"], [["f(a, False)"]]),
    "text": (["f('x-y')"], [["f('x-')"], ["f('X-Y')"]]),
    "wrong-variable": (["c = b"], [["c = a"]]),
    "wrong-call": (["return max(a)"], [["return min(a)"]]),
    "dropped-call": (["return abs(a - b)"], [["return (a - b)"]]),
    "swapped-arguments": (["return g(a, b)"], [["return g(b, a)"]]),
    "dropped-keyword": (["sorted(a, key=b, reverse=True)"], [["sorted(a, reverse=True)"], ["sorted(a, key=b)"]]),
    "dropped-minus": (["return -a"], [["return a"]]),
    "swapped-indices": (["return g[a][b]"], [["return g[b][a]"]]),
    "dropped-statement": (["c = a", "c = c + b", "return c"], [["c = c + b", "return c"], ["c = a", "return c"]]),
    "dropped-guard": (["if a < 2:", "    return 1", "return b"], [["return b"]]),
    "dropped-else": (
        ["if a:", "    c = 1", "else:", "    c = 2", "return c"],
        [["if a:", "    c = 1", "return c"]],
    ),
    "swapped-statements": (["c = a", "d = c", "e = b"], [["d = c", "c = a", "e = b"]]),
    "into-block": (
        ["for c in a:", "    b += c", "return b"],
        [["for c in a:", "    b += c", "    return b"]],
    ),
    "out-of-block": (
        ["for c in a:", "    c += 1", "    b += c", "return b"],
        [["for c in a:", "    c += 1", "b += c", "return b"]],
    ),
    "wrong-jump": (["for c in a:", "    break"], [["for c in a:", "    continue"]]),
    "if-for-elif": (
        ["if a:", "    b = 1", "elif b:", "    b = 2"],
        [["if a:", "    b = 1", "if b:", "    b = 2"]],
    ),
    "while-for-if": (["while a:", "    a -= 1"], [["if a:", "    a -= 1"]]),
    "initialisation": (["c = 0", "d = []"], [["c = 1", "d = []"], ["c = -1", "d = []"], ["c = 0", "d = [0]"]]),
    "returned-value": (["return a, b"], [["return b, a"]]),
    "forgotten-return": (["return a + b"], [["a + b"]]),
    "swap-operands": (["return a * b"], [["return b * a"]]),
    "flip-comparison": (["return a <= b"], [["return b >= a"]]),
    "negate-comparison": (["if a < b:", "    b = a"], [["if not a >= b:", "    b = a"]]),
    "shift-bound": (["return a > 3"], [["return a >= 4"]]),
    "de-morgan": (["if a and b < 2:", "    b = a"], [["if not (not a or b >= 2):", "    b = a"]]),
    "chain-comparison": (["return 0 < a and a < b"], [["return 0 < a < b"]]),
    "swap-conditional": (["return a if b else 1"], [["return 1 if not b else a"]]),
    "parentheses": (["return a + b"], [["return (a + b)"]]),
    "explicit-range": (["range(a)", "range(0, b)"], [["range(0, a)", "range(0, b)"], ["range(a)", "range(b)"]]),
    "literal-form": (["c = []", "d = dict()"], [["c = list()", "d = dict()"], ["c = []", "d = {}"]]),
    "power-form": (["return a ** 2"], [["return (a * a)"]]),
    "parity-form": (["if a % 2 == 0:", "    a = b"], [["if not (a % 2):", "    a = b"]]),
    "text-form": (['return f"{a}-{b}"'], [["return '{}-{}'.format(a, b)"]]),
    "negative-index": (["return a[-1]"], [["return a[len(a) - 1]"]]),
    "plain-assignment": (["a -= b + 1"], [["a = a - (b + 1)"]]),
    "augmented-assignment": (["a = a - (b + 1)"], [["a -= b + 1"]]),
    "invert-if": (
        ["if a < b:", "    return a", "else:", "    return b"],
        [["if a >= b:", "    return b", "else:", "    return a"]],
    ),
    "else-after-return": (
        ["if a < b:", "    return a", "else:", "    c = b", "    return c"],
        [["if a < b:", "    return a", "c = b", "return c"]],
    ),
    "conditional-to-if": (
        ["return a if b else 1"],
        [["if b:", "    return a", "else:", "    return 1"]],
    ),
    "if-to-conditional": (["if a:", "    c = 1", "else:", "    c = 2"], [["c = 1 if a else 2"]]),
    "elif-to-else-if": (
        ["if a:", "    b = 1", "elif b:", "    b = 2", "else:", "    b = 3"],
        [["if a:", "    b = 1", "else:", "    if b:", "        b = 2", "    else:", "        b = 3"]],
    ),
    "name-result": (["return a + b"], [["result = a + b", "return result"]]),
    "inline-result": (["c = a + b", "return c"], [["return a + b"]]),
    "name-condition": (["if a < b:", "    b = a"], [["condition = a < b", "if condition:", "    b = a"]]),
    "rename-local": (["c = a", "c += b", "return c"], [["char = a", "char += b", "return char"]]),
    "loop-to-comprehension": (
        ["c = []", "for x in a:", "    if x > b:", "        c.append(x + 1)"],
        [["c = [(x + 1) for x in a if (x > b)]"]],
    ),
    "comprehension-to-loop": (
        ["return [x + 1 for x in a if x > b]"],
        [["result = []", "for x in a:", "    if x > b:", "        result.append(x + 1)", "return result"]],
    ),
    "swap-independent": (["c = a", "d = b", "e = d"], [["d = b", "c = a", "e = d"]]),
    "for-to-while": (
        ["for i in range(a):", "    b += i", "return b"],
        [["i = 0", "while i < a:", "    b += i", "    i += 1", "return b"]],
    ),
}  # fmt: skip


def test_every_operator_has_a_case() -> None:
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_makes_exactly_these_programs(name: str) -> None:
    before, after = CASES[name]
    assert changes(name, body(*before)) == [body(*lines) for lines in after]


ODD = (
    "def f(a,  b):\t# tabs, odd spaces, ünïcode\n"
    "\tç = 'naïve ☃'  ;  d=a+b   \n"
    "\n"
    "\tif(a<b and\n"
    "\t   b>2):   # two lines\n"
    "\t\td  =  [ 1,2 , 3 ][0] ;\n"
    "\treturn   d+len( ç )\n"
)


@pytest.mark.parametrize(
    "code", [ODD, ODD.replace("\n", "\r\n"), LARGEST, COUNT], ids=["odd", "crlf", "largest", "count"]
)
def test_lines_that_no_edit_touches_stay_as_they_are(code: str) -> None:
    program = Program(code)
    seen = 0
    for operator in OPERATORS.values():
        for proposal in operator.propose(program):
            after = program.apply(proposal.edits)
            ordered = sorted(proposal.edits, key=lambda edit: edit.start)
            first, last = code.count("\n", 0, ordered[0].start), code.count("\n", 0, ordered[-1].end)
            old, new = code.split("\n"), after.split("\n")
            tail = len(old) - last - 1
            assert new[:first] == old[:first], operator.name
            assert tail == 0 or new[-tail:] == old[-tail:], operator.name
            gaps = [code[a.end : b.start] for a, b in pairwise(ordered)]
            assert all(gap in after for gap in gaps)
            seen += 1
    assert seen > 20


@pytest.mark.parametrize("code", [ODD, LARGEST, COUNT])
def test_what_comes_out_parses_and_differs(code: str) -> None:
    program = Program(code)
    for operator in OPERATORS.values():
        for candidate in candidates_of(operator, program):
            ast.parse(candidate.code)
            assert candidate.code != code
            assert 1 <= candidate.line <= len(program.lines)


def test_nothing_changes_in_docstrings_annotations_imports_and_given_lines() -> None:
    code = (
        "import math\n\n\ndef f(a: int = 3) -> list[int]:\n"
        '    """Adds 1 to a."""\n    given = a + 1\n    return [given * 2]\n'
    )
    program = Program(code, given_lines=6)
    for operator in OPERATORS.values():
        for proposal in operator.propose(program):
            after = program.apply(proposal.edits).split("\n")
            assert after[:6] == code.split("\n")[:6], operator.name


def test_dropping_and_swapping_leave_alone_what_the_next_line_does_not_need() -> None:
    independent = body("c = a", "d = b", "return c + d")
    assert changes("dropped-statement", independent) == [body("c = a", "return c + d")]
    assert changes("swapped-statements", independent) == []
    stores = body("a[0] = 1", "a[1] = 2", "return a")
    assert changes("swapped-statements", stores) == []
    attributes = body("a.x = 1", "a.y = 2", "return a.x")
    assert changes("dropped-statement", attributes) == []


def test_the_mutated_line_after_a_drop_is_the_one_that_came_too_early() -> None:
    code = body("c = a", "", "# then", "c = c + b", "return c")
    found = candidates_of(OPERATORS["dropped-statement"], Program(code))
    assert [(c.line, c.mutated_line, c.in_place) for c in found] == [(2, 4, False), (5, 5, False)]


def test_the_choice_follows_the_seed_and_spreads_over_kinds() -> None:
    from mutation_world import count_even

    task = count_even()
    program = Program(COUNT)

    def chosen(seed: int) -> list[str]:
        return [c.code for c in Catalogue(bugs_per_line=3, refactors_per_line=1).propose(task, program, seed=seed)]

    assert chosen(1) == chosen(1) != chosen(2)
    by_line: dict[int, list[str]] = {}
    for candidate in Catalogue(bugs_per_line=3, refactors_per_line=1).propose(task, program, seed=0):
        if candidate.family == "bug":
            by_line.setdefault(candidate.line, []).append(candidate.kind)
    assert max(map(len, by_line.values())) == 3
    assert len(set(by_line[4])) == 3  # `if number % 2 == 0:` offers more kinds than are wanted
