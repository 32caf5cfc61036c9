"""Joining the processes that a launcher started, and ending together."""

from __future__ import annotations

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
LAST_WORDS = 2.0
"""Seconds that a process which did not fail first leaves to the one that did: the launcher ends all when one ends."""


def launched() -> bool:
    """Whether a launcher (`accelerate launch`, `torchrun`) started several processes, this being one of them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def ended_together() -> Iterator[None]:
    """Join the other processes for the time of the body. An error in one of them ends all, and is said once.

    The launcher ends the others when a process ends; this process ends hard after an error, because a collective
    that waits for it would keep the others.

    Raises:
        UserError: the processes are on several machines.
    """
    # A handler in Python would wait for the collective that this process may be in.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status: object = 1
    try:
        with reported():
            join()
            try:
                yield
            except BaseException:
                if not _first_to_fail():
                    time.sleep(LAST_WORDS)
                    sys.exit(1)
                raise
        leave()
        return
    except SystemExit as ending:
        if ending.code in (None, 0):
            leave()
            raise
        if isinstance(ending.code, str):
            sys.stderr.write(f"{ending.code}\n")
        status = ending.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def join() -> None:
    """Make the process group from what the launcher left in the environment; gloo, and NCCL for tensors on GPUs.

    Raises:
        UserError: the processes are on several machines.
    """
    import torch
    import torch.distributed as dist

    size = int(os.environ["WORLD_SIZE"])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if here != size:
        raise UserError(
            f"{size} processes, {here} of them on this machine: psgpo trains on one machine; start as many processes "
            "as it has GPUs, and for a cluster see docs/verl.md"
        )
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    if cuda and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)


def leave() -> None:
    """End the process group."""
    import torch.distributed as dist

    dist.destroy_process_group()


def _first_to_fail() -> bool:
    """True in the first process that asks: the error of the others is that this one is gone."""
    import torch.distributed as dist

    try:
        return int(dist.distributed_c10d._get_default_store().add("psgpo/failed", 1)) == 1
    except Exception:  # the store went with the process that held it: the main one, or the launcher
        return False
