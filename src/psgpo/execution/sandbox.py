"""`Sandbox`: grade programs in parallel over disposable slots; an untrusted program's word counts for nothing."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.execution import channel
from psgpo.execution.cache import VerdictCache, verdict_key
from psgpo.execution.comparators import COMPARATORS
from psgpo.execution.confinement import ladder
from psgpo.execution.pool import Pool, SandboxError
from psgpo.execution.slot import Answer, Job, Limits
from psgpo.records import CallTests, Status, Verdict

__all__ = ["Outcome", "Sandbox", "SandboxError"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one call of an untrusted function gave."""

    value: Any = None
    """The returned value, plain data; None when the call failed."""
    error: str | None = None
    """`STATUS: detail` when the call failed, None when it returned."""


class Sandbox:
    """Runs untrusted programs. Use as a context manager; calls from several threads are served one after the other.

    Args:
        workers: slots that run at the same time, at most one per core makes sense.
        timeout: wall seconds one program may take for all of its tests.
        memory_mb: address space of the program's process, MiB.
        cache: file of the verdict cache; None for no cache.
        require: lowest rung of the ladder that is good enough, see `confinement.ladder.RUNGS`.
        allow_unconfined: run even when the kernel offers no confinement at all. Only for programs you trust.
        without: layers of confinement to leave off, to measure and to test them one by one.

    Raises:
        UserError: a setting makes no sense, or the machine does not reach the required rung.
        SandboxError: the processes do not start.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        timeout: float = 2.0,
        memory_mb: int = 256,
        cache: Path | None = None,
        require: str = ladder.LOWEST_CONFINED,
        allow_unconfined: bool = False,
        without: Sequence[str] = (),
    ) -> None:
        _check_settings(workers, timeout, memory_mb, require, without)
        self._lock = threading.Lock()
        self._owner_pid = os.getpid()
        self._closed = False
        self._limits = Limits(timeout=timeout, memory_mb=memory_mb)
        required = "rlimits" if allow_unconfined else require
        self._cache = VerdictCache(cache) if cache is not None else None
        self._pool = Pool(workers, self._limits, required=required, without=without)
        _open_sandboxes.add(self)

    @property
    def confinement(self) -> str:
        """The rung of the ladder that is in force."""
        return self._pool.confinement

    def grade(self, items: Sequence[tuple[str, CallTests]]) -> list[Verdict]:
        """Run each program against its tests; verdicts in the order of `items`.

        A program that occurs twice is run once; the copies' verdicts are marked as cached.

        Raises:
            UserError: tests are empty, name an unknown comparator, or contain what is not plain data.
            SandboxError: the grader itself failed, twice for the same program.
        """
        encoded = _EncodedTests()
        jobs = [encoded.job(program, tests) for program, tests in items]
        with self._lock:
            self._check_open()
            return self._grade(jobs)

    def evaluate(self, program: str, function: str, calls: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        """Call `function` of an untrusted program with each tuple of arguments and return the values to the caller."""
        return self.evaluate_many([(program, function, calls)])[0]

    def evaluate_many(self, items: Sequence[tuple[str, str, Sequence[tuple[Any, ...]]]]) -> list[list[Outcome]]:
        """`evaluate` for many programs in parallel, in the order of `items`.

        Raises:
            UserError: an argument is not plain data.
            SandboxError: the grader itself failed, twice for the same program.
        """
        jobs = [_evaluation_job(*item) for item in items]
        with self._lock:
            self._check_open()
            answers = self._pool.run(jobs)
        return [
            [
                Outcome(value=channel.decode(frame)) if error is None else Outcome(error=error)
                for error, frame in zip(header["errors"], frames, strict=True)
            ]
            for header, frames in answers
        ]

    def close(self) -> None:
        """End all processes of the sandbox. Safe to call twice; does nothing in a forked copy of the owner."""
        if self._closed or os.getpid() != self._owner_pid:
            return
        self._closed = True
        self._pool.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed or os.getpid() != self._owner_pid:
            raise SandboxError("the sandbox is closed, or belongs to the process this one was forked from")

    def _grade(self, jobs: Sequence[Job]) -> list[Verdict]:
        keys = [self._key(job) for job in jobs]
        known = self._cache.get(keys) if self._cache is not None else {}
        fresh = {key: job for key, job in zip(keys, jobs, strict=True) if key not in known}
        answers = dict(zip(fresh, self._pool.run(list(fresh.values())), strict=True))
        verdicts = {key: _verdict(answer) for key, answer in answers.items()}
        if self._cache is not None:
            self._cache.put({key: verdict for key, verdict in verdicts.items() if answers[key][0]["stable"]})
        ordered: list[Verdict] = []
        for key in keys:
            ordered.append(known[key] if key in known else verdicts[key])
            known.setdefault(key, replace(ordered[-1], cached=True))
        return ordered

    def _key(self, job: Job) -> str:
        setting = f"{job.kind} {job.comparator} {self._limits} {self.confinement}"
        return verdict_key([setting.encode(), *job.frames])


def _check_settings(workers: int, timeout: float, memory_mb: int, require: str, without: Sequence[str]) -> None:
    if workers < 1 or not 0 < timeout < 86_400 or memory_mb < 64:
        raise UserError("sandbox: needs workers >= 1, 0 < timeout < 86400 (seconds) and memory_mb >= 64")
    if not ladder.known(require):
        raise UserError(f"sandbox: unknown rung {require!r}; known: {', '.join(name for name, _ in ladder.RUNGS)}")
    if unknown := set(without) - set(ladder.LAYERS):
        raise UserError(f"sandbox: unknown layers {sorted(unknown)}; known: {', '.join(ladder.LAYERS)}")


class _EncodedTests:
    """Jobs from tests, each encoded once however many programs it judges. Holds the tests, so an id stays theirs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[CallTests, tuple[bytes, bytes, bytes]]] = {}

    def job(self, program: str, tests: CallTests) -> Job:
        if id(tests) not in self._known:
            self._known[id(tests)] = (tests, _encode_tests(tests))
        _, encoded = self._known[id(tests)]
        frames = (_program_bytes(program), *encoded)
        return Job(kind="calls", tests=len(tests.calls), comparator=tests.comparator, frames=frames)


