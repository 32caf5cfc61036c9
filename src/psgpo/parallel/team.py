"""The processes of a run, seen from one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

BUCKET = 1 << 26
"""Numbers that are summed over processes at once: 256 MiB in float32, which a copy of must fit beside the gradients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """Which process this is, of how many. Every process calls the methods below in the same order."""

    rank: int = 0
    size: int = 1
    sharded: bool = False
    """Networks are split over the processes (FSDP); else every process holds them whole (data parallel)."""

    @property
    def is_main(self) -> bool:
        """The process that writes files, and speaks."""
        return self.rank == 0

    def block(self, count: int) -> slice:
        """This process's part of `count` things in order, neighbours together.

        >>> [Team(rank=r, size=2).block(5) for r in range(2)]
        [slice(0, 3, None), slice(3, 5, None)]
        """
        least, more = divmod(count, self.size)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def deal(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of every process's rows, in order: about as many rows, and tokens, for each.

        The longest first, to and fro.

        >>> Team(size=2).deal([9, 1, 5, 4, 7])
        [[0, 1, 3], [2, 4]]
        """
        if self.size == 1:
            return [list(range(len(lengths)))]
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        turn = [*range(self.size), *reversed(range(self.size))]
        shares: list[list[int]] = [[] for _ in range(self.size)]
        for place, index in enumerate(order):
            shares[turn[place % len(turn)]].append(index)
        return [sorted(share) for share in shares]

    def gather(self, mine: Sequence[T]) -> list[T]:
        """Everybody's things, in the order of the processes."""
        if self.size == 1:
            return list(mine)
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, list(mine))
        return [item for part in found for item in part]

    def totals(self, mine: Mapping[str, float]) -> dict[str, float]:
        """Sums over processes, by name."""
        sums: dict[str, float] = defaultdict(float)
        for name, value in self.gather(list(mine.items())):
            sums[name] += value
        return dict(sums)

    def sum(self, mine: Tensor) -> Tensor:
        """The sum over processes, in `mine` itself."""
        if self.size > 1:
            dist.all_reduce(mine)
        return mine

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Put the sum over processes in every `grad`; a gradient that no process has stays None."""
        if self.size == 1:
            return
        present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
        used = [p for p, holders in zip(parameters, self.sum(present).tolist(), strict=True) if holders]
        for bucket in _buckets(used):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            if len(bucket) == 1 and grads[0].is_contiguous():
                bucket[0].grad = self.sum(grads[0])  # a large one needs no copy
                continue
            flat = self.sum(torch.cat([grad.flatten() for grad in grads]))
            parts = flat.split([grad.numel() for grad in grads])
            for parameter, grad, part in zip(bucket, grads, parts, strict=True):
                parameter.grad = grad.copy_(part.view_as(grad))

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # of a tensor on the CPU: gloo, which notices when a process is gone

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` gives in the main process; the others wait for it.

        An error there ends the process, and with it all of them (`ended_together`).
        """
        if self.size == 1:
            return work()
        said = [work() if self.is_main else None]
        dist.broadcast_object_list(said, src=0)
        return said[0]  # type: ignore[return-value]


ALONE = Team()
"""One process."""


def current_team() -> Team:
    """The team of this process: those that a launcher started together, or itself alone."""
    if not dist.is_available() or not dist.is_initialized():
        return ALONE
    return Team(rank=dist.get_rank(), size=dist.get_world_size())


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Neighbours of one precision, at most `BUCKET` numbers together; a larger one goes alone."""
    buckets: list[list[torch.nn.Parameter]] = []
    room, dtype = 0, None
    for parameter in parameters:
        if parameter.numel() > room or parameter.dtype != dtype:
            buckets.append([])
            room, dtype = BUCKET, parameter.dtype
        buckets[-1].append(parameter)
        room -= parameter.numel()
    return buckets
