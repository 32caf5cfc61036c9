"""The owner's handle of one slot: a tester process and the socket to it."""

from __future__ import annotations

import json
import marshal
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from psgpo.execution import channel, helper
from psgpo.execution.packages import Packages

Json = dict[str, Any]
Answer = tuple[Json, list[bytes]]

START_LIMIT = 30.0
"""Seconds a slot may take to start."""
TEST_OVERHEAD = 0.01
"""Seconds per test beside the program's own: a whole program's process is started for each."""
REPLY_LIMIT = 10.0
"""Seconds beyond the program's timeout that the tester may take before it counts as hung. The tester has a sharper
alarm of its own; this one catches a tester that is stopped or starved."""
AHEAD_BYTES = 32 << 10
"""Largest job that may be sent while another runs; well below what a socket holds."""
CLOSE_LIMIT = 5.0
"""Seconds a tester may take to leave after its socket was closed, before it is killed."""


class SlotError(Exception):
    """The tester or zygote died, hung or refused to start."""

    def __init__(self, reason: str, *, delivered: bool, hung: bool = False) -> None:
        super().__init__(reason)
        self.delivered = delivered
        """False when the program had not been handed over yet: it cannot be to blame."""
        self.hung = hung
        """True when the tester's own alarm ended it: what the program returned kept it busy beyond the deadline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one program may use."""

    timeout: float
    """Wall seconds for all tests of a program."""
    test_timeout: float | None = None
    """Wall seconds for one test; None for no limit but the program's."""
    memory_mb: int
    """Address space, MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One program and what to do with it."""

    kind: str
    """A key of `psgpo.execution.jobs.KINDS`."""
    tests: int
    """How many calls it has to answer."""
    frames: tuple[bytes, ...]
    comparator: str = ""
    tolerance: float = 0.0

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.frames))


class Slot:
    """A running tester. Not thread-safe. It takes jobs ahead and answers them in order."""

    def __init__(self, limits: Limits, without: Sequence[str], packages: Packages) -> None:
        self._limits = limits
        self._limits_given = asdict(limits)
        self._delivered = False
        self._tests = deque([0])
        """How many each answer to come is about; the first one says that the tester is ready."""
        self._buffer = bytearray()
        self.socket, theirs = socket.socketpair()
        boot = Path(__file__).with_name("boot.py")
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(boot),
                "tester",
                str(theirs.fileno()),
                packages.to_argument(),
                *without,
                *helper.unwanted(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # an interrupt from the keyboard is for the owner alone
        )
        theirs.close()
        self.deadline = time.monotonic() + START_LIMIT
        """When the tester counts as hung (time.monotonic)."""
        try:
            header, _ = self.receive()
        except SlotError:
            self.kill()
            raise
        self.layers: dict[str, str] = header["layers"]
        """Layer of confinement -> empty when it is in force, else why not."""
        self.no_helper: str = self.layers.pop(helper.NAME)
        """Empty when the zygote runs on the C helper, else why not."""

    @property
    def in_force(self) -> frozenset[str]:
        return frozenset(layer for layer, refusal in self.layers.items() if not refusal)

    def send(self, job: Job) -> None:
        """Hand over a job; the answer is fetched with `receive` once the socket is readable.

        A job sent while another runs must be small (`AHEAD_BYTES`): nobody reads it before that one has ended.
        """
        header = {name: getattr(job, name) for name in ("kind", "tests", "comparator", "tolerance")}
        message = channel.join_frames([marshal.dumps((header | self._limits_given, job.frames))])
        if not self._tests:
            self._expect(job.tests)
            self._delivered = False
        try:
            self.socket.settimeout(REPLY_LIMIT)
            self.socket.sendall(message)
        except OSError as error:
            raise SlotError(f"the tester does not take work ({error})", delivered=False) from None
        self._tests.append(job.tests)
        self._delivered = True

    def _expect(self, tests: int) -> None:
        # Twice, for a script may be run a second time, as a dialogue.
        self.deadline = time.monotonic() + 2 * self._limits.timeout + REPLY_LIMIT + TEST_OVERHEAD * tests

    def receive(self) -> Answer:
        """The answer to the oldest job: header and frames.

        Raises:
            SlotError: the tester died or hung, or says that its zygote did.
        """
        header: Json = json.loads(self._frame())
        if "broken" in header:
            raise SlotError(header["broken"], delivered=header["delivered"])
        frames = [self._frame() for _ in range(header.get("frames", 0))]
        self._tests.popleft()
        self._expect(self._tests[0] if self._tests else 0)
        return header, frames

    @property
    def answered(self) -> bool:
        """Whether bytes of another answer are here already, so that the socket may stay silent."""
        return bool(self._buffer)

    def _frame(self) -> bytes:
        return self._take(int.from_bytes(self._take(channel.HEADER), "little"))

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self.socket.settimeout(max(0.001, self.deadline - time.monotonic()))
            try:
                part = self.socket.recv(max(1 << 16, size - len(self._buffer)))
            except TimeoutError:
                raise SlotError("the tester hangs", delivered=self._delivered) from None
            except OSError:
                part = b""
            if not part:
                raise self._death()
            self._buffer += part
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _death(self) -> SlotError:
        try:
            status = self._process.wait(CLOSE_LIMIT)
        except subprocess.TimeoutExpired:
            return SlotError("the tester closed its socket", delivered=self._delivered)
        hung = status == -signal.SIGALRM
        return SlotError(f"the tester died (exit status {status})", delivered=self._delivered, hung=hung)

    def close(self) -> None:
        """Let the tester leave by itself; its zygote leaves with it."""
        self.socket.close()
        try:
            self._process.wait(CLOSE_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the tester; zygote and child die with it."""
        self.socket.close()
        self._process.kill()
        self._process.wait()
