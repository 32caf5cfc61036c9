"""The sandbox of a run: how many programs at once is the machine's business, what they may use is the recipe's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psgpo.config import Recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.records import Call, CallTests, Status
from psgpo.runs import opening
from psgpo.runs.directory import RunDirectory
from psgpo.runs.dry import dry_run

NORM = "import numpy as np\ndef f(x): return float(np.linalg.norm(np.array(x)))"
SLOW = "import time\ndef f(x): time.sleep(0.5); return 5.0"
TESTS = CallTests(function="f", calls=(Call(args=([3.0, 4.0],), expected=5.0),))


def recipe(path: Path, **keys: Any) -> Recipe:
    table = {"name": "s", "out": str(path / "run"), "problems": {"kind": "opchain"}, "arms": {"baseline": {}}}
    return parse_recipe(table | keys, origin="r")


@pytest.mark.parametrize(
    ("keys", "world", "workers"),
    [
        ({"processes": 1}, None, 16),
        ({"processes": 3}, None, 5),
        ({"processes": 32}, None, 1),
        ({"processes": 3}, 4, 4),  # under a launcher no stage runs beside another, but every process has a sandbox
        ({"processes": 1, "sandbox": {"workers": 3}}, None, 3),
        ({"sandbox": {"workers": 3}}, 4, 3),
    ],
)
def test_cores_are_shared_by_what_runs_at_once(
    keys: dict[str, Any], world: int | None, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "usable_cores", lambda: 16)
    if world is not None:
        for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": world}.items():
            monkeypatch.setenv(name, str(value))
    asked: list[int] = []

    def told(*, workers: int, **_: Any) -> None:
        asked.append(workers)

    monkeypatch.setattr(opening, "Sandbox", told)
    opening.open_sandbox(RunDirectory.create(recipe(tmp_path, **keys)))
    assert asked == [workers]


def test_programs_get_the_packages_and_each_test_the_time_of_the_recipe(tmp_path: Path) -> None:
    table = {"timeout_seconds": 5.0, "test_timeout_seconds": 0.25, "packages": ["numpy"], "memory_mb": 1024}
    run = RunDirectory.create(recipe(tmp_path, sandbox=table))
    with opening.open_sandbox(run) as sandbox:
        verdicts = sandbox.grade([(NORM, TESTS), (SLOW, TESTS)])
    assert [verdict.status for verdict in verdicts] == [Status.PASSED, Status.TIMEOUT]


def test_only_how_many_run_at_once_may_change_within_a_run(tmp_path: Path) -> None:
    RunDirectory.create(recipe(tmp_path))
    RunDirectory.create(recipe(tmp_path, sandbox={"workers": 3}))
    for key, value in (("packages", ["numpy"]), ("test_timeout_seconds", 1.0)):
        with pytest.raises(UserError, match=rf"holds a run of another recipe \(sandbox\.{key}: "):
            RunDirectory.create(recipe(tmp_path, sandbox={key: value}))


def test_a_package_that_is_not_here_is_said_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the package 'no_such_package' is not installed here"):
        dry_run(recipe(tmp_path, sandbox={"packages": ["no_such_package"]}))
