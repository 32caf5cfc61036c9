"""The tester's side of a zygote and of one program's process."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psgpo.execution import channel, zygote
from psgpo.execution.child import DONE, MAX_DETAIL, READY
from psgpo.records import Status

READY_LIMIT = 5.0
"""Seconds a fresh child may take until it is ready; longer is the grader's fault, not the program's."""
WATCHDOG = 1.0
"""Seconds after the program's deadline at which the tester is killed."""
PATIENCE = 0.005
"""Seconds between looks at what a program has sent, see `_Waiter`."""
MUCH = 1 << 15
"""Bytes at once after which a waiter is patient no more; half of what a pipe holds."""
MAX_TOTAL_BYTES = 16 << 20
"""All replies of one program together."""
LEAVE_LIMIT = 2.0
"""Seconds that a zygote without work may take to leave; less than its owner grants the tester."""
SPARE_CPU_SECONDS = 1
"""The CPU limit is this much above the wall limit: a backstop should the tester die."""


class InfrastructureError(Exception):
    """The slot is out of order.

    `delivered` is False when the program had not been handed over yet, so that it cannot have caused this.
    """

    def __init__(self, reason: str, *, delivered: bool) -> None:
        super().__init__(reason)
        self.delivered = delivered


class EndedError(Exception):
    """The program will answer no further call."""

    def __init__(self, status: Status, detail: str, *, stable: bool = True, loaded: bool = True) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.loaded = loaded
        """False when the program ended before any test could run."""
        self.stable = stable
        """Whether the same program would end the same way again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The program's answer to one call."""

    value: bytes | None = None
    """The encoded value when the call returned."""
    status: Status | None = None
    """What went wrong otherwise."""
    detail: str = ""
    exception: str = ""
    """Name of the exception's class, as the program's process gives it."""


