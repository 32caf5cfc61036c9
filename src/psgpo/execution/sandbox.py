"""`Sandbox`: grade programs in parallel over disposable slots; an untrusted program's word counts for nothing."""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.execution import channel, helper
from psgpo.execution.cache import VerdictCache, verdict_key
from psgpo.execution.confinement import ladder
from psgpo.execution.dispatcher import Dispatcher, Task
from psgpo.execution.encoding import EncodedTests, TestEncoder, encode_calls, program_bytes
from psgpo.execution.packages import find_packages
from psgpo.execution.pool import Pool, SandboxError
from psgpo.execution.slot import Answer, Job, Limits
from psgpo.execution.stack import stack_limits
from psgpo.records import Status, Tests, Verdict

__all__ = ["Outcome", "Sandbox", "SandboxError"]

IN_FLIGHT = 16
"""Programs per worker that `grade_iter` takes from its source ahead of their verdicts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one call of an untrusted function gave."""

    value: Any = None
    """The returned value, plain data; None when the call failed."""
    error: str | None = None
    """`STATUS: detail` when the call failed, None when it returned."""


class Sandbox:
    """Runs untrusted programs. Use as a context manager; safe to use from several threads.

    Args:
        workers: slots that run at the same time, at most one per core makes sense.
        timeout: wall seconds one program may take for all of its tests.
        test_timeout: wall seconds one test may take; None for no limit but `timeout`.
        memory_mb: address space of the program's process, MiB.
        cache: file of the verdict cache; None for no cache.
        require: lowest rung of the ladder that is good enough, see `confinement.ladder.RUNGS`.
        allow_unconfined: run even when the kernel offers no confinement at all. Only for programs you trust.
        without: layers of confinement to leave off, to measure and to test them one by one.
        packages: installed packages that programs may import besides the standard library, such as numpy, with those
            they need themselves. They are loaded ahead, so each start of a program costs a little more, and need room
            in `memory_mb`.

    Raises:
        UserError: a setting makes no sense, or the machine does not reach the required rung.
        SandboxError: the processes do not start.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        timeout: float = 2.0,
        test_timeout: float | None = None,
        memory_mb: int = 256,
        cache: Path | None = None,
        require: str = ladder.LOWEST_CONFINED,
        allow_unconfined: bool = False,
        without: Sequence[str] = (),
        packages: Sequence[str] = (),
    ) -> None:
        _check_settings(workers, timeout, test_timeout, memory_mb, require, without)
        self._owner_pid = os.getpid()
        self._closed = False
        self._workers = workers
        self._encoder = TestEncoder()
        self._limits = Limits(timeout=timeout, test_timeout=test_timeout, memory_mb=memory_mb)
        self._stack = stack_limits()
        required = "rlimits" if allow_unconfined else require
        verdicts = VerdictCache(cache) if cache is not None else None
        self._packages = find_packages(packages)
        pool = Pool(workers, self._limits, required=required, without=without, packages=self._packages)
        self.confinement = pool.confinement
        """The rung of the ladder that is in force."""
        self.backend = helper.backend(pool.no_helper)
        """What starts and ends the programs' processes: "c" or "python"; verdicts are the same."""
        self._dispatcher = Dispatcher(pool, verdicts)
        _open_sandboxes.add(self)

    def grade(self, items: Iterable[tuple[str, Tests]]) -> list[Verdict]:
        """Run each program against its tests; verdicts in the order of `items`.

        A program that occurs twice is run once; the copies' verdicts are marked as cached.

        Raises:
            UserError: tests are empty, name an unknown comparator, or contain what is not plain data.
            SandboxError: the grader itself failed, twice for the same program.
        """
        return _all(self._submit([self._task(program, tests) for program, tests in items]))

    def grade_iter(self, items: Iterable[tuple[str, Tests]]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts as they come, each with the index of its item. Items are taken from their source as slots get free.

        Closing the iterator drops what waits; what runs ends at its time limit, and nobody hears of it.

        Raises:
            UserError, SandboxError: as `grade`; verdicts that came before stand.
        """
        source = enumerate(items)
        waiting: dict[Future[Verdict], int] = {}
        done: queue.SimpleQueue[Future[Verdict]] = queue.SimpleQueue()
        try:
            while True:
                while len(waiting) < IN_FLIGHT * self._workers and (item := next(source, None)) is not None:
                    index, (program, tests) = item
                    future = self.submit(program, tests)
                    waiting[future] = index
                    future.add_done_callback(done.put)
                if not waiting:
                    return
                future = done.get()
                yield waiting.pop(future), future.result()
        finally:
            for future in waiting:
                future.cancel()

    def submit(self, program: str, tests: Tests) -> Future[Verdict]:
        """Queue one program and go on; `cancel` of the future works until the program starts.

        Raises:
            UserError: as `grade`. `SandboxError` comes out of the future.
        """
        return self._submit([self._task(program, tests)])[0]

    async def grade_async(self, program: str, tests: Tests) -> Verdict:
        """`grade` of one program for asyncio; many may be awaited at the same time."""
        return await asyncio.wrap_future(self.submit(program, tests))

    def evaluate(self, program: str, function: str, calls: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        """Call `function` of an untrusted program with each tuple of arguments and return the values to the caller."""
        return self.evaluate_many([(program, function, calls)])[0]

    def evaluate_many(self, items: Sequence[tuple[str, str, Sequence[tuple[Any, ...]]]]) -> list[list[Outcome]]:
        """`evaluate` for many programs in parallel, in the order of `items`.

        Raises:
            UserError: an argument is not plain data.
            SandboxError: the grader itself failed, twice for the same program.
        """
        return _all(self._submit([self._evaluation(*item) for item in items]))

    def close(self) -> None:
        """End all processes of the sandbox. Safe to call twice; does nothing in a forked copy of the owner."""
        if self._closed or os.getpid() != self._owner_pid:
            return
        self._closed = True
        self._dispatcher.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, tasks: list[Task]) -> list[Future[Any]]:
        if os.getpid() != self._owner_pid:
            raise SandboxError("the sandbox belongs to the process this one was forked from")
        return self._dispatcher.submit(tasks)

    def _task(self, program: str, tests: Tests) -> Task:
        encoded = self._encoder.encode(tests)
        data = program_bytes(program)
        return Task(job=encoded.job(data), key=self._key(encoded.kind, data, encoded), read=_verdict)

    def _evaluation(self, program: str, function: str, calls: Sequence[tuple[Any, ...]]) -> Task:
        frames = (program_bytes(program), encode_calls(function, calls))
        job = Job(kind="evaluate", tests=len(calls), frames=frames)
        return Task(job=job, key=verdict_key([b"evaluate", *frames]), read=_outcomes)

    def _key(self, kind: str, program: bytes, encoded: EncodedTests) -> str:
        setting = f"{kind} {self._limits} {self._stack} {self.confinement} {self._packages.versions}"
        return verdict_key([setting.encode(), program, encoded.digest])


def _all(futures: list[Future[Any]]) -> list[Any]:
    """Their results; the first failure, or an interrupt, cancels the others."""
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _check_settings(
    workers: int, timeout: float, test_timeout: float | None, memory_mb: int, require: str, without: Sequence[str]
) -> None:
    if workers < 1 or not 0 < timeout < 86_400 or memory_mb < 64:
        raise UserError("sandbox: needs workers >= 1, 0 < timeout < 86400 (seconds) and memory_mb >= 64")
    if test_timeout is not None and test_timeout <= 0:
        raise UserError("sandbox: test_timeout must be above 0 (seconds), or None for no limit per test")
    if not ladder.known(require):
        raise UserError(f"sandbox: unknown rung {require!r}; known: {', '.join(name for name, _ in ladder.RUNGS)}")
    if unknown := set(without) - set(ladder.LAYERS):
        raise UserError(f"sandbox: unknown layers {sorted(unknown)}; known: {', '.join(ladder.LAYERS)}")


def _verdict(answer: Answer) -> Verdict:
    header, _ = answer
    fields = header["verdict"] | {name: header[name] for name in ("cpu_seconds", "wall_seconds", "confinement")}
    outcomes = tuple(map(Status, fields["outcomes"]))
    return Verdict(**(fields | {"status": Status(fields["status"]), "outcomes": outcomes}))


def _outcomes(answer: Answer) -> list[Outcome]:
    header, frames = answer
    return [
        Outcome(value=channel.decode(frame)) if error is None else Outcome(error=error)
        for error, frame in zip(header["errors"], frames, strict=True)
    ]


_open_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for sandbox in list(_open_sandboxes):
        sandbox.close()
