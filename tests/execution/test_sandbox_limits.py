"""Limits that are larger than usual, and tests that cannot be given to a program: the program is never to blame."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


DEEP = """import sys
sys.setrecursionlimit(10**6)
class Call:
    def __call__(self, n): return 0 if n == 0 else 1 + self(n - 1)
def f(n): return Call()(n)
"""
"""Python 3.11 takes C stack for such calls: half a kilobyte each, or more."""
THREADS = """import threading, time
def f(n):
    threads = [threading.Thread(target=time.sleep, args=(0.05,)) for _ in range(n)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return n
"""
RAISES = """import resource
def f(n):
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 27, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    return n
"""


@contextmanager
def stack_limit(soft: int) -> Iterator[None]:
    """`ulimit -S -s` of this process, the owner."""
    before = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, before)


def returned(n: int) -> CallTests:
    return CallTests(function="f", calls=(Call(args=(n,), expected=n),))


@pytest.mark.parametrize("backend", ["c", "python"])
@pytest.mark.parametrize("megabytes", [4, 64])
def test_the_owners_stack_limit_decides_no_verdict(
    megabytes: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if resource.getrlimit(resource.RLIMIT_STACK)[1] != resource.RLIM_INFINITY:
        pytest.skip("the hard limit of the stack is not unlimited; run where `ulimit -H -s` says unlimited")
    monkeypatch.setenv("PSGPO_SANDBOX_BACKEND", backend)
    items = [(DEEP, returned(40_000)), (DEEP, returned(200_000)), (THREADS, returned(10)), (RAISES, returned(1))]
    with stack_limit(megabytes << 20), Sandbox(timeout=30) as sandbox:
        verdicts = sandbox.grade(items)
    assert [verdict.status for verdict in verdicts] == [Status.PASSED, Status.CRASHED, Status.PASSED, Status.PASSED]


def test_the_stack_is_part_of_the_memory() -> None:
    with Sandbox(memory_mb=64, timeout=30) as sandbox:
        verdicts = sandbox.grade([(DEEP, returned(5000)), (DEEP, returned(60_000)), (LARGE, returned(64))])
    assert [verdict.status for verdict in verdicts] == [Status.PASSED, Status.CRASHED, Status.MEMORY]


def test_another_hard_limit_of_the_stack_is_another_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = []
    for hard in (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 32 << 20):
        monkeypatch.setattr("psgpo.execution.stack._hard", lambda hard=hard: hard)
        with Sandbox(cache=tmp_path / "c.sqlite") as sandbox:
            cached.append(sandbox.grade([(HONEST, squares())])[0].cached)
    assert cached == [False, True, False]


def test_room_for_output_is_counted_in_bytes() -> None:
    text = "\U0001f600" * 600_000  # 2.4 MB; twice its characters and a spare MiB are 2.2 MB
    with Sandbox(timeout=30) as sandbox:
        verdict = sandbox.grade(
            [(f"print({text[0]!r} * {len(text)})", StdioTests(cases=(StdioCase(stdin="", expected=text),)))]
        )
    assert verdict[0].passed, verdict[0].detail
