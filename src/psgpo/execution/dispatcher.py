"""The thread that feeds the slots: callers hand in tasks and get futures, so that grading goes on while they do else.

Equal tasks that wait or run at the same time are run once. Verdicts that another run has cached are answered at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from psgpo.execution.cache import VerdictCache
from psgpo.execution.pool import Pool, SandboxError
from psgpo.execution.slot import AHEAD_BYTES, Answer, Job
from psgpo.records import Verdict

MANY = 32
"""Tasks that wait, above which slots are given work ahead."""
CACHE_BATCH = 200
"""Verdicts written to the cache at once; what a crash may lose. An idle dispatcher writes at once."""


@dataclass(slots=True)
class Task:
    """One job and those who wait for it."""

    job: Job
    key: str
    """Equal tasks have equal keys."""
    read: Callable[[Answer], Any]
    """Makes the futures' result from the slot's answer."""
    futures: list[Future[Any]] = field(default_factory=list)


class Dispatcher:
    """Owns the pool and the cache once started; `submit` and `close` may be called from any thread."""

    def __init__(self, pool: Pool, cache: VerdictCache | None) -> None:
        self._pool = pool
        self._cache = cache
        self._lock = threading.Lock()
        self._incoming: deque[Task] = deque()
        self._waiting: deque[Task] = deque()
        self._known: dict[str, Task] = {}
        """Tasks that wait or run, by key."""
        self._unwritten: dict[str, Verdict] = {}
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._stopping = False
        self._failure: BaseException | None = None
        pool.watch(self._woken)
        self._thread = threading.Thread(target=self._run, name="psgpo-sandbox", daemon=True)
        self._thread.start()

    def submit(self, tasks: list[Task]) -> list[Future[Any]]:
        """Queue the tasks; one future each.

        Raises:
            SandboxError: the dispatcher is closed or has died.
        """
        for task in tasks:
            task.futures.append(Future())
        with self._lock:
            if self._stopping:
                reason = f"died of {self._failure!r}" if self._failure else "is closed"
                raise SandboxError(f"the sandbox {reason}") from self._failure
            self._incoming.extend(tasks)
        self._wake()
        return [task.futures[0] for task in tasks]

    def close(self) -> None:
        """Cancel what waits, end the slots, write the cache."""
        with self._lock:
            self._stopping = True
        self._wake()
        self._thread.join()
        self._waker.close()
        self._woken.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._waker.send(b".")

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._accept()
                if not self._pool.busy and not self._waiting:
                    self._write_cache()
                for task, answer in self._pool.step(self._next):
                    self._finish(task, answer)
                self._drain_wakes()
            self._write_cache()
        except BaseException as error:
            with self._lock:
                self._stopping, self._failure = True, error
        finally:
            self._pool.close()
            if self._cache is not None:
                self._cache.close()
            self._abandon()

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _accept(self) -> None:
        """Take the incoming tasks; answer those that the cache knows, join those that are on their way."""
        with self._lock:
            tasks = list(self._incoming)
        if not tasks:
            return
        known = self._cache.get(task.key for task in tasks) if self._cache is not None else {}
        for task in tasks:
            if task.key in self._known:
                self._known[task.key].futures += task.futures
            elif (verdict := known.get(task.key) or self._remembered(task.key)) is not None:
                _resolve(task.futures, verdict)
            else:
                self._known[task.key] = task
                self._waiting.append(task)
            self._incoming.popleft()  # only now: what an error cuts short is still found by `_abandon`

    def _remembered(self, key: str) -> Verdict | None:
        verdict = self._unwritten.get(key)
        return None if verdict is None else replace(verdict, cached=True)

    def _next(self, ahead: bool) -> tuple[Task, Job] | None:
        """The next task that somebody still waits for.

        Ahead of its turn only a small one, and while many wait: the last ones shall not stand behind a slow program
        in one slot while another is idle.
        """
        while self._waiting and all(future.cancelled() for future in self._waiting[0].futures):
            task = self._waiting.popleft()
            del self._known[task.key]
            _wanted(task.futures)
        if not self._waiting or (ahead and (len(self._waiting) < MANY or self._waiting[0].job.size > AHEAD_BYTES)):
            return None
        task = self._waiting.popleft()
        return task, task.job

    def _finish(self, task: Task, answer: Answer | Exception) -> None:
        result = answer if isinstance(answer, Exception) else task.read(answer)
        del self._known[task.key]
        if isinstance(answer, Exception):
            for future in _wanted(task.futures):
                future.set_exception(answer)
            return
        _resolve(task.futures, result)
        if self._cache is not None and isinstance(result, Verdict) and answer[0]["stable"]:
            self._unwritten[task.key] = result
            if len(self._unwritten) >= CACHE_BATCH:
                self._write_cache()

    def _write_cache(self) -> None:
        if self._cache is not None and self._unwritten:
            self._cache.put(self._unwritten)
            self._unwritten = {}

    def _abandon(self) -> None:
        with self._lock:
            left = [*self._known.values(), *self._incoming]
            self._incoming.clear()
        for task in left:
            for future in _wanted([future for future in task.futures if not future.done()]):
                end = f"died of {self._failure!r}" if self._failure else "was closed"
                future.set_exception(SandboxError(f"the sandbox {end} before this program was graded"))


def _wanted(futures: list[Future[Any]]) -> list[Future[Any]]:
    return [future for future in futures if future.set_running_or_notify_cancel()]


def _resolve(futures: list[Future[Any]], result: Any) -> None:
    """The first gets the result; a verdict's further copies are marked as cached."""
    wanted = _wanted(futures)
    for place, future in enumerate(wanted):
        copy = place > 0 and isinstance(result, Verdict)
        future.set_result(replace(result, cached=True) if copy else result)
