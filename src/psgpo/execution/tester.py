"""The tester: holds tests and expected values, never runs model code. Disposable; its owner respawns it.

One tester and its zygote are a slot. The owner sends jobs over a socket, some ahead of their turn: header and frames
(`jobs.KINDS`), in marshal's format, which a trusted writer may use. Answers go back in order.

The tester's alarm clock is its own executioner: it fires one second after the program's deadline and kills the process,
even inside a comparison that never ends. The owner sees the wait status and counts it against the program.
"""

from __future__ import annotations

import json
import marshal
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from psgpo.execution import channel
from psgpo.execution.jobs import KINDS
from psgpo.execution.session import InfrastructureError, Work, Zygote
from psgpo.execution.stack import THREAD, limit_stack

MEMORY = 1 << 30
"""Address space of the tester, bytes: what a program returns must not eat the host."""
ORPHAN_CHECK = 5000
"""Milliseconds between looks whether the owner still lives, should a copy of its socket outlive it."""


def main(arguments: list[str]) -> None:
    """Serve the owner until it closes its socket. Arguments: the socket's descriptor, then the zygote's."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # The soft limit alone: programs inherit the hard one, and theirs may be larger.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    limit_stack(THREAD)  # for the zygote, which starts with it
    owner = socket.socket(fileno=int(arguments[0]))
    reader = channel.FrameReader(owner.fileno())
    parent = os.getppid()
    slot: Zygote | None = None
    try:
        slot = Zygote(arguments[1:])
        _send(owner, {"layers": slot.layers}, [])
        while True:
            if not reader.pending:
                _wait_for_work(owner, parent)
            _send(owner, *_serve(owner, reader, slot))
    except InfrastructureError as error:
        _send(owner, {"broken": str(error), "delivered": error.delivered}, [])
    except (EOFError, ConnectionResetError):
        pass  # the owner is gone; with an answer unread, its socket says so by a reset
    finally:
        if slot is not None:
            slot.close()


def _wait_for_work(owner: socket.socket, parent: int) -> None:
    waiter = select.poll()
    waiter.register(owner, select.POLLIN)
    while not waiter.poll(ORPHAN_CHECK):
        if os.getppid() != parent:
            sys.exit(0)


def _serve(owner: socket.socket, reader: channel.FrameReader, slot: Zygote) -> tuple[dict[str, Any], list[bytes]]:
    header, frames = marshal.loads(reader.frame())
    limits = {name: header[name] for name in ("timeout", "test_timeout", "memory_mb")}
    work = Work(owner, slot, **limits)
    try:
        answer, values = KINDS[header["kind"]](work, header, frames)
    except InfrastructureError:
        raise
    except Exception as error:  # a fault of the program's only when it has run at all
        cause = f"the tester failed: {type(error).__name__}: {error}"[:500]
        raise InfrastructureError(cause, delivered=work.delivered) from None
    seconds = {"cpu_seconds": work.cpu_seconds, "wall_seconds": work.wall_seconds}
    return answer | seconds | {"frames": len(values)}, values


def _send(owner: socket.socket, header: dict[str, Any], frames: list[bytes]) -> None:
    try:
        owner.sendall(channel.join_frames([json.dumps(header).encode(), *frames]))
    except OSError:
        sys.exit(0)
