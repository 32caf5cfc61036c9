"""Joining the processes that a launcher started, and ending together."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from psgpo.errors import UserError, reported

PATIENCE = timedelta(days=30)
"""How long a process waits for others: as long as a stage may take that one of them does alone. One that dies is
noticed at once, by its closed connection and by the launcher."""
PLACE = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}
"""Variables in which a launcher tells a process its place."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""
LAST_WORDS = 2.0
"""Seconds that a process which did not fail first leaves to the one that did: the launcher ends all when one ends."""


def launched() -> bool:
    """Whether a launcher (`accelerate launch`, `torchrun`) started several processes, this being one of them."""
    # Some of them may also be said by a cluster's scheduler, of machines, or be left over from one.
    return os.environ.keys() >= PLACE and int(os.environ["WORLD_SIZE"]) > 1


def speaks() -> bool:
    """Whether this process is the one that says what all of them do."""
    return not launched() or os.environ["RANK"] == "0"


@contextmanager
def ended_together() -> Iterator[None]:
    """Join the other processes for the time of the body. An error in one of them ends all, and is said once.

    The launcher ends the others when a process ends. After an error this process ends hard: a tidy end could wait for
    those that wait for it.

    Raises:
        UserError: see `join`.
    """
    # A handler in Python would not run before the collective that this process may be in is over.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_launcher()
    status: object = 1
    try:
        with reported():
            join()
            with _said_once():
                yield
        leave()
        return
    except SystemExit as ending:
        if not ending.code:
            leave()
            raise
        status = ending.code
        if isinstance(status, str):
            sys.stderr.write(f"{status}\n")
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


@contextmanager
def _said_once() -> Iterator[None]:
    """Errors of this process, unless another failed before: then ours is that it is gone."""
    try:
        yield
    except SystemExit as ending:
        if ending.code and not _first_to_fail():
            sys.exit(1)
        raise
    except BaseException:
        if not _first_to_fail():
            sys.exit(1)
        raise


def end_with_launcher() -> None:
    """Die when the launcher does, even by `kill -9`: nobody else would end the others of a process that failed.

    Linux only; elsewhere the processes go on without their launcher.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def join() -> None:
    """Make the process group from what the launcher left in the environment; gloo, and NCCL for tensors on GPUs.

    Raises:
        UserError: the launcher did not say where the processes meet, or they are on several machines.
    """
    import torch
    import torch.distributed as dist

    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(
            f"RANK, LOCAL_RANK and WORLD_SIZE are set, {' and '.join(missing)} not: start psgpo by `accelerate launch` "
            "or `torchrun`, or unset them where no launcher is meant"
        )
    size = int(os.environ["WORLD_SIZE"])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if here != size:
        raise UserError(
            f"{size} processes, {here} of them on this machine: psgpo trains on one machine; start as many processes "
            "as it has GPUs, and for a cluster see docs/verl.md"
        )
    cuda = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    if cuda and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)


def leave() -> None:
    """End the process group."""
    import torch.distributed as dist

    dist.destroy_process_group()


def _first_to_fail() -> bool:
    """True in the first process that asks. In others after a while: the launcher ends all when one ends."""
    import torch.distributed as dist

    try:
        first = int(dist.distributed_c10d._get_default_store().add("psgpo/failed", 1)) == 1
    except Exception:  # the store went with the process that held it, which has failed before
        first = False
    if not first:
        time.sleep(LAST_WORDS)
    return first
