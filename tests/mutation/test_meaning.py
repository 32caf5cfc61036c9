"""Rewrites keep the meaning of programs that were made to trip them; bugs in odd places are what they say."""

from __future__ import annotations

import pytest
from mutation_world import body, changes

from psgpo.execution import Sandbox
from psgpo.mutation.candidates import changed_lines
from psgpo.mutation.catalogue import candidates_of
from psgpo.mutation.operators.registry import OPERATORS
from psgpo.mutation.program import Program

TRAPS: dict[str, tuple[str, list[tuple[object, ...]]]] = {
    # what the rewrite must not forget: (program, arguments)
    "or over two lines": (
        body("if not (a or", "   b) and not a > 5:", "    return 1", "return 2"),
        [(0, 0), (0, 1), (9, 0)],
    ),
    "or without spaces": (body("if not ((a)or(b)) and b < 3:", "    return 1", "return 2"), [(0, 0), (0, 9), (1, 0)]),
    "a walrus inside not": (body("if not (m := a) and b:", "    return m", "return m"), [(0, 0), (0, 1), (3, 1)]),
    "the value of not": (body("return not (not a and b)"), [(5, 0), (0, 0), (0, 1)]),
    "chains": (body("if a < b < 9 and b in (3, 4):", "    return 1", "return 1 < b and b < a"), [(1, 3), (9, 2)]),
    "a function that calls itself": (
        body("g = lambda n: 1 if n < 2 else n * g(n - 1)", "return g")
        + "def h(a, b):\n    c = f(a, b)(a)\n    return c\n",
        [(4, 0)],
    ),
    "a finally that looks": (
        body("try:", "    c = a", "    return c", "finally:", "    b.append(c)"),
        [(1, [])],
    ),
    "late lambdas": (
        body("g = []", "for i in range(a):", "    g.append(lambda: i)", "return [h() for h in g]"),
        [(3, 0)],
    ),
    "a list that grows": (
        body("for i in range(len(a)):", "    if i < 2:", "        a.append(i)", "return a"),
        [([1, 2, 3], 0)],
    ),
    "the variable after the loop": (body("for i in range(a):", "    b += 1", "return i + b"), [(3, 1)]),
    "a bound that acts": (
        body("for i in range(b.pop()):", "    a += i", "return a"),
        [(1, [2, 9, 3])],
    ),
    "a name taken by a loop": (body("x = b", "c = []", "for x in a:", "    c.append(x)", "return c, x"), [([1, 2], 9)]),
    "a name taken by a comprehension": (body("x = b", "c = [x for x in a]", "return c, x"), [([1, 2], 9)]),
    "a parameter taken by a comprehension": (body("c = [b for b in a]", "return c, b"), [([1, 2], 9)]),
    "yields in order": (
        body("def g():", "    x = yield 1", "    y = yield 2", "    z = x", "return list(g())"),
        [(1, 2)],
    ),
    "a default of the same name": ("x = 3\ndef f(a, b=x):\n    x = a\n    return x + b\n", [(1,)]),
    "captured names": (
        body("match a:", "    case [x, y]:", "        x = x + y", "        return x", "return b"),
        [([1, 2], 3), (4, 5)],
    ),
    "builtins hidden": (
        body("len, list, str = 3, [a], b", "d = []", "return d + list, list[-1] + len, str"),
        [(1, 2)],
    ),
    "closures and nonlocal": (
        body("c = 0", "def g(n):", "    nonlocal c", "    c += n", "    return c", "d = g(a)", "return d + c"),
        [(1, 2)],
    ),
    "generators, stars and decorators": (
        "import functools\n\n\n@functools.cache\ndef g(n, *rest, k=2):\n    return n * k if rest else -n\n\n\n"
        "def f(a, b):\n    total = 0\n    for x, *_ in ((y, y) for y in range(a)):\n"
        "        total += g(x, b, k=3) - g(x)\n"
        "    else:\n        total = total + 1\n    return total\n",
        [(4, 1), (0, 2)],
    ),
    "coroutines": (
        "import asyncio\n\n\nasync def g(n):\n    await asyncio.sleep(0)\n    if n > 2:\n        return n + 1\n"
        "    else:\n        return [x async for x in h(n)]\n\n\n"
        "async def h(n):\n    for i in range(n):\n        yield i\n\n\n"
        "def f(a, b):\n    return asyncio.run(g(a)), asyncio.run(g(b))\n",
        [(1, 5)],
    ),
    "f-strings, braces and formats": (
        body("c = f'{{{a}}}-{b!r}-{a:>3}-{a + 1}'", "return c, f'{a}{b}', '%s' % b, str(a)"),
        [(1, "x")],
    ),
    "slices and negative places": (
        body("a[-1] += 2", "c = a[:2] + a[0:1]", "del a[-1]", "return a, c, -b ** 2, 2 * -b"),
        [([1, 2, 3], 3)],
    ),
    "tabs, carriage returns and other letters": (
        "def f(a, b):\r\n\tñ = '\u2028☃' ; ö = a\r\n\tif(ö>2):\r\n\t\treturn ñ\r\n\telse:\r\n\t\tc = b\r\n\t\treturn c",
        [(1, 5), (3, 5)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_rewrites_keep_the_meaning(name: str, sandbox: Sandbox) -> None:
    code, arguments = TRAPS[name]
    function = "h" if "def h(a" in code else "f"
    program = Program(code)
    found = [c for o in OPERATORS.values() if o.family == "refactor" for c in candidates_of(o, program)]
    expected, *answers = sandbox.evaluate_many(
        [(text, function, arguments) for text in (code, *(c.code for c in found))]
    )
    assert all(outcome.error is None for outcome in expected)
    for candidate, outcomes in zip(found, answers, strict=True):
        same = [(o.error, repr(o.value)) for o in outcomes] == [(o.error, repr(o.value)) for o in expected]
        assert same, f"{candidate.operator}:\n{candidate.code}"


def test_a_wrong_value_is_one_off_whatever_binds_how() -> None:
    assert changes("compared-value", body("return a < (b or 5) - 1")) == [body("return a < (b or 5)")]
    assert changes("compared-value", body("return a < b << 2")) == [
        body("return a < (b << 2) - 1"),
        body("return a < (b << 2) + 1"),
    ]
    assert changes("index", body("return a[-1]")) == [body("return a[0]"), body("return a[-2]")]
    assert changes("range-bound", body("range(a * b - 1)")) == [body("range(a * b)"), body("range(1, a * b - 1)")]


def test_a_wrong_variable_is_one_that_exists_there() -> None:
    code = body("def g():", "    inner = a", "    return inner", "c = b", "return g() + c")
    after = changes("wrong-variable", code)
    assert body("def g():", "    inner = a", "    return inner", "c = a", "return g() + c") in after
    assert not any(text.count("inner") > 2 for text in after)


def test_a_forgotten_return_leaves_a_line_that_says_something() -> None:
    assert changes("forgotten-return", body("if a:", "    return 'yes'", "return b")) == [
        body("if a:", "    return 'yes'", "b")
    ]
    commented = changed_lines(body("c = a", "c += b", "return c"), body("c = a", "# c += b", "return c"))
    assert commented is not None
    assert (commented.first, commented.in_place) == (4, False)


def test_a_guard_is_dropped_only_before_a_line_that_leaves() -> None:
    assert changes("dropped-guard", body("if a:", "    return 1", "for c in b:", "    a += c", "return a")) == []


@pytest.mark.parametrize("operator", ["swapped-statements", "invert-if", "name-result", "comprehension-to-loop"])
def test_lines_end_alike(operator: str) -> None:
    code = body("c = a", "d = c + 1", "if d:", "    e = d", "else:", "    e = c", "return [e for d in a]")
    code = code.replace("\n", "\r\n").removesuffix("\r\n")
    for after in changes(operator, code):
        assert after.count("\r") == after.count("\n") == after.count("\r\n")
    last = body("c = a", "d = c").replace("\n", "\r\n").removesuffix("\r\n")
    assert changes("swapped-statements", last) == ["def f(a, b):\r\n    d = c\r\n    c = a"]
