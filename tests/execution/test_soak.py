"""Twenty thousand programs of every kind, good and bad, through one sandbox: nothing may grow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from execution_world import run_script

COUNT = 20_000
WARM = 4_000
"""Programs after which caches and heaps have their size."""
SLACK_KB = 6_000
"""Resident memory that a process may gain after that, KiB: fragmentation, no leak per program."""

SOAK = r"""
from psgpo.records import AssertTests, StdioTests, StdioCase

calls = [CallTests(function="f", calls=(Call(args=(n,), expected=2 * n),)) for n in range(50)]
asserts = [AssertTests(entry_point="f", checks=(f"assert f({n}) == {2 * n}",)) for n in range(50)]
stdio = [StdioTests(cases=(StdioCase(stdin=f"{n}\n", expected=f"{2 * n}\n"),)) for n in range(50)]
FUNCTIONS = [
    ("PASSED", "def f(x): return x + x"),
    ("PASSED", "import math, collections\ndef f(x): return sum([x, x])"),
    ("WRONG_ANSWER", "def f(x): return -1"),
    ("RUNTIME_ERROR", "def f(x): return 1 / 0"),
    ("SYNTAX_ERROR", "def f(x) return x"),
    ("NO_REPORT", "import os\ndef f(x): os._exit(3)"),
    ("CRASHED", "import os\ndef f(x): os.abort()"),
    ("RUNTIME_ERROR", "import os\ndef f(x): os.fork()"),
    ("RUNTIME_ERROR", "import os\ndef f(x):\n    while True: os.dup(3)"),
    ("RUNTIME_ERROR", "def f(x): open('/dev/shm/psgpo-soak', 'w')"),
    ("OUTPUT_LIMIT", "def f(x): return 'x' * (1 << 23)"),
    ("PASSED", "import threading\nthreading.Thread(target=len, args=('',)).start()\ndef f(x): return 2 * x"),
]
SCRIPTS = [
    ("PASSED", "print(2 * int(input()))"),
    ("WRONG_ANSWER", "print('no')"),
    ("RUNTIME_ERROR", "input()\ninput()"),
    ("CRASHED", "import os\nos.abort()"),
]

def items():
    for n in range(given["count"]):
        kind = n % 3
        wanted, program = SCRIPTS[n // 3 % len(SCRIPTS)] if kind == 2 else FUNCTIONS[n // 3 % len(FUNCTIONS)]
        yield wanted, f"{program}\n# {n}", (calls, asserts, stdio)[kind][n % 50]

def resident(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0

def state():
    time.sleep(0.3)
    everyone = [os.getpid(), *sorted(survivors())]
    fds = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in everyone}
    return {"pids": everyone, "fds": sum(fds.values()), "memory": [resident(pid) for pid in everyone],
            "files": sorted(os.listdir("/dev/shm")) + sorted(os.listdir(os.environ["TMPDIR"]))}

surprises, states, wanted = [], [], {}
def stream():
    for n, (status, program, tests) in enumerate(items()):
        wanted[n] = status
        yield program, tests

with Sandbox(workers=2, timeout=30) as sandbox:
    source = stream()
    for part in (given["warm"], given["count"] - given["warm"]):
        offset = given["warm"] if states else 0
        for index, verdict in sandbox.grade_iter(pair for _, pair in zip(range(part), source)):
            if verdict.status != wanted.pop(offset + index):
                surprises.append([offset + index, verdict.status, verdict.detail])
        states.append(state())
json.dump({"surprises": surprises[:20], "states": states, "left": wait_until_alone()}, sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_thousand_programs_leave_no_trace(tmp_path: Path) -> None:
    given = {"count": COUNT, "warm": WARM}
    early, late = _check(given, tmp_path)
    assert all(after - before <= SLACK_KB for before, after in zip(early["memory"], late["memory"], strict=True)), (
        early,
        late,
    )


def test_a_few_hundred_programs_leave_no_process_descriptor_or_file(tmp_path: Path) -> None:
    _check({"count": 600, "warm": 200}, tmp_path)


def _check(given: dict[str, int], scratch: Path) -> list[dict[str, list[int]]]:
    result = run_script(SOAK, given=given, env={"TMPDIR": str(scratch), "HOME": str(scratch)}, timeout=850)
    assert result["surprises"] == []
    assert result["left"] == []
    early, late = result["states"]
    for what in ("pids", "fds", "files"):
        assert early[what] == late[what], what
    assert not os.path.exists("/dev/shm/psgpo-soak")
    return [early, late]