def _encode_tests(tests: CallTests) -> tuple[bytes, bytes, bytes]:
    if not tests.calls:
        raise UserError(
            f"tests of {tests.function!r}: a program cannot be graded without tests; give at least one call"
        )
    if tests.comparator not in COMPARATORS:
        raise UserError(f"tests.comparator: unknown {tests.comparator!r}; known: {', '.join(COMPARATORS)}")
    try:
        calls = channel.encode([list(call.args) for call in tests.calls])
        expected = channel.encode([call.expected for call in tests.calls])
    except (channel.BadValueError, channel.TooLargeError) as error:
        raise UserError(f"tests of {tests.function!r} cannot be sent to the sandbox: {error}") from None
    return tests.function.encode(), calls, expected


def _evaluation_job(program: str, function: str, calls: Sequence[tuple[Any, ...]]) -> Job:
    try:
        encoded = channel.encode([list(arguments) for arguments in calls])
    except (channel.BadValueError, channel.TooLargeError) as error:
        raise UserError(f"arguments of {function!r} cannot be sent to the sandbox: {error}") from None
    frames = (_program_bytes(program), function.encode(), encoded)
    return Job(kind="evaluate", tests=len(calls), frames=frames)


def _program_bytes(program: str) -> bytes:
    """A lone surrogate becomes bytes that are no UTF-8: the program's process reports them as a syntax error."""
    return program.encode("utf-8", "surrogatepass")


def _verdict(answer: Answer) -> Verdict:
    header, _ = answer
    fields = header["verdict"] | {name: header[name] for name in ("cpu_seconds", "wall_seconds", "confinement")}
    return Verdict(**(fields | {"status": Status(fields["status"])}))


_open_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for sandbox in list(_open_sandboxes):
        sandbox.close()
