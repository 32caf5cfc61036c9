"""The slots of one sandbox: keep them busy, replace the broken ones, and decide who is at fault.

The program is at fault when what it returned kept the tester busy beyond its alarm (TIMEOUT), and when it broke two
slots after it had been handed over while a new slot passes its self-test (CRASHED). Everything else is the grader's
fault and ends as `SandboxError`.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psgpo.errors import UserError
from psgpo.execution import channel, selftest
from psgpo.execution.confinement import ladder
from psgpo.execution.encoding import encode_calls
from psgpo.execution.packages import Packages
from psgpo.execution.slot import Answer, Job, Limits, Slot, SlotError
from psgpo.records import Status

ATTEMPTS = 2
"""How often a program is tried when its slot breaks."""


class SandboxError(RuntimeError):
    """The grader itself failed (status INFRASTRUCTURE): neither pass nor fail."""


NextJob = Callable[[bool], tuple[Any, Job] | None]


@dataclass(frozen=True, slots=True)
class _Running:
    """A job in a slot."""

    tag: Any
    job: Job
    attempt: int


class Pool:
    """A fixed number of slots. Not thread-safe.

    Args:
        workers: how many.
        limits: what one program may use.
        required: the lowest rung that is good enough.
        without: layers of confinement to leave off.
        packages: what programs may import besides the standard library.
    """

    def __init__(
        self, workers: int, limits: Limits, *, required: str, without: Sequence[str], packages: Packages | None = None
    ) -> None:
        self._limits = limits
        self._required = required
        self._without = tuple(without)
        self._packages = packages or Packages()
        self._slots: list[Slot | None] = [None] * workers
        self._running: dict[int, deque[_Running]] = {place: deque() for place in range(workers)}
        self._again: list[_Running] = []
        self._selector = selectors.DefaultSelector()
        self.layers: dict[str, str] = {}
        """Layer of confinement -> empty when it is in force, else why not."""
        self.no_helper = ""
        """Empty when the slots run on the C helper, else why not."""
        self.possible: tuple[str, ...] = ()
        """Attempts of the self-test that succeeded."""
        self.confinement = ""
        """The rung in force, the same for all slots."""
        try:
            for place in range(workers):
                self._slot(place)
        except BaseException:
            self.close()
            raise

    @property
    def busy(self) -> bool:
        """Whether a job runs or is to be tried again."""
        return bool(self._again or any(self._running.values()))

    def watch(self, waker: socket.socket) -> None:
        """Let `step` return when `waker` becomes readable."""
        self._selector.register(waker, selectors.EVENT_READ, None)

    def step(self, next_job: NextJob) -> list[tuple[Any, Answer | Exception]]:
        """Hand jobs to slots, wait until something happens, and collect what is done.

        Args:
            next_job: gives a tag and a job, or None when there is none at the moment. Called with True for a job that
                is to wait in a slot behind another one, so that the slot need not wait for this process.

        Returns:
            For every job done, its tag and the answer, or the `SandboxError` or `UserError` that says why not.
        """
        done = self._fill(next_job)
        if done:
            return done
        for place in self._ready():
            queue = self._running.get(place)
            if not queue:
                self._discard(place)  # an idle tester has died
                continue
            running = queue.popleft()
            try:
                answer = self._collect(place, running)
            except (SandboxError, UserError) as error:
                done.append((running.tag, error))
            else:
                if answer is not None:
                    done.append((running.tag, answer))
        return done

    def _fill(self, next_job: NextJob) -> list[tuple[Any, Answer | Exception]]:
        failed: list[tuple[Any, Answer | Exception]] = []
        for depth in (0, 1):
            for place in range(len(self._slots)):
                if len(self._running[place]) > depth or (depth and self._slots[place] is None):
                    continue
                if self._again and not depth:
                    item = self._again.pop()
                else:
                    found = next_job(bool(depth))
                    if found is None:
                        break
                    item = _Running(*found, 1)
                try:
                    slot = self._slot(place)
                except (SandboxError, UserError) as error:
                    failed.append((item.tag, error))
                    continue
                self._running[place].append(item)
                try:
                    slot.send(item.job)
                except SlotError:
                    slot.deadline = 0.0  # collected at once, as broken
        return failed

    def _ready(self) -> list[int]:
        running = [(place, self._slot(place)) for place, queue in self._running.items() if queue]
        here = {place for place, slot in running if slot.answered}
        soonest = min((slot.deadline for _, slot in running), default=None)
        timeout = 0.0 if here else None if soonest is None else max(0.0, soonest - time.monotonic())
        ready = {key.data for key, _ in self._selector.select(timeout) if key.data is not None}
        late = {place for place, slot in running if slot.deadline <= time.monotonic()}
        return sorted(here | ready | late)

    def _collect(self, place: int, running: _Running) -> Answer | None:
        """The slot's answer, or one that blames the program; None when the job shall be tried again."""
        job = running.job
        try:
            header, frames = self._slot(place).receive()
            return header | {"confinement": self.confinement}, frames
        except SlotError as error:
            self._discard(place)
            if error.hung:
                return self._blame(job, Status.TIMEOUT, "the returned value could not be compared in time")
            if running.attempt < ATTEMPTS:
                self._again.append(_Running(running.tag, job, running.attempt + 1))
                return None
            if error.delivered:
                self._slot(place)  # raises when it is the machine that does not work
                return self._blame(job, Status.CRASHED, f"broke its grader {ATTEMPTS} times: {error}")
            raise SandboxError(f"grading failed {ATTEMPTS} times: {error}") from None

    def _blame(self, job: Job, status: Status, detail: str) -> Answer:
        verdict = {"status": status, "detail": detail, "tests_passed": 0, "tests_total": job.tests}
        verdict |= {"outcomes": [status] * job.tests, "mode": job.kind}
        header: dict[str, Any] = {"verdict": verdict, "errors": [f"{status}: {detail}"] * job.tests, "stable": False}
        seconds = {"cpu_seconds": 0.0, "wall_seconds": self._limits.timeout}
        return header | seconds | {"confinement": self.confinement}, [b"null"] * job.tests

    def _slot(self, place: int) -> Slot:
        slot = self._slots[place]
        if slot is None:
            slot = self._slots[place] = self._start()
            self._selector.register(slot.socket, selectors.EVENT_READ, place)
        return slot

    def _discard(self, place: int) -> None:
        """End a slot; the jobs that waited in it are blameless and go back."""
        slot, self._slots[place] = self._slots[place], None
        self._again += reversed(self._running[place])
        self._running[place].clear()
        if slot is not None:
            self._selector.unregister(slot.socket)
            slot.kill()

    def _start(self) -> Slot:
        """A new slot that has proved its confinement.

        Raises:
            UserError: the machine does not reach the required rung.
            SandboxError: it does not start, or a layer does not hold what it promises.
        """
        try:
            slot = Slot(self._limits, self._without, self._packages)
        except SlotError as error:
            raise SandboxError(f"the sandbox does not start: {error}") from None
        try:
            self.layers = slot.layers
            self.no_helper = slot.no_helper
            self.confinement = ladder.rung(slot.in_force)
            if not ladder.at_least(self.confinement, self._required):
                raise UserError(_refusal(self.confinement, self._required, slot.layers))
            self.possible = _self_test(slot)
            if broken := selftest.broken_promises(slot.in_force, self.possible):
                raise SandboxError(f"the confinement {self.confinement!r} does not hold: a program can {broken}")
        except BaseException:
            slot.kill()
            raise
        return slot

    def close(self) -> None:
        """End all slots."""
        for place, slot in enumerate(self._slots):
            if slot is not None:
                slot.close()
            self._slots[place] = None
        self._selector.close()


def _self_test(slot: Slot) -> tuple[str, ...]:
    frames = (selftest.PROGRAM.encode(), encode_calls(selftest.FUNCTION, [[name] for name in selftest.ATTEMPTS]))
    try:
        slot.send(Job(kind="evaluate", tests=len(selftest.ATTEMPTS), frames=frames))
        header, values = slot.receive()
    except SlotError as error:
        raise SandboxError(f"the sandbox fails its self-test: {error}") from None
    if failures := [error for error in header["errors"] if error is not None]:
        raise SandboxError(f"the sandbox fails its self-test: {failures[0]}")
    results = [channel.decode(value) for value in values]
    return tuple(name for name, worked in zip(selftest.ATTEMPTS, results, strict=True) if worked)


def _refusal(rung: str, required: str, layers: dict[str, str]) -> str:
    missing = "; ".join(f"{name}: {reason}" for name, reason in layers.items() if reason)
    return (
        f"sandbox: this machine reaches confinement {rung!r}, and {required!r} is required ({missing}); "
        "run `psgpo doctor`, or pass allow_unconfined=True for programs you trust"
    )
