"""What the execution tests share: test suites, a jail for hostile programs, and sight of surviving processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from psgpo.execution import helper
from psgpo.records import Call, CallTests

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("c", "python")
HONEST = 'def f(x):\n    return "sq:%d" % (x * x)\n'


def need_backend(name: str) -> None:
    """Skip where the C helper is asked for and not built."""
    _, refusal = helper.load()
    if name == "c" and refusal:
        pytest.skip(f"the C helper is {refusal}; `pip install -e .` builds it where there is a C compiler")


def squares(count: int = 5) -> CallTests:
    """Tests that HONEST passes."""
    return suite([((x,), f"sq:{x * x}") for x in range(count)])


def suite(pairs: list[tuple[tuple[Any, ...], Any]], comparator: str = "exact") -> CallTests:
    calls = tuple(Call(args=args, expected=expected) for args, expected in pairs)
    return CallTests(function="f", calls=calls, comparator=comparator)


PRELUDE = """
import ctypes, json, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans of ours become our children

def survivors():
    found, todo = [], [os.getpid()]
    while todo:
        pid = todo.pop()
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                children = open(f"/proc/{pid}/task/{task}/children").read().split()
                todo += children
                found += [int(child) for child in children]
        except OSError:
            pass
    return found

def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

def wait_until_alone(seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reap()
        if not survivors():
            return []
        time.sleep(0.02)
    return [(pid, open(f"/proc/{pid}/cmdline").read()) for pid in survivors()]

from psgpo.execution import Sandbox
from psgpo.records import CallTests, Call
"""


def run_script(
    body: str,
    *,
    given: Any = None,
    env: dict[str, str] | None = None,
    python: str = sys.executable,
    timeout: float = 240,
    launcher: tuple[str, ...] = (),
    **how: Any,
) -> Any:
    """Run PRELUDE and `body` in a process of its own; `given` is its input, and what it prints as JSON comes back.

    A launcher is a command that starts the interpreter with the arguments it is given.
    """
    script = PRELUDE + "\ngiven = json.load(sys.stdin)\n" + body
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {name: os.environ[name] for name in (helper.VARIABLE,) if name in os.environ}
    done = subprocess.run(
        [*launcher, "-c", script] if launcher else [python, "-c", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=environment | (env or {}),
        timeout=timeout,
        cwd="/",
        **how,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
