"""Limits that are larger than usual, and tests that cannot be given to a program: the program is never to blame."""

from __future__ import annotations

import time

import pytest
from execution_world import HONEST, squares

from psgpo.errors import UserError
from psgpo.execution import Sandbox, encoding
from psgpo.records import AssertTests, Call, CallTests, Status, StdioCase, StdioTests

LARGE = "def f(n):\n    block = bytearray(n << 20)\n    return len(block) >> 20"


def test_a_program_may_be_given_more_memory_than_the_tester_has() -> None:
    tests = CallTests(function="f", calls=(Call(args=(1100,), expected=1100),))
    with Sandbox(memory_mb=4096, timeout=60) as sandbox:
        assert sandbox.grade([(LARGE, tests)])[0].status is Status.PASSED
    with Sandbox(memory_mb=512, timeout=60) as sandbox:
        assert sandbox.grade([(LARGE, tests)])[0].status is Status.MEMORY


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (StdioTests(cases=(StdioCase(stdin="\ud800", expected=""),)), "case 0: stdin and expected must be texts"),
        (StdioTests(cases=(StdioCase(stdin=3, expected=""),)), "case 0: stdin and expected must be texts"),  # type: ignore[arg-type]
        (StdioTests(cases=(StdioCase(stdin="x" * 5000, expected=""),)), "take more than 0 MiB"),
        (AssertTests(entry_point="f.g", checks=("assert f.g(1)",)), "'f.g' is not the name"),
        (AssertTests(entry_point="f", objects=("1",), checks=("assert f(1)",)), "'1' is not the name"),
        (CallTests(function=3, calls=(Call(args=(), expected=1),)), "3 is not the name"),  # type: ignore[arg-type]
        (CallTests(function="a..b", calls=(Call(args=(), expected=1),)), "'' is not the name"),
    ],
)
def test_tests_that_cannot_be_run_are_the_callers_mistake(
    tests: StdioTests | AssertTests | CallTests, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "STDIO_BYTES", 4096)
    with Sandbox() as sandbox:
        with pytest.raises(UserError, match=message):
            sandbox.grade([(HONEST, tests)])
        assert sandbox.grade([(HONEST, squares())])[0].passed


def test_a_large_job_is_never_sent_ahead_of_its_turn() -> None:
    """Nor behind a cancelled one: nobody would read it, the sender would wait, and the running program would pay."""
    slow = "import time\ndef f(x):\n    time.sleep(0.8)\n    return 'sq:%d' % (x * x)"
    large = CallTests(function="f", calls=(Call(args=("x" * (20 << 20),), expected=0),))
    with Sandbox(timeout=20) as sandbox:
        slot = sandbox._dispatcher._pool._slots[0]
        first = sandbox.submit(slow, squares(5))
        time.sleep(0.5)
        sandbox.submit(f"{HONEST}  # cancelled", squares()).cancel()
        behind = sandbox.submit("def f(x): return 0", large)
        rest = [sandbox.submit(f"{HONEST}  # {number}", squares()) for number in range(40)]
        assert first.result().passed
        assert behind.result().passed
        assert all(future.result().passed for future in rest)
        assert sandbox._dispatcher._pool._slots[0] is slot  # which was never killed


def test_nan_is_not_allowed_by_a_word_that_contains_it() -> None:
    program = "def f(x): return float('nan')"
    strict = AssertTests(entry_point="f", checks=("assert not f('banana') < 3",))
    lenient = AssertTests(entry_point="f", checks=("import math\nassert math.isnan(f(1))",))
    with Sandbox() as sandbox:
        refused, allowed = sandbox.grade([(program, strict), (program, lenient)])
    assert refused.status is Status.BAD_VALUE
    assert allowed.status is Status.PASSED
