"""Labelling on a real Ray cluster of this machine: actors, a second node, both killed on the way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import labeling_world as world
import pytest
from test_fanout import PROBLEMS, RESPONSES, SAMPLING, SETTINGS, TASK, counts, fan_out

from psgpo.errors import UserError
from psgpo.labeling import Labelling
from psgpo.labeling.engine import OpenEngine
from psgpo.labeling.on_ray import News, Worker, label_on_ray, stream_unit
from psgpo.labeling.units import Board, Unit, make_units


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Labelling:
    return fan_out(tmp_path_factory.mktemp("alone"), workers=1)


def test_a_unit_streams_its_journal_and_goes_on_from_another_workers(tmp_path: Path, alone: Labelling) -> None:
    unit = make_units(RESPONSES, PROBLEMS, ("one", "two"), SETTINGS)[1]
    with world.WorldEngine().open() as opened:
        news = list(stream_unit(TASK, unit, opened, b""))
    pieces = [item.recorded for item in news]
    assert len([piece for piece in pieces if piece]) > 5
    assert all(piece.endswith(b"\n") for piece in pieces if piece)
    assert [item.done for item in news] == sorted(item.done for item in news)
    wanted = [alone.labels[place] for place in unit.places]
    assert news[-1].labelling is not None
    assert news[-1].labelling.labels == wanted
    begun = b"".join(pieces[: len(pieces) // 2])
    with world.WorldEngine().open() as opened:
        rest = list(stream_unit(TASK, unit, opened, begun))
        drawn = sum(len(sampler.rows) for sampler in opened.samplers.values())  # type: ignore[attr-defined]
    assert rest[-1].labelling is not None
    assert rest[-1].labelling.labels == wanted
    assert rest[-1].labelling.usage.completions > drawn
    probes = [line.partition(b'"cpu')[0] for line in (begun + b"".join(item.recorded for item in rest)).splitlines()]
    assert probes == [line.partition(b'"cpu')[0] for line in b"".join(pieces).splitlines()]


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'psgpo[ray]'")
    with pytest.raises(UserError, match=r"no Ray cluster at 'auto'.*ray start"):
        label_on_ray(
            RESPONSES, PROBLEMS, world.WorldEngine(), SETTINGS, SAMPLING, 3, tmp_path, workers=1, address="auto"
        )


def test_a_unit_that_is_refused_says_why() -> None:
    (unit,) = make_units(RESPONSES[:8], PROBLEMS, ("one", "two"), SETTINGS)
    with world.WorldEngine().open() as opened:
        (news,) = stream_unit(TASK, unit, opened, b'{"id":1}\n')
        assert news.refused.endswith("move it away to label anew")
        broken = type(TASK)(settings=SETTINGS, sampling=SAMPLING, seed=None)  # type: ignore[arg-type]
        opened.samplers["one"]._complete = None  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            list(stream_unit(broken, unit, opened, b""))
    assert News() == News(0, b"", None, "")


class ClosedEngine(world.WorldEngine):
    """Says when it is closed, as a sandbox is."""

    closed = False

    @contextmanager
    def open(self) -> Iterator[OpenEngine]:
        try:
            with super().open() as opened:
                yield opened
        finally:
            type(self).closed = True


def test_an_actors_engine_stays_open_as_long_as_the_actor(alone: Labelling) -> None:
    worker = Worker(ClosedEngine(), TASK)
    for unit in make_units(RESPONSES, PROBLEMS, ("one", "two"), SETTINGS):
        *_, last = worker.label(unit, b"")
        assert last.labelling is not None
        assert last.labelling.labels == [alone.labels[place] for place in unit.places]
    assert not ClosedEngine.closed


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with two CPUs; nodes can be added, each with a process of its own."""
    pytest.importorskip("ray", reason="needs Ray: make test-ray")
    import ray
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=started.address, log_to_driver=False)
    yield started
    ray.shutdown()
    started.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def on_ray(folder: Path, engine: Any = None, workers: int = 2, **changes: Any) -> Labelling:
    return label_on_ray(
        RESPONSES, PROBLEMS, engine or world.WorldEngine(), SETTINGS, SAMPLING, 7, folder, workers, **changes
    )


@pytest.mark.slow
def test_actors_make_the_labels_of_one_worker(cluster: Any, tmp_path: Path, alone: Labelling) -> None:
    seen: list[tuple[int, int]] = []
    found = on_ray(tmp_path, progress=lambda *pair: seen.append(pair))
    assert found.labels == alone.labels
    assert counts(found) == counts(alone)
    assert seen[-1] == (72, 72)
    # The journals are those of processes: these go on with them and draw nothing.
    engine = world.WorldEngine(deadly="d")  # would die of any completion
    assert fan_out(tmp_path, engine).labels == alone.labels


@pytest.mark.slow
def test_an_actor_killed_in_its_unit_costs_its_running_rounds(cluster: Any, tmp_path: Path, alone: Labelling) -> None:
    lives = tmp_path / "lives"
    lives.write_text("die\ndie")
    of = next(problem for problem in PROBLEMS if problem.id == "p13")
    found = on_ray(tmp_path / "labels", world.WorldEngine(deadly=of.prompt, lives=str(lives)))
    assert lives.read_text() == ""
    assert found.labels == alone.labels
    assert counts(found) == counts(alone)


@pytest.mark.slow
def test_a_machine_that_goes_away_takes_nothing_with_it(
    cluster: Any, tmp_path: Path, alone: Labelling, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    journals = [tmp_path / "units" / f"{number}.jsonl" for number in (1, 2, 3, 4)]
    lost: list[int] = []
    gate = tmp_path / "gate"
    keep = Board.lost

    def note(board: Board, unit: Unit, reason: str) -> None:
        lost.append(journals[unit.number - 1].read_bytes().count(b"\n") - 1)
        keep(board, unit, reason)

    monkeypatch.setattr(Board, "lost", note)

    def progress(_: int, __: int) -> None:
        # Four workers of one CPU each, so two are on each machine. All have finished rounds when one machine goes, and
        # wait at the gate until it is gone: none can have ended its unit.
        nonlocal node
        if node is not None and all(path.exists() and path.read_bytes().count(b"\n") > 2 for path in journals):
            cluster.remove_node(node, allow_graceful=False)
            node = None
            gate.touch()

    found = on_ray(tmp_path, world.WorldEngine(gate=str(gate)), workers=4, progress=progress)
    assert node is None
    assert lost
    assert min(lost) > 0, "rounds that were done stay done"
    assert found.labels == alone.labels
    assert counts(found) == counts(alone)


@pytest.mark.slow
def test_what_a_cluster_cannot_do_is_said(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no machine of the Ray cluster has .*GPU"):
        on_ray(tmp_path, world.WorldEngine(gpus=1.0))
    with pytest.raises(UserError, match=r"unit 2 .*3 workers in a row died"):
        on_ray(tmp_path, world.WorldEngine(deadly=PROBLEMS[7].prompt))
    with pytest.raises(UserError, match="workers = 0"):
        on_ray(tmp_path, workers=0)
