"""What confinement costs: `python -m psgpo.execution.benchmark [programs]`. Prints a Markdown table (Linux only).

CPU milliseconds per program are summed over owner, tester, zygote and children; on a busy machine they are the number
to compare, because wall time counts the neighbours too.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from psgpo.execution.sandbox import Sandbox
from psgpo.records import Call, CallTests

_TICK = os.sysconf("SC_CLK_TCK")
_SETTINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("namespaces",),
    ("namespaces", "landlock"),
    ("namespaces", "landlock", "seccomp"),
)


def main(count: int) -> None:
    """Grade `count` different small programs with eight tests each, on one slot, at several rungs."""
    calls = tuple(Call(args=([n, 3, 1, -n],), expected=sorted([n, 3, 1, -n])) for n in range(8))
    tests = CallTests(function="f", calls=calls)
    programs = [f"def f(x):\n    y = list(x)\n    y.sort()\n    return y  # {n}" for n in range(count)]
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {count} programs\n")
    print("| confinement | programs/s | CPU ms/program | of it in the program's process |")
    print("|---|---|---|---|")
    for without in _SETTINGS:
        with Sandbox(without=without, allow_unconfined=True) as sandbox:
            sandbox.grade([(programs[0], tests)])
            cpu, wall = _tree_cpu_seconds(), time.perf_counter()
            verdicts = sandbox.grade([(program, tests) for program in programs])
            wall, cpu = time.perf_counter() - wall, _tree_cpu_seconds() - cpu
            assert all(verdict.passed for verdict in verdicts)
            inside = sum(verdict.cpu_seconds for verdict in verdicts)
            print(f"| {sandbox.confinement} | {count / wall:.0f} | {_ms(cpu, count)} | {_ms(inside, count)} |")


def _ms(seconds: float, count: int) -> str:
    return f"{1000 * seconds / count:.2f}"


def _tree_cpu_seconds() -> float:
    """CPU seconds of this process and its living descendants, the children these have reaped included."""
    ticks, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(int(field) for field in (fields[11:13] if pid == os.getpid() else fields[11:15]))
        todo += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return ticks / _TICK


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
