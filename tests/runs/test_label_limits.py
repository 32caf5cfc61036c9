"""`labels.timeout_seconds`: completed and joined programs have a limit of their own; what judges responses has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from psgpo.config import parse_recipe
from psgpo.jsonl import write_jsonl
from psgpo.problems import save_problems_jsonl
from psgpo.problems.opchain import OpChain
from psgpo.runs import opening
from psgpo.runs.directory import RunDirectory
from psgpo.runs.work import labels

TABLE: dict[str, Any] = {
    "name": "limits",
    "problems": {"kind": "opchain"},
    "sandbox": {"timeout_seconds": 0.5},
    "labels": {"shards": 1},
    "arms": {"baseline": {}},
}


class ToldError(Exception):
    """The sandbox was asked for; the rest does not matter."""


@contextmanager
def sampler(*_: Any) -> Iterator[tuple[None, None]]:
    """One that is never asked."""
    yield None, None


@pytest.mark.parametrize(("own", "wanted"), [(0.125, [0.125, 0.5]), (None, [0.5, 0.5])])
def test_labels_are_judged_under_their_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float | None, wanted: list[float]
) -> None:
    table = TABLE | {"out": str(tmp_path / "run"), "labels": TABLE["labels"] | {"timeout_seconds": own}}
    run = RunDirectory.create(parse_recipe(table, origin="r"))
    save_problems_jsonl(run.path / "problems" / "label.jsonl", OpChain().problems("train", 1))
    write_jsonl(run.path / "labels" / "responses.jsonl", [])
    limits: list[float] = []

    def told(*, timeout: float, **_: Any) -> None:
        limits.append(timeout)
        raise ToldError

    monkeypatch.setattr(opening, "Sandbox", told)
    monkeypatch.setattr(labels, "opened_sampler", sampler)
    monkeypatch.setattr(labels, "labelled_checkpoints", lambda *_: {"one": run.path})
    monkeypatch.setattr(labels, "check_split_prompts", lambda *_: None)
    with pytest.raises(ToldError):
        labels.label_shard(run, lambda *_: None, "0")
    with pytest.raises(ToldError):
        labels.sample_labelled_responses(run, lambda *_: None)
    assert limits == wanted
