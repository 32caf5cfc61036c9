"""What training loops share: a schedule, length buckets, a resumable state and a metrics file that agrees with it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from psgpo.config.base import Schedule
from psgpo.jsonl import JsonlAppender, read_jsonl, write_jsonl
from psgpo.parallel.team import Team

SAVE_SECONDS = 900.0
"""A training whose last state is older writes one, between those that it writes by the number of its steps."""
SAVE_SHARE = 20
"""Unless writing the last one took more than this part of that time: a state of hundreds of gigabytes takes minutes."""


def rate_factor(schedule: Schedule, step: int, *, steps: int, warmup: float) -> float:
    """Learning-rate factor of `step` (from 0) of `steps`: linear to 1 over the first `warmup` share, then `schedule`.

    It depends on nothing else, so a resumed training needs no state of a scheduler.

    >>> [rate_factor("linear", step, steps=5, warmup=0.4) for step in range(5)]
    [0.5, 1.0, 1.0, 0.6666666666666667, 0.33333333333333337]
    """
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    if schedule == "constant":
        return 1.0
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def set_rates(optimizers: Sequence[torch.optim.Optimizer], rates: Sequence[float], factor: float) -> None:
    """Give every optimizer its peak rate times `factor`."""
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor


def length_buckets(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Shuffled batches of indices whose lengths are near each other: little padding, still a random order.

    Windows of 32 batches are sorted by length inside; every index appears once.
    """
    order = rng.permutation(len(lengths))
    window = 32 * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        chunk = sorted(order[start : start + window], key=lambda index: lengths[index])
        batches += [[int(i) for i in chunk[at : at + batch_size]] for at in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def token_batches(lengths: Sequence[int], budget: int | None) -> list[list[int]]:
    """Indices in batches of similar length that hold at most `budget` tokens when padded; a longer row goes alone.

    Longest first, every index once. Without a budget all of them are one batch, in the order given.

    >>> token_batches([3, 9, 4, 5], 10)
    [[1], [3, 2], [0]]
    """
    if budget is None:
        return [list(range(len(lengths)))] if lengths else []
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def shared_batches(lengths: Sequence[int], budget: int | None, team: Team) -> Iterator[tuple[list[int], bool]]:
    """This process's `token_batches` of rows that all processes share, and whether a batch counts.

    Where networks are sharded every process makes as many passes, because each gathers weights from all: a process
    that has fewer repeats the first row in batches that must not count.

    >>> [list(shared_batches([3, 9, 4, 5], 10, Team(rank=r, size=2, sharded=True))) for r in range(2)]
    [[([1], True), ([0], True)], [([3, 2], True), ([0], False)]]
    """
    dealt = [
        [[rows[i] for i in part] for part in token_batches([lengths[row] for row in rows], budget)]
        for rows in team.deal(lengths)
    ]
    mine = dealt[team.rank]
    yield from ((batch, True) for batch in mine)
    if team.sharded:
        yield from [([0], False)] * (max(map(len, dealt)) - len(mine))


def computing(dtype: str, device: str | torch.device) -> AbstractContextManager[Any]:
    """The context of forward passes under `model.dtype`: bfloat16 products over float32 weights, or nothing."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=getattr(torch, dtype))


class ResumableLog:
    """A state file and a JSON Lines metrics file that never disagree.

    `save` writes the state atomically; on construction metrics past the saved step are dropped, because the steps
    after it are going to be repeated.

    `state` is mapped from its file, so several processes share what they read of it; call `forget` once it is taken
    up, which must copy.

    Args:
        writes: False in all but one of several processes: they read the state, and nothing is written.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._writes = writes
        self._saved_at = self._asked_at = time.monotonic()
        self._saving = 0.0
        self.state_path = folder / "state.pt"
        self.metrics_path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.state: dict[str, Any] | None = None
        """What to go on from; None where there is nothing, and after `forget`."""
        if self.state_path.is_file():
            # Our own file: optimizer states are not pure tensors, yet need no arbitrary classes.
            self.state = torch.load(self.state_path, map_location="cpu", weights_only=True, mmap=True)
        self.step = 0 if self.state is None else int(self.state["step"])
        """Steps already done when this was made."""
        if not writes:
            return
        if self.metrics_path.exists():
            rows = read_jsonl(self.metrics_path, dict, torn_tail_ok=True)
            write_jsonl(self.metrics_path, [row for row in rows if row["step"] <= self.step])
        self._metrics = JsonlAppender(self.metrics_path)

    def forget(self) -> None:
        """Let go of `state`: of its memory, and of its file, which is going to be replaced."""
        self.state = None

    def log(self, row: dict[str, Any]) -> None:
        """Append one row; NaN and infinity become null."""
        if self._writes:
            self._metrics.append(row)

    def due(self, step: int, steps: int, *, parts: int, team: Team) -> bool:
        """Whether to `save` after `step` of `steps`: `parts` times a run, at its end, and when the last is long ago.

        Every process of the team asks, and is told what the main one's clock says.
        """
        self._asked_at = time.monotonic()  # what `save` is given is gathered after this, and that takes time too
        if step % max(1, steps // parts) == 0 or step == steps:
            return True
        return team.on_main(lambda: self._asked_at - self._saved_at >= max(SAVE_SECONDS, SAVE_SHARE * self._saving))

    def save(self, step: int, **state: Any) -> None:
        """Write `state` (state dicts, tensors, plain values) as the place to go on from after `step` steps.

        Follows `due`, from which on the time that saving takes is counted.
        """
        if not self._writes:
            return
        temporary = self.state_path.with_name("state.pt.tmp")
        torch.save({"step": step, **state}, temporary)
        temporary.replace(self.state_path)
        self._saved_at = time.monotonic()
        self._saving = self._saved_at - self._asked_at

    def close(self) -> None:
        """Close the metrics file. The state stays until the stage's receipt is written (`psgpo.runs.stages`)."""
        if self._writes:
            self._metrics.close()
