"""What training loops share: learning-rate schedules, when a state is due."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from psgpo import training
from psgpo.config.base import Schedule
from psgpo.parallel.team import ALONE
from psgpo.training import SAVE_SECONDS, SAVE_SHARE, ResumableLog, rate_factor, set_rates


def rates(schedule: Schedule, steps: int, warmup: float) -> list[float]:
    return [rate_factor(schedule, step, steps=steps, warmup=warmup) for step in range(steps)]


def test_constant_without_warmup_is_exactly_one() -> None:
    assert rates("constant", 7, 0.0) == [1.0] * 7


def test_schedules_by_hand() -> None:
    assert rates("linear", 5, 0.4) == pytest.approx([0.5, 1.0, 1.0, 2 / 3, 1 / 3])
    assert rates("constant", 5, 0.4) == [0.5, 1.0, 1.0, 1.0, 1.0]
    cosine = [0.5, 1.0, 1.0, (1 + math.cos(math.pi / 3)) / 2, (1 + math.cos(2 * math.pi / 3)) / 2]
    assert rates("cosine", 5, 0.4) == pytest.approx(cosine)


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (2, 0.5), (40, 0.05), (40, 1.0)])
def test_no_step_is_lost_and_none_exceeds_the_peak(schedule: Schedule, steps: int, warmup: float) -> None:
    factors = rates(schedule, steps, warmup)
    assert max(factors) == 1.0
    assert min(factors) > 0.0


def test_rates_reach_every_group() -> None:
    one, two = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.AdamW([{"params": [one]}, {"params": [two]}], lr=1.0)
    set_rates([optimizer], [0.1], 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]


def test_a_state_is_due_ten_times_a_run_and_when_the_last_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, writing = [0.0], [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(torch, "save", lambda state, path: path.touch() or clock.append(clock.pop() + writing[0]))
    log = ResumableLog(tmp_path)

    def due(step: int, later: float = 0.0) -> bool:
        clock[0] += later
        return log.due(step, 1000, parts=10, team=ALONE)

    assert [step for step in range(1, 1001) if due(step)] == list(range(100, 1001, 100))
    assert not due(7, SAVE_SECONDS - 1)
    assert due(8, 1)
    log.save(8)
    assert not due(9, SAVE_SECONDS - 1)
    writing[0] = SAVE_SECONDS  # as long as that: saving must not be half of the work
    log.save(9)
    assert not due(10, SAVE_SHARE * SAVE_SECONDS - 1)
    assert due(11, 1)