class Zygote:
    """The zygote's process and control socket. It dies with this process."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.control, theirs = socket.socketpair()
        boot = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
        # A fixed hash seed makes the order of a set of strings, hence a verdict, the same in every slot and run.
        # `-I` would ignore it; the environment holds nothing else, so `-P -s -S` isolates as well.
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", boot, "zygote", str(theirs.fileno()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment | {"PYTHONHASHSEED": "0"},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        try:
            self.layers: dict[str, str] = channel.decode(channel.FrameReader(self.control.fileno()).frame())
        except (EOFError, ConnectionError):
            raise InfrastructureError("the zygote died while starting", delivered=False) from None
        if "error" in self.layers:
            raise InfrastructureError(f"the zygote cannot start: {self.layers['error']}", delivered=False)

    def close(self) -> None:
        """Let the zygote leave by itself and wait for it: what its programs took of the processor then counts among
        what the children of this process took, and in turn of the owner's (`resource.RUSAGE_CHILDREN`)."""
        self.control.close()
        try:
            self.process.wait(LEAVE_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Work:
    """One program's budget, over all the processes that it takes."""

    def __init__(
        self, owner: socket.socket, slot: Zygote, *, timeout: float, test_timeout: float | None, memory_mb: int
    ) -> None:
        self.owner = owner
        self.control = slot.control
        self.timeout = timeout
        self.test_timeout = math.inf if test_timeout is None else test_timeout
        self.memory_bytes = memory_mb << 20
        self.cpu_seconds = 0.0
        self.wall_seconds = 0.0
        self.delivered = False
        """Whether any process has been given the program, so that it can be to blame."""

    @property
    def seconds_left(self) -> float:
        """Of the program's wall time."""
        return self.timeout - self.wall_seconds


class Session:
    """One process of a program. A context manager: the process is gone at its end.

    Args:
        work: the budget it draws on.
        streams: descriptors for standard input and output of a script; closed here once they are handed over.
        patient: the program needs nothing but what it gets at the start.
    """

    def __init__(self, work: Work, streams: Sequence[int] = (), *, patient: bool = False) -> None:
        self._work = work
        self._control = work.control
        self._timeout = min(work.seconds_left, work.test_timeout) if streams else work.seconds_left
        self._channel, childs = socket.socketpair()
        self._buffer = bytearray()
        self._received = 0
        self._ready = False
        self._waiter = _Waiter(self._channel, work.owner, patient=patient)
        self._exit: tuple[int, float] | None = None
        self._overstayed = False
        self._cpu_limit = math.ceil(self._timeout) + SPARE_CPU_SECONDS
        self._started = time.monotonic()
        self._deadline = self._end_at = self._started + READY_LIMIT
        signal.setitimer(signal.ITIMER_REAL, READY_LIMIT + self._timeout + WATCHDOG)
        with childs:
            try:
                request = zygote.RUN_REQUEST.pack(self._cpu_limit, work.memory_bytes)
                socket.send_fds(self._control, [request], [childs.fileno(), *streams])
            except OSError as error:
                raise InfrastructureError(f"the zygote is gone ({error})", delivered=False) from None
            finally:
                for stream in streams:
                    os.close(stream)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self._work.wall_seconds += time.monotonic() - self._started
        self._work.cpu_seconds += self._end(zygote.END_NOW)[1]
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._channel.close()

    def start(self, frames: Sequence[bytes]) -> None:
        """Hand over the program. The child reads it when it is confined; the program's time begins then."""
        self._send(frames)

    def ask(self, frame: bytes) -> Reply:
        """Send one request and wait for its answer.

        Raises:
            EndedError: there will be none.
        """
        self._send([frame])
        return self.reply()

    def reply(self) -> Reply:
        """The answer to the next call.

        Raises:
            EndedError: there will be none.
        """
        if self._ready:
            self._deadline = min(self._end_at, time.monotonic() + self._work.test_timeout)
        frame = self._frame()
        if frame.startswith(b'["ok",') and frame.endswith(b"]"):
            return Reply(value=frame[6:-1])
        return self._failure(frame)

    def output(self, stream: int, limit: int) -> bytes:
        """All that a script writes to `stream`, which ends when it does.

        Raises:
            EndedError: the script failed, was killed or wrote more than `limit` bytes.
        """
        self._greet()
        written = bytearray()
        waiter = _Waiter(stream, self._work.owner)
        while True:
            try:
                part = os.read(stream, 1 << 16)
            except BlockingIOError:
                waiter.wait(self._deadline)
                continue
            if not part:
                break
            waiter.note(len(part))
            written += part
            if len(written) > limit:
                raise EndedError(Status.OUTPUT_LIMIT, f"the program wrote more than {limit} bytes")
        try:
            if (frame := self._frame()) != DONE:
                self._failure(frame)
        except EndedError as end:
            # Leaving without a word is fine, for the output speaks; staying is not.
            if end.status is not Status.NO_REPORT or self._overstayed:
                raise
        return bytes(written)

    def _failure(self, frame: bytes) -> Reply:
        try:
            kind, word, detail, exception = channel.decode(frame)
            status = Status(word)
        except (ValueError, TypeError):
            raise EndedError(Status.BAD_VALUE, "malformed reply") from None
        if status not in _CLAIMABLE or kind not in ("error", "end", "load"):
            raise EndedError(Status.BAD_VALUE, "malformed reply")
        detail = _one_line(detail)
        if kind != "error":
            raise EndedError(status, detail, stable=status is not Status.MEMORY, loaded=kind == "end")
        return Reply(status=status, detail=detail, exception=_one_line(exception))

    def _send(self, frames: Sequence[bytes]) -> None:
        left = self._end_at - time.monotonic() + (0 if self._ready else self._timeout)
        self._channel.settimeout(max(left, 0.001))
        try:
            self._channel.sendall(channel.join_frames(frames))
        except TimeoutError:
            raise _out_of_time() from None
        except OSError:
            pass  # the process died while reading; the next reply says how
        self._channel.settimeout(None)

    def _greet(self) -> None:
        """Wait until the child is confined. From here on every fault is the program's."""
        if self._ready:
            return
        try:
            frame = self._next_frame()
            word, since = channel.decode(frame)
        except (EndedError, channel.BadValueError, TypeError) as error:
            raise InfrastructureError(f"the program's process did not start: {error}", delivered=False) from None
        assert word == READY
        self._ready = self._work.delivered = True
        self._started = since
        self._end_at = since + self._timeout
        self._deadline = min(self._end_at, since + self._work.test_timeout)
        signal.setitimer(signal.ITIMER_REAL, max(0.0, self._end_at - time.monotonic()) + WATCHDOG)

    def _frame(self) -> bytes:
        self._greet()
        return self._next_frame()

    def _next_frame(self) -> bytes:
        size = int.from_bytes(self._take(channel.HEADER), "little")
        self._received += size
        if size > channel.MAX_BYTES + channel.ENVELOPE or self._received > MAX_TOTAL_BYTES:
            raise EndedError(Status.OUTPUT_LIMIT, "the program returned more than the limit")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                part = self._channel.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._waiter.wait(self._deadline)
                continue
            except ConnectionError:
                part = b""
            if not part:
                raise self._end_of_channel()
            self._waiter.note(len(part))
            self._buffer += part
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _end_of_channel(self) -> EndedError:
        """Say how the process ended, by its wait status."""
        status, cpu_seconds = self._end(zygote.END_AFTER_EXIT)
        if not os.WIFSIGNALED(status):
            return EndedError(Status.NO_REPORT, "the program ended before every test had answered")
        number = os.WTERMSIG(status)
        if cpu_seconds >= self._cpu_limit - 0.1 and number in (signal.SIGKILL, signal.SIGXCPU):
            return EndedError(Status.TIMEOUT, "CPU time limit", stable=False)
        if number == signal.SIGKILL and self._overstayed:
            return EndedError(Status.NO_REPORT, "the program closed its channel")
        name = signal.Signals(number).name
        return EndedError(Status.CRASHED, f"killed by {name}", stable=number != signal.SIGKILL)

    def _end(self, order: bytes) -> tuple[int, float]:
        if self._exit is None:
            self._control.settimeout(READY_LIMIT)
            try:
                self._control.sendall(order)
                data = self._control.recv(zygote.END_REPLY.size, socket.MSG_WAITALL)
            except OSError as error:
                raise InfrastructureError(f"the zygote hangs ({error})", delivered=self._ready) from None
            if len(data) != zygote.END_REPLY.size:
                raise InfrastructureError("the zygote died", delivered=self._ready)
            status, cpu_seconds, self._overstayed = zygote.END_REPLY.unpack(data)
            self._exit = (status, cpu_seconds)
        return self._exit


class _Waiter:
    """Waits for a stream of the program's process, patiently if possible.

    Waking up for every small answer costs more than the answer. A patient waiter sleeps until the other side has closed
    the stream, and looks every few milliseconds what has come meanwhile.

    Args:
        stream: what to wait for.
        owner: its end ends the tester, for nobody waits for the answer any more.
        patient: False for a dialogue, where the program waits for this side too.
    """

    def __init__(self, stream: socket.socket | int, owner: socket.socket, *, patient: bool = True) -> None:
        self._stream = stream
        self._owner_fd = owner.fileno()
        self._poll = select.poll()
        self._poll.register(stream, 0 if patient else select.POLLIN)
        self._poll.register(owner, select.POLLHUP)
        self._patience = PATIENCE if patient else math.inf

    def note(self, size: int) -> None:
        """Learn how much came at once: one who writes much must not wait for room."""
        if size > MUCH and self._patience < math.inf:
            self._poll.modify(self._stream, select.POLLIN)
            self._patience = math.inf

    def wait(self, deadline: float) -> None:
        """Return when there may be something to read.

        Raises:
            EndedError: the deadline (time.monotonic) has come.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise EndedError(Status.TIMEOUT, "wall time limit", stable=False)
        events = self._poll.poll(1000 * min(left, self._patience))
        if any(fd == self._owner_fd for fd, _ in events):
            sys.exit(0)


def _out_of_time() -> EndedError:
    return EndedError(Status.TIMEOUT, "wall time limit", stable=False)


_CLAIMABLE = frozenset(Status) - {Status.PASSED, Status.WRONG_ANSWER, Status.INFRASTRUCTURE, Status.TIMEOUT}
"""Failures that the program's process may report about itself."""


def _one_line(detail: Any) -> str:
    text = detail if type(detail) is str else ""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:MAX_DETAIL]).split())
