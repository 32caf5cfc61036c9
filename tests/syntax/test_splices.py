"""Splices and repairs: that the right program is among the first, that what only starts over is not there."""

from __future__ import annotations

import ast
import itertools
import textwrap

import pytest

from psgpo.records import Status, Verdict
from psgpo.syntax import (
    Donor,
    Patient,
    Receiver,
    decided,
    open_ended,
    parse_prefix,
    repairs,
    splices,
    uses_prefix,
    without_blocks,
)


def code(text: str) -> str:
    return textwrap.dedent(text).strip() + "\n"


def run(program: str, *args: object) -> object:
    """Runs a program written here."""
    scope: dict[str, object] = {}
    exec(compile(program, "<test>", "exec"), scope)
    try:
        return scope["f"](*args)  # type: ignore[operator]
    except (ArithmeticError, LookupError, NameError, TypeError, ValueError) as error:
        return error


def spliced(failed: str, line: int, *donors: str, count: int = 20) -> list[str]:
    lines = code(failed).splitlines()
    prefix = parse_prefix(lines[:line])
    assert prefix is not None
    receiver = Receiver.of(lines, roots=["f"])
    pool = [donor for text in donors if (donor := Donor.of(code(text))) is not None]
    found = [splice.program for splice in itertools.islice(splices(prefix, receiver, pool), count)]
    assert all(program.startswith(prefix.text) for program in found)
    assert len(set(found)) == len(found)
    return found


def mended(failed: str, line: int, *donors: str) -> list[tuple[str, bool]]:
    lines = code(failed).splitlines()
    prefix, patient = parse_prefix(lines[:line]), Patient.of(lines)
    assert prefix is not None
    assert patient is not None
    receiver = Receiver.of(lines, roots=["f"])
    pool = [donor for text in donors if (donor := Donor.of(code(text))) is not None]
    return [(repair.program, repair.confined) for repair in repairs(prefix, patient, receiver, pool)]


SUM = """
    def f(xs):
        total = 0
        for x in xs:
            if x > 0:
                total += x
        return total
"""


def test_names_are_matched_by_what_they_do() -> None:
    failed = """
        def f(values):
            answer = 0
            for value in values:
                if value > 0:
                    answer -= value
            return answer
    """
    first = spliced(failed, 4, SUM)[0]
    assert run(first, [1, -2, 3]) == 4
    assert "answer += value" in first


def test_names_that_clash_are_renamed() -> None:
    donor = """
        def f(a, b):
            t = a * 2
            a = b + 1
            return t * a
    """
    failed = """
        def f(a, b):
            a2 = a * 2
            t = b - 1
            return a2 * t
    """
    assert any(run(program, 3, 4) == 30 for program in spliced(failed, 2, donor))


def test_other_indentation_and_open_blocks() -> None:
    failed = """
        def f(xs):
          total = 0
          for x in xs:
            if x > 0:
              total = x
          return total
    """
    for line in range(2, 5):
        assert run(spliced(failed, line, SUM)[0], [1, -2, 3]) == 4


def test_an_unfinished_else() -> None:
    donor = """
        def f(n):
            if n % 2 == 0:
                return 'even'
            else:
                return 'odd'
    """
    failed = """
        def f(n):
            if n % 2 == 0:
                return 'even'
            else:
                return 'even'
    """
    for line in (2, 3, 4):
        assert [run(spliced(failed, line, donor)[0], n) for n in (2, 3)] == ["even", "odd"]


def test_elif_continues_a_chain() -> None:
    donor = """
        def f(n):
            if n > 9:
                r = 'c'
            elif n > 4:
                r = 'b'
            else:
                r = 'a'
            return r
    """
    failed = """
        def f(n):
            if n > 9:
                r = 'c'
            else:
                r = 'a'
            return r
    """
    assert [run(spliced(failed, 3, donor)[0], n) for n in (10, 5, 1)] == ["c", "b", "a"]


def test_helpers_and_imports_come_along() -> None:
    donor = """
        import math
        def root(n):
            return math.isqrt(n)
        def f(n):
            k = root(n)
            return k * math.floor(1.5)
    """
    failed = """
        def f(n):
            k = n // 2
            return k
    """
    programs = spliced(failed, 1, donor)
    assert run(programs[0], 17) == 4
    ast.parse(programs[0])


def test_starting_over_is_no_completion() -> None:
    failed = """
        def f(xs):
            total = 1
            for x in xs:
                total *= x + 7
            return total
    """
    restarts = [program for program in spliced(failed, 4, SUM, count=100) if "\n    total" in program.split("7\n")[1]]
    assert not restarts, restarts[0]
    assert spliced(failed, 2, SUM), "a first value may be given again"


def test_a_second_definition_is_no_completion() -> None:
    receiver = Receiver.of(["def f(x):", "    return x"], roots=["f"])
    assert not uses_prefix("def f(x):\n    return x\ndef f(x):\n    return 2\n", 2, receiver)
    assert uses_prefix("def f(x):\n    return x\n", 2, receiver)


