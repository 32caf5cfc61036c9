"""Who does what in a team, and what its members tell each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from parallel_world import together
from psgpo.parallel import team as teams
from psgpo.parallel.team import ALONE, Team, current_team


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 5, 16])
def test_every_row_belongs_to_one_process(size: int, count: int) -> None:
    rows = list(range(count))
    assert [row for rank in range(size) for row in rows[Team(rank=rank, size=size).block(count)]] == rows
    dealt = Team(size=size).deal([(7 * row) % 5 for row in rows])
    assert sorted(row for share in dealt for row in share) == rows
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_dealt_rows_hold_about_as_many_tokens() -> None:
    lengths = [100, 90, 80, 70, 60, 50, 40, 30]
    tokens = [sum(lengths[row] for row in share) for share in Team(size=2).deal(lengths)]
    assert tokens == [260, 260]


def test_one_process_is_the_identity() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    ALONE.sum_gradients([parameter])
    assert parameter.grad is None
    assert ALONE.gather([1, 2]) == [1, 2]
    assert ALONE.on_main(lambda: 3) == 3
    assert current_team() == ALONE


def conversation() -> dict[str, Any]:
    team = current_team()
    teams.BUCKET = 3  # several buckets
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (2, 5, 1, 2)]
    for number, parameter in enumerate(parameters):
        if number == 0 or number == team.rank + 1:  # one that both have, one each, one that nobody has
            parameter.grad = torch.full_like(parameter, 10.0 * number + team.rank)
    team.sum_gradients(parameters)
    team.wait()
    return {
        "gathered": team.gather(range(team.rank + 1)),
        "totals": team.totals({"a": 1.5, f"only {team.rank}": 1.0}),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in parameters],
        "main": team.on_main(lambda: f"said by {team.rank}"),
        "sharded": replace(team, sharded=True).block(4),
    }


def test_what_processes_tell_each_other(tmp_path: Path) -> None:
    for rank, found in enumerate(together(conversation, 2, tmp_path)):
        assert found == {
            "gathered": [0, 0, 1],
            "totals": {"a": 3.0, "only 0": 1.0, "only 1": 1.0},
            "gradients": [[1.0] * 2, [10.0] * 5, [21.0], None],
            "main": "said by 0",
            "sharded": slice(2 * rank, 2 * rank + 2, None),
        }
