"""Processes that train together, for tests: forked from a server that has loaded PyTorch once, never left hanging."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from psgpo.parallel.launch import join, leave
from psgpo.parallel.team import current_team

SECONDS = 120
"""A team that takes longer hangs."""


def together(work: Callable[..., Any], size: int, folder: Path, *arguments: Any) -> list[Any]:
    """What `work(*arguments)` gives in each of `size` processes, in the order of their ranks.

    Raises:
        AssertionError: one failed or hangs.
    """
    context = server()
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    processes = [
        context.Process(target=_member, args=(rank, size, port, folder / f"{rank}.pickle", work, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    ends = time.monotonic() + SECONDS
    for process in processes:
        process.join(max(0.0, ends - time.monotonic()))
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, f"{len(hanging)} of {size} processes hang"
    assert [process.exitcode for process in processes] == [0] * size
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(size)]


def killed(work: Callable[..., Any], state: Path, *arguments: Any) -> None:
    """`work(*arguments)` in a process that is killed (-9) soon after it has written `state` for the first time."""
    process = server().Process(target=_alone, args=(work, arguments))
    process.start()
    ends = time.monotonic() + SECONDS
    while not state.exists() and process.is_alive() and time.monotonic() < ends:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert state.exists(), "killed before the first state: nothing is tested"
    assert process.exitcode == -signal.SIGKILL, "it ended before it was killed: nothing is tested"


def server() -> Any:
    """Where processes are forked from."""
    context = multiprocessing.get_context("forkserver")
    preload = ["psgpo.rl.ppo", "psgpo.sft", "torch.distributed.tensor", "torch.distributed.fsdp", "peft"]
    context.set_forkserver_preload(["parallel_world", *preload])
    return context


def _alone(work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    work(*arguments)


def _member(rank: int, size: int, port: int, out: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    join()
    assert current_team().rank == rank
    result = work(*arguments)
    leave()
    out.write_bytes(pickle.dumps(result))


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
