"""The slots of one sandbox: keep them busy, replace the broken ones, and decide who is at fault.

The program is at fault when what it returned kept the tester busy beyond its alarm (TIMEOUT), and when it broke two
slots after it had been handed over while a new slot passes its self-test (CRASHED). Everything else is the grader's
fault and ends as `SandboxError`.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence
from typing import Any

from psgpo.errors import UserError
from psgpo.execution import channel, selftest
from psgpo.execution.confinement import ladder
from psgpo.execution.slot import Answer, Job, Limits, Slot, SlotError
from psgpo.records import Status

ATTEMPTS = 2
"""How often a program is tried when its slot breaks."""


class SandboxError(RuntimeError):
    """The grader itself failed (status INFRASTRUCTURE): neither pass nor fail."""


class Pool:
    """A fixed number of slots. Not thread-safe."""

    def __init__(self, workers: int, limits: Limits, *, required: str, without: Sequence[str]) -> None:
        self._limits = limits
        self._required = required
        self._without = tuple(without)
        self._slots: list[Slot | None] = [None] * workers
        self.layers: dict[str, str] = {}
        """Layer of confinement -> empty when it is in force, else why not."""
        self.possible: tuple[str, ...] = ()
        """Attempts of the self-test that succeeded."""
        self.confinement = ""
        """The rung in force, the same for all slots."""
        try:
            for place in range(workers):
                self._slots[place] = self._start()
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """The answers in the order of the jobs.

        Raises:
            SandboxError: a slot broke, and no program is to blame.
        """
        answers: list[Answer | None] = [None] * len(jobs)
        waiting = [(index, 1) for index in reversed(range(len(jobs)))]
        running: dict[int, tuple[int, int]] = {}
        try:
            with selectors.DefaultSelector() as selector:
                while waiting or running:
                    self._fill(jobs, waiting, running, selector)
                    for place in self._ready(running, selector):
                        selector.unregister(self._slot(place).socket)
                        index, attempt = running.pop(place)
                        answer = self._collect(place, jobs[index], attempt)
                        if answer is None:
                            waiting.append((index, attempt + 1))
                        answers[index] = answer
        except BaseException:
            for place in running:  # their answers would be taken for those of later jobs
                self._discard(place)
            raise
        return [answer for answer in answers if answer is not None]

    def _fill(
        self,
        jobs: Sequence[Job],
        waiting: list[tuple[int, int]],
        running: dict[int, tuple[int, int]],
        selector: selectors.BaseSelector,
    ) -> None:
        for place in range(len(self._slots)):
            if waiting and place not in running:
                slot = self._slot(place)
                running[place] = waiting.pop()
                selector.register(slot.socket, selectors.EVENT_READ, place)
                try:
                    slot.send(jobs[running[place][0]])
                except SlotError:
                    slot.deadline = 0.0  # collected at once, as broken

    def _ready(self, running: dict[int, tuple[int, int]], selector: selectors.BaseSelector) -> list[int]:
        soonest = min(self._slot(place).deadline for place in running)
        ready = {key.data for key, _ in selector.select(max(0.0, soonest - time.monotonic()))}
        late = {place for place in running if self._slot(place).deadline <= time.monotonic()}
        return sorted(ready | late)

    def _collect(self, place: int, job: Job, attempt: int) -> Answer | None:
        """The slot's answer, or one that blames the program; None when the job shall be tried again."""
        try:
            header, frames = self._slot(place).receive()
            return header | {"confinement": self.confinement}, frames
        except SlotError as error:
            self._discard(place)
            if error.hung:
                return self._blame(job, Status.TIMEOUT, "the returned value could not be compared in time")
            if attempt < ATTEMPTS:
                return None
            if error.delivered:
                self._slot(place)  # raises when it is the machine that does not work
                return self._blame(job, Status.CRASHED, f"broke its grader {ATTEMPTS} times: {error}")
            raise SandboxError(f"grading failed {ATTEMPTS} times: {error}") from None

    def _blame(self, job: Job, status: Status, detail: str) -> Answer:
        verdict = {"status": status, "detail": detail, "tests_passed": 0, "tests_total": job.tests}
        header: dict[str, Any] = {"verdict": verdict, "errors": [f"{status}: {detail}"] * job.tests, "stable": False}
        seconds = {"cpu_seconds": 0.0, "wall_seconds": self._limits.timeout}
        return header | seconds | {"confinement": self.confinement}, [b"null"] * job.tests

    def _slot(self, place: int) -> Slot:
        slot = self._slots[place]
        if slot is None:
            slot = self._slots[place] = self._start()
        return slot

    def _discard(self, place: int) -> None:
        slot, self._slots[place] = self._slots[place], None
        if slot is not None:
            slot.kill()

    def _start(self) -> Slot:
        """A new slot that has proved its confinement.

        Raises:
            UserError: the machine does not reach the required rung.
            SandboxError: it does not start, or a layer does not hold what it promises.
        """
        try:
            slot = Slot(self._limits, self._without)
        except SlotError as error:
            raise SandboxError(f"the sandbox does not start: {error}") from None
        try:
            self.layers = slot.layers
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


def _self_test(slot: Slot) -> tuple[str, ...]:
    calls = channel.encode([[name] for name in selftest.ATTEMPTS])
    frames = (selftest.PROGRAM.encode(), selftest.FUNCTION.encode(), calls)
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
