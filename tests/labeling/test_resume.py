"""A labelling killed at any moment goes on where it was and ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
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


def test_twelve_kills_lose_nothing(tmp_path: Path) -> None:
    world.main(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    journal = folder / "journal.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    rng = random.Random(0)
    kills, sizes = 0, []
    while kills < 12:
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen([sys.executable, world.__file__, str(folder)], env=environment)
        while process.poll() is None and (journal.stat().st_size if journal.exists() else 0) <= before:
            time.sleep(0.001)  # until this process has added something
        time.sleep(rng.uniform(0, 0.008))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the world is too small: it finished before it could be killed"
        sizes.append(journal.stat().st_size)
        kills += 1
    assert sizes == sorted(set(sizes)), "every life adds rounds and none rewrites"
    assert not (folder / "labels.jsonl").exists()
    subprocess.run([sys.executable, world.__file__, str(folder)], env=environment, check=True)
    assert (folder / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    rounds = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    expected = [json.loads(line) for line in (tmp_path / "whole" / "journal.jsonl").read_text().splitlines()[1:]]
    assert [record["probes"] for record in rounds] == [record["probes"] for record in expected]


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