def test_a_loop_done_again_in_place_is_found() -> None:
    lines = ["def f(xs):", "    d = {}", "    for x in xs:", "        d[x] = 1"]
    prefix = parse_prefix(lines)
    assert prefix is not None
    program = prefix.text + "    for x in xs:\n        d[x] = 2\n    return d\n"
    receiver = Receiver.of([*lines, "    return d"], roots=["f"])
    (reduced,) = without_blocks(program, prefix, receiver)
    assert run(reduced, [1, 2]) == {1: 2, 2: 2}


def test_repairs_change_one_statement() -> None:
    failed = """
        def f(xs):
            total = 0
            for x in xs:
                if x >= 1:
                    total -= x
            return total
    """
    right = [(program, confined) for program, confined in mended(failed, 4, SUM) if run(program, [1, -2, 3]) == 4]
    assert right
    assert any(confined for _, confined in right)
    headers = [p for p, confined in mended(failed.replace("-=", "+=").replace(">=", "<"), 3, SUM) if confined]
    assert any(run(program, [1, -2, 3]) == 4 for program in headers)


def test_everything_is_deterministic() -> None:
    failed = "def f(xs):\n    n = 0\n    for x in xs:\n        n += 2\n    return n\n"
    assert spliced(failed, 2, SUM) == spliced(failed, 2, SUM)
    assert mended(failed, 2, SUM) == mended(failed, 2, SUM)


def _outcome(program: str, *args: object) -> Status:
    try:
        return Status.PASSED if run(program, *args) == 0 else Status.WRONG_ANSWER
    except MemoryError:
        return Status.MEMORY


def test_marks_tell_what_a_prefix_decides() -> None:
    lines = code("""
        def f(n):
            if n < 0:
                return 5
            return g(n)
    """).splitlines()

    def outcome(count: int, n: int) -> Status:
        prefix = parse_prefix(lines[:count])
        assert prefix is not None
        marked = open_ended(prefix, roots=["f"])
        assert marked is not None
        return _outcome(marked, n)

    assert [outcome(count, -1) for count in (1, 2, 3, 4)] == [Status.MEMORY] * 2 + [Status.WRONG_ANSWER] * 2
    assert outcome(3, 1) is Status.MEMORY
    assert outcome(4, 1) is Status.MEMORY, "g may be defined later"


def test_no_mark_where_a_proof_could_be_wrong() -> None:
    for body in ("    try:\n        x()", "    return LIST[n]"):
        prefix = parse_prefix(f"def f(n):\n{body}".splitlines())
        assert prefix is not None
        assert open_ended(prefix, roots=["f"]) is None


@pytest.mark.parametrize(
    "above",
    [
        "memo = {}\ndef f(n):\n    return memo[n]",
        "seen: list = []\ndef f(n):\n    return seen[n]",
        "total = 0\ntotal += 1\ndef f(n):\n    return total",
        "a, b = 1, 2\ndef f(n):\n    return a",
        "count = 0\ndef f(n):\n    global count\n    return count",
        "def f(n, memo={}):\n    return memo[n]",
        "f = lambda n, memo=[]: memo[n]\ndef g(n):\n    return 1",
        "def table():\n    return {}\nrow = table()\ndef f(n):\n    return row[n]",
        "def count(g):\n    return g\n@count\ndef f(n):\n    return 1",
        "def f(n):\n    return f.memo[n]",
        "if True:\n    base = 3\ndef f(n):\n    return base",
    ],
)
def test_nothing_is_proved_of_what_later_statements_may_change(above: str) -> None:
    prefix = parse_prefix(above.splitlines())
    assert prefix is not None
    assert open_ended(prefix, roots=["f"]) is None


@pytest.mark.parametrize(
    "above",
    [
        "import math\ndef f(n):\n    return math.sqrt(n)",
        'MOD, = 7,\nBASE = 10**9 + 7\nALIAS = BASE\nFAR = float("inf")\ndef f(n):\n    return BASE + ALIAS + FAR',
        "VOWELS: tuple = ('a', ('e', -1))\nmemo = {}\ndef f(n, key=len, start=0):\n    return VOWELS[n]",
        "from functools import cache\n@cache\ndef g(n):\n    return n\nf = lambda n: g(n)",
        "def f(n):\n    memo = {}\n    def g(k):\n        return memo[k]\n    return g(n)",
    ],
)
def test_a_proof_may_rest_on_what_nothing_changes(above: str) -> None:
    prefix = parse_prefix(above.splitlines())
    assert prefix is not None
    assert open_ended(prefix, roots=["f"]) is not None


def test_decided_reads_every_outcome() -> None:
    def verdict(*outcomes: Status) -> Verdict:
        return Verdict(status=outcomes[0], tests_passed=0, tests_total=len(outcomes), outcomes=outcomes)

    assert decided(verdict(Status.MEMORY, Status.WRONG_ANSWER))
    assert not decided(verdict(Status.MEMORY, Status.PASSED))
