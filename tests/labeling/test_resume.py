"""A labelling killed at any moment goes on where it was and ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import labeling_world as world
import pytest

from psgpo.config import SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling import write_labels
from psgpo.labeling.costs import LabelUsage


def run(journal: Path, **changes: Any) -> tuple[bytes, LabelUsage, int]:
    """Bytes of the label file, usage, completions drawn by this process."""
    problems, responses = world.random_responses(40, seed=3, checkpoints=("one", "two"))
    samplers = {"one": world.FakeSampler(0.5), "two": world.FakeSampler(0.8)}
    labelling = world.label(problems, responses, journal, samplers, **changes)
    path = journal.with_suffix(".labels")
    write_labels(path, labelling.labels)
    return path.read_bytes(), labelling.usage, sum(len(sampler.rows) for sampler in samplers.values())


@pytest.mark.parametrize(
    ("strategy", "count", "kills"),
    [
        ("binary-search", 72, 52),
        ("linear-scan", 24, 8),
        ("soft", 24, 8),
        ("noisy", 24, 8),
        ("omega", 24, 8),
        pytest.param("binary-search", 400, 300, marks=pytest.mark.slow),
    ],
)
def test_kills_anywhere_lose_nothing(tmp_path: Path, strategy: str, count: int, kills: int) -> None:
    world.main(tmp_path / "whole", strategy, count)
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, world.__file__, folder, strategy, count, kills, 0]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    sizes = subprocess.run(
        list(map(str, command)), env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(sizes) == kills + 1
    assert list(map(int, sizes)) == sorted(map(int, sizes))
    assert len(set(sizes)) > kills // 2, "most lives add rounds"
    assert (folder / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    rounds, expected = (
        [json.loads(line).get("probes") for line in (where / "journal.jsonl").read_text().splitlines()]
        for where in (folder, tmp_path / "whole")
    )
    assert rounds == expected


def test_a_journal_cut_at_any_byte_goes_on(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    labels, usage, drawn = run(whole)
    data = whole.read_bytes()
    ends = [place for place, byte in enumerate(data, start=1) if byte == ord("\n")]
    rng = random.Random(1)
    for number, cut in enumerate([0, 1, ends[0] - 1, ends[0], ends[1], ends[-1], *rng.choices(range(len(data)), k=20)]):
        journal = tmp_path / f"cut-{number}"
        journal.write_bytes(data[:cut])
        resumed, resumed_usage, redrawn = run(journal)
        assert resumed == labels
        recorded = [json.loads(line) for line in data[:cut].split(b"\n")[1:-1]]
        assert redrawn == drawn - sum(probe["drawn"] for record in recorded for probe in record["probes"])
        assert (resumed_usage.rounds, resumed_usage.completions) == (usage.rounds, usage.completions)
        assert len(journal.read_bytes().splitlines()) == len(ends)


def test_a_finished_journal_draws_nothing_and_keeps_its_costs(tmp_path: Path) -> None:
    labels, usage, drawn = run(tmp_path / "j")
    again, usage_again, redrawn = run(tmp_path / "j")
    assert (again, redrawn) == (labels, 0)
    assert drawn == usage.completions > 0
    assert usage_again.cpu_seconds == pytest.approx(usage.cpu_seconds, abs=1e-3)


def test_a_round_is_on_disk_before_its_lane_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    problems, responses = world.random_responses(20, seed=3)
    sampler = world.FakeSampler(0.5)
    lengths = []

    class Watching(world.FakeSampler):
        def sample(self, *args: Any, **options: Any) -> Any:
            lengths.append(len(journal.read_bytes().splitlines()))
            return sampler.sample(*args, **options)

    world.label(problems, responses, journal, {"one": Watching(0.5)})
    # The header and all rounds, but that of the other lane, while there is one, whose programs are being judged.
    assert all(count <= length <= count + 1 for count, length in enumerate(lengths))
    assert lengths[:3] == [1, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 8}, r"labels\.k was 6, now 8"),
        ({"draw": 3}, r"labels\.draw was 2, now 3"),
        ({"strategy": "linear-scan"}, 'labels.strategy was "binary-search", now "linear-scan"'),
        ({"completer": "last"}, 'labels.completer was "own", now "last"'),
        ({"seed": 1}, "seed was 7, now 1"),
        ({"sampling": SamplingSettings(max_new_tokens=99)}, r"sampling\.max_new_tokens was 200, now 99; restore"),
    ],
)
def test_a_journal_of_other_settings_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(UserError, match=message):
        run(tmp_path / "j", **changes)
    assert (tmp_path / "j").read_bytes() == before


def test_a_journal_of_other_responses_problems_or_checkpoints_is_refused(tmp_path: Path) -> None:
    of = world.problem("p", 3)
    bad = world.response(of, "wrong\n")
    samplers = {"one": world.FakeSampler(0.5)}
    world.label([of], [bad], tmp_path / "j", samplers)
    with pytest.raises(UserError, match="responses was"):
        world.label([of], [world.response(of, "wrong\nagain\n")], tmp_path / "j", samplers)
    with pytest.raises(UserError, match="problems was"):
        world.label([world.problem("p", 4)], [bad], tmp_path / "j", samplers)
    with pytest.raises(UserError, match=r'checkpoints was \["one"\], now \["one", "two"\]'):
        world.label([of], [bad], tmp_path / "j", samplers | {"two": world.FakeSampler(0.5)})


def test_files_that_are_no_journal_are_refused(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    journal.write_text('{"id":"p1"}\n')
    with pytest.raises(UserError, match="j:1: not a journal"):
        run(journal)
    run(tmp_path / "good")
    lines = (tmp_path / "good").read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[2])
    with pytest.raises(UserError, match="j:2: this round answers other probes"):
        run(journal)
    journal.write_text(lines[0] + '{"kind":"round"}\n')
    with pytest.raises(UserError, match="j:2: missing key 'probes'; delete the journal"):
        run(journal)
    journal.write_text(lines[0] + "{broken\n")
    with pytest.raises(UserError, match="j:2: not valid JSON"):
        run(journal)
