"""Whole programs that read standard input and write standard output."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.records import Status, StdioCase, StdioTests, Verdict


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout=3.0, memory_mb=256) as running:
        yield running


def cases(*pairs: tuple[str, str], comparator: str = "lines") -> StdioTests:
    return StdioTests(cases=tuple(StdioCase(stdin=a, expected=b) for a, b in pairs), comparator=comparator)


def run(sandbox: Sandbox, program: str, *pairs: tuple[str, str], comparator: str = "lines") -> Verdict:
    verdict = sandbox.grade([(program, cases(*pairs, comparator=comparator))])[0]
    assert verdict.mode == "stdio"
    assert len(verdict.outcomes) == verdict.tests_total == len(pairs)
    assert verdict.tests_passed == verdict.outcomes.count(Status.PASSED)
    return verdict


SUMS = ("3\n1 2 3\n", "6\n")
ADD_UP = [
    "n = int(input())\nprint(sum(map(int, input().split())))",
    "import sys\nn, *xs = map(int, sys.stdin.read().split())\nprint(sum(xs))",
    "import sys\nn = int(sys.stdin.readline())\nprint(sum(map(int, sys.stdin.readline().split())))",
    "import sys\nlines = [line for line in sys.stdin]\nprint(sum(map(int, lines[1].split())))",
    "import sys\nn, *xs = map(int, sys.stdin.buffer.read().split())\nsys.stdout.buffer.write(b'%d' % sum(xs))",
    "import sys\ninput = sys.stdin.buffer.readline\ninput()\nprint(sum(map(int, input().split())))",
    "import os\nn, *xs = map(int, os.read(0, 1 << 20).split())\nos.write(1, b'%d' % sum(xs))",
    "print(sum(map(int, open(0).read().split()[1:])))",
    "import io, os\nread = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
    "read()\nprint(sum(map(int, read().split())))",
    "import fileinput\nlines = list(fileinput.input())\nprint(sum(map(int, lines[1].split())))",
    "import sys\nif len(sys.argv) > 1: sys.stdin = open(sys.argv[1])\ninput()\nprint(sum(map(int, input().split())))",
    "input()\ntotal = 0\ntry:\n    while True:\n        total += sum(map(int, input().split()))\n"
    "except EOFError:\n    print(total, end='')",
    "def main():\n    input()\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()",
    "import sys\ndef main():\n    input()\n    sys.stdout.write(str(sum(map(int, input().split()))))\n    sys.exit()\n"
    "main()\nprint('no')",
    "input()\nprint(sum(map(int, input().split())))\nexit(0)",
    "input()\nprint(sum(map(int, input().split())))\nraise SystemExit",
    "import os\ninput()\nprint(sum(map(int, input().split())), flush=True)\nos._exit(0)",
    "import atexit\natexit.register(lambda: print(sum(xs)))\ninput()\nxs = list(map(int, input().split()))",
    "import threading\ndef main():\n    input()\n    print(sum(map(int, input().split())))\n"
    "threading.stack_size(1 << 26)\nthread = threading.Thread(target=main)\nthread.start()\nthread.join()",
    "import threading, time\ndef main():\n    time.sleep(0.05)\n    input()\n"
    "    print(sum(map(int, input().split())))\nthreading.Thread(target=main).start()",  # nobody joins it
    "import sys\nsys.stdout = sys.__stdout__\nsys.stdin = sys.__stdin__\ninput()\nprint(6)",
    "import io, sys\nsys.stdout = text = io.StringIO()\nprint(6)\nsys.stdout = sys.__stdout__\nprint(text.getvalue())",
    "import io, sys\nprint(6)\nsys.stdout = io.StringIO()\nprint(7)",
    "import sys\nprint(6)\nsys.stdout.close()",
    "import sys\nprint(6)\nsys.stdout = None\nprint(7)",
    "import os, sys\nclass Late:\n    text = ''\n    def write(self, text): self.text += text\n"
    "    def flush(self): os.write(1, self.text.encode())\nsys.stdout = Late()\nprint(6)",
    "import asyncio\nasync def main():\n    input()\n    print(sum(map(int, input().split())))\nasyncio.run(main())",
    "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as text:\n    print(6)\n"
    "print(text.getvalue(), end='')",
    "import logging, sys\nprint('debug', file=sys.stderr)\nlogging.warning('x')\ninput()\nprint(6)",
]  # fmt: skip


@pytest.mark.parametrize("program", ADD_UP, ids=range(len(ADD_UP)))
def test_every_usual_way_to_read_and_write_works(sandbox: Sandbox, program: str) -> None:
    verdict = run(sandbox, program, SUMS, ("1\n-5\n", "-5\n") if "6" not in program else SUMS)
    assert verdict.status is Status.PASSED, verdict


def test_deep_recursion_works_where_the_program_asks_for_it(sandbox: Sandbox) -> None:
    deep = "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(int(input())))"
    raised = "import sys\nsys.setrecursionlimit(10**6)\n" + deep
    threaded = (
        "import sys, threading\nsys.setrecursionlimit(1 << 20)\nthreading.stack_size(1 << 26)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\ndef main(): print(f(int(input())))\n"
        "thread = threading.Thread(target=main)\nthread.start()\nthread.join()"
    )
    assert run(sandbox, raised, ("50000", "50000")).passed
    assert run(sandbox, threaded, ("50000", "50000")).passed
    verdict = run(sandbox, deep, ("50000", "50000"), ("5", "5"))
    assert verdict.outcomes == (Status.RUNTIME_ERROR, Status.PASSED)
    assert verdict.detail.startswith("RecursionError")


def test_each_case_has_a_verdict_of_its_own(sandbox: Sandbox) -> None:
    program = (
        "n = int(input())\nif n == 2: print(1 / 0)\nif n == 4: import os; os.abort()\nprint(n if n != 3 else 'no')"
    )
    pairs = [(str(n), str(n)) for n in range(6)]
    verdict = run(sandbox, program, *pairs)
    assert [str(outcome) for outcome in verdict.outcomes] == [
        "PASSED", "PASSED", "RUNTIME_ERROR", "WRONG_ANSWER", "CRASHED", "PASSED",
    ]  # fmt: skip
    assert (verdict.status, verdict.first_failing, verdict.detail) == (
        Status.RUNTIME_ERROR,
        2,
        "ZeroDivisionError: division by zero",
    )


def test_cases_share_nothing(sandbox: Sandbox) -> None:
    program = "import json\nprint(len(vars(json)) - len(json.__dict__), hasattr(json, 'seen'))\njson.seen = True"
    assert run(sandbox, program, ("", "0 False"), ("", "0 False")).passed


NOT_PASSED = [
    ("print(6)\nraise ValueError('late')", Status.RUNTIME_ERROR, "ValueError: late"),
    (
        "print(6)\nimport atexit\natexit.register(lambda: 1 / 0)",
        Status.PASSED,
        "",
    ),  # as Python's own exit status has it
    ("print(6", Status.SYNTAX_ERROR, "SyntaxError"),
    ("print(6)\nreturn 5", Status.SYNTAX_ERROR, "SyntaxError"),
    ("", Status.WRONG_ANSWER, ""),
    ("pass", Status.WRONG_ANSWER, ""),
    ("exit(0)", Status.WRONG_ANSWER, ""),
    ("import os\nos._exit(0)", Status.WRONG_ANSWER, ""),
    ("import os\nprint(6)\nos._exit(0)", Status.WRONG_ANSWER, ""),  # never flushed
    ("print(6, 6)", Status.WRONG_ANSWER, ""),
    ("print(6)\nprint(6)", Status.WRONG_ANSWER, ""),
    ("input()\ninput()\ninput()", Status.RUNTIME_ERROR, "EOFError"),
    ("import sys\nsys.stdin.close()\nsys.stdin.read()", Status.RUNTIME_ERROR, "ValueError"),
    ("while True: print(6)", Status.OUTPUT_LIMIT, "the program wrote more than"),
    ("print('6' * (4 << 20))", Status.OUTPUT_LIMIT, "the program wrote more than"),
    ("import os\nprint(6, flush=True)\nos.abort()", Status.CRASHED, "killed by SIG"),
    ("print(6)\nx = [0] * (1 << 40)", Status.MEMORY, "the program ran out of memory"),
    ("import os\nos.write(1, b'\\xff\\xfe6')", Status.WRONG_ANSWER, ""),
    ("import os\nos.write(1, b'6\\n\\x00')", Status.WRONG_ANSWER, ""),
    ("import sys\nsys.stdout.close()\nprint(6)", Status.RUNTIME_ERROR, "ValueError"),
    ("import sys\nsys.stdout.close()", Status.WRONG_ANSWER, ""),
    ("import sys\nprint(6, file=sys.stderr)", Status.WRONG_ANSWER, ""),
    ("import os\nos.write(3, b'\\x08\\0\\0\\0[\"done\"]')", Status.WRONG_ANSWER, ""),
    ("import os\nos.write(0, b'6')", Status.RUNTIME_ERROR, ""),
]


@pytest.mark.parametrize(("program", "status", "detail"), NOT_PASSED, ids=range(len(NOT_PASSED)))
def test_how_it_goes_wrong_has_a_name(sandbox: Sandbox, program: str, status: Status, detail: str) -> None:
    verdict = run(sandbox, program, SUMS)
    assert verdict.status is status, verdict
    assert verdict.detail.startswith(detail)


def test_a_syntax_error_is_found_once_for_all_cases(sandbox: Sandbox) -> None:
    verdict = run(sandbox, "print(", SUMS, SUMS, SUMS)
    assert (set(verdict.outcomes), verdict.first_failing) == ({Status.SYNTAX_ERROR}, None)


def test_megabytes_go_in_and_out(sandbox: Sandbox) -> None:
    numbers = "\n".join(str(n) for n in range(450_000))
    assert len(numbers) > 3_000_000
    assert run(sandbox, "import sys\nsys.stdout.write(sys.stdin.read())", (numbers, numbers)).passed
    assert run(sandbox, "print('ignores it')", (numbers, "ignores it")).passed
    assert not run(sandbox, "import sys\nsys.stdout.write(sys.stdin.read()[:-1])", (numbers, numbers)).passed


def test_text_beyond_ascii_goes_in_and_out(sandbox: Sandbox) -> None:
    text = "h\u00e9\u4e16\U0001f600"
    assert run(sandbox, "print(input()[::-1])", (text, text[::-1])).passed
    assert run(sandbox, "import sys\nprint(len(sys.stdin.buffer.read()))", (text, str(len(text.encode())))).passed


def test_a_slow_case_costs_its_own_limit_and_the_others_pass() -> None:
    program = "import time\nn = int(input())\ntime.sleep(n)\nprint(n)"
    with Sandbox(timeout=10.0, test_timeout=0.4) as sandbox:
        verdict = run(sandbox, program, ("0", "0"), ("8", "8"), ("0", "0"))
        assert verdict.outcomes == (Status.PASSED, Status.TIMEOUT, Status.PASSED)
        assert (verdict.status, verdict.first_failing) == (Status.TIMEOUT, 1)
        spin = run(sandbox, "n = input()\nwhile n == '1': pass\nprint(n)", ("1", "0"), ("0", "0"))
        assert spin.outcomes == (Status.TIMEOUT, Status.PASSED)


def test_all_cases_together_have_a_limit_too() -> None:
    program = "import time\ntime.sleep(0.3)\nprint(1)"
    with Sandbox(timeout=0.8) as sandbox:
        verdict = run(sandbox, program, *[("", "1")] * 6)
    assert verdict.outcomes[0] is Status.PASSED
    assert verdict.outcomes[-1] is Status.TIMEOUT
    assert verdict.status is Status.TIMEOUT
    assert verdict.wall_seconds < 5


def test_a_program_that_ends_its_output_early_still_has_to_end(sandbox: Sandbox) -> None:
    """Closing standard output is no way to leave the clock: what runs on runs into the limit."""
    with Sandbox(timeout=0.5) as short:
        verdict = run(short, "import os\nprint(6, flush=True)\nos.close(1)\nwhile True: pass", SUMS)
        assert verdict.status is Status.TIMEOUT
        verdict = run(short, "import os, time\nos.write(1, b'6')\nos.close(3)\nos.close(1)\ntime.sleep(60)", SUMS)
        assert verdict.status is Status.NO_REPORT
        assert verdict.wall_seconds < 5


@pytest.mark.parametrize(
    ("comparator", "written", "expected", "holds"),
    [
        ("lines", "6\n", "6", True),
        ("lines", "6", "6\n\n", True),
        ("lines", "1 2  \n3\n\n", "1 2\n3", True),
        ("lines", "1 2\r\n3", "1 2\n3", True),
        ("lines", " 6", "6", False),
        ("lines", "1  2", "1 2", False),
        ("lines", "1\n\n2", "1\n2", False),
        ("lines", "6.0", "6", False),
        ("lines", "", "", True),
        ("exact", "6\n", "6\n", True),
        ("exact", "6", "6\n", False),
        ("exact", "6 \n", "6\n", False),
        ("livecodebench", "6.0\n", "6", True),
        ("livecodebench", "  1 2 \n 3", "1 2\n3", True),
        ("livecodebench", "1 2", "1\n2", False),
        ("livecodebench", "6.1", "6", False),
    ],
)
def test_comparators(sandbox: Sandbox, comparator: str, written: str, expected: str, holds: bool) -> None:
    program = f"import sys\nsys.stdout.write({written!r})"
    assert run(sandbox, program, ("", expected), comparator=comparator).passed == holds


def test_user_mistakes_are_named(sandbox: Sandbox) -> None:
    with pytest.raises(UserError, match="stdio tests: a program cannot be graded without tests"):
        sandbox.grade([("print(1)", StdioTests(cases=()))])
    with pytest.raises(UserError, match="unknown 'close'; known: exact, lines"):
        sandbox.grade([("print(1)", cases(SUMS, comparator="close"))])
