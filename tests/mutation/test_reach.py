"""Lines that tests execute, for every kind of tests."""

from __future__ import annotations

from psgpo.execution import Sandbox
from psgpo.mutation.program import Program
from psgpo.mutation.reach import is_reached, reached_lines
from psgpo.records import AssertTests, Call, CallTests, StdioCase, StdioTests

CODE = """\
import math
def f(n):
    if n < 0:
        return -1
    table = [
        1,
        2,
    ]
    for i in range(n):
        if i > 100:
            n += 1
    g = lambda: 7
    return n
"""


def test_calls_and_asserts_give_the_same_lines(sandbox: Sandbox) -> None:
    calls = CallTests(function="f", calls=(Call(args=(3,), expected=3),))
    asserts = AssertTests(entry_point="f", setup="three = 3", checks=("assert f(three) == 4", "assert f('x') == 1"))
    program = Program(CODE)
    first, second = reached_lines([(program, [calls]), (program, [asserts])], sandbox)
    assert first is not None
    assert first == second
    assert {1, 2, 3, 9, 10, 13} <= first
    assert not first & {4, 11}
    assert not is_reached(program, 4, first)
    assert is_reached(program, 7, first)  # inside a list that is built on line 5
    more = AssertTests(entry_point="f", checks=("assert f(-1) == -1",))
    (union,) = reached_lines([(program, [calls, more])], sandbox)
    assert union is not None
    assert 4 in union


def test_methods_and_scripts(sandbox: Sandbox) -> None:
    method = Program("class Solution:\n    def f(self, n):\n        if n:\n            return 1\n        return 0\n")
    calls = CallTests(function="Solution.f", calls=(Call(args=(1,), expected=1),))
    script = Program(
        "n = int(input())\nif n:\n    print(1)\nelse:\n    print(0)\nif __name__ == '__main__':\n    n = 2\n"
    )
    cases = StdioTests(cases=(StdioCase(stdin="0\n", expected="0"),))
    by_call, by_script = reached_lines([(method, [calls]), (script, [cases])], sandbox)
    assert by_call is not None
    assert by_script is not None
    assert {3, 4} <= by_call
    assert 5 not in by_call
    assert {1, 2, 5, 7} <= by_script
    assert 3 not in by_script


def test_a_program_that_says_nothing_has_no_trace(sandbox: Sandbox) -> None:
    endless = Program("def f(n):\n    while True:\n        n += 1\n")
    leaving = Program("import os\ndef f(n):\n    os._exit(0)\n")
    calls = CallTests(function="f", calls=(Call(args=(1,), expected=1),))
    assert reached_lines([(endless, [calls]), (leaving, [calls])], sandbox) == [None, None]
    assert reached_lines([], sandbox) == []
