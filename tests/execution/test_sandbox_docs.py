"""What docs/sandbox.md shows runs, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from execution_world import ROOT

from psgpo.execution.confinement import ladder
from psgpo.execution.sandbox import Sandbox
from psgpo.records import Status

TEXT = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 1
    exec(compile(examples[0], "docs/sandbox.md", "exec"), {"__name__": "example"})
    assert (tmp_path / "verdicts.sqlite").exists()


def test_every_status_rung_and_layer_is_explained() -> None:
    rows = {
        name for cell in re.findall(r"^\| (.*?) \|", TEXT, re.MULTILINE) for name in cell.replace("`", "").split(", ")
    }
    assert {status.value for status in Status} <= rows
    assert {name for name, _ in ladder.RUNGS} <= rows
    assert set(ladder.LAYERS) <= rows


def test_the_default_rung_is_the_one_named() -> None:
    assert f'default is `require="{ladder.LOWEST_CONFINED}"`' in TEXT
    assert Sandbox.__init__.__kwdefaults__["require"] == ladder.LOWEST_CONFINED
