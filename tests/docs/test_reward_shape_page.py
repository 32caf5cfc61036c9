"""docs/how-to/adding-a-reward-shape.md, done as it says, in a copy of the source."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from docs_world import PSGPO, ROOT, blocks, run, tiny, written_files

PAGE = ROOT / "docs" / "how-to" / "adding-a-reward-shape.md"
ANCHORS = {
    "LINE_REWARDS": r"LINE_REWARDS: [^\n]*\{\n",
    "LineRewardName": r"LineRewardName = Literal\[",
    "READABLE": r"READABLE[^\n]*= \{\n",
    "REWARD_WORDS": r"REWARD_WORDS = \{\n",
}
"""Where an entry of the page's table goes: behind the opening of what it names."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the shape in it."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "src" / "psgpo", folder / "psgpo", ignore=shutil.ignore_patterns("__pycache__"))
    function = next(block.text for block in blocks(PAGE) if block.text.startswith("# src/psgpo/rl/rewards.py"))
    insert(folder / "psgpo/rl/rewards.py", r"(?=LINE_REWARDS: )", function.partition("\n")[2] + "\n\n\n")
    rows = re.findall(r"^\| `src/(\S+)` \| `(\w+)` \| `(.+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 4
    for file, place, entry in rows:
        insert(folder / file, ANCHORS[place], entry + ("\n" if ANCHORS[place].endswith("\\n") else " "))
    return folder


def insert(file: Path, anchor: str, text: str) -> None:
    """`text` behind the one place where `anchor` matches."""
    before = file.read_text(encoding="utf-8")
    assert len(re.findall(anchor, before)) == 1, f"{file}: {anchor}"
    file.write_text(re.sub(anchor, lambda match: match[0] + text, before), encoding="utf-8")


def test_the_hand_worked_test_passes(source: Path, tmp_path: Path) -> None:
    (tmp_path / "test_last.py").write_text(written_files(PAGE)["test_last.py"].text, encoding="utf-8")
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_last.py"], tmp_path, source=source)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_arm_is_trained_measured_and_reported(
    source: Path, desk: Path, tmp_path: Path, tiny_overrides: list[str]
) -> None:
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    recipe = tmp_path / "recipes" / "demo.toml"
    recipe.write_text(
        recipe.read_text(encoding="utf-8") + "\n" + written_files(PAGE)["last.toml"].text, encoding="utf-8"
    )
    run([*PSGPO, "run", "recipes/demo.toml", *tiny(tiny_overrides)], tmp_path, source=source)
    metrics = (tmp_path / "runs/demo/rl/last/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(metrics) == 4
    assert any(json.loads(row)["reward_lines"] for row in metrics)
    assert "last line score" in (tmp_path / "runs/demo/report/index.html").read_text(encoding="utf-8")
    run([*PSGPO, "inspect", "runs/demo", "--out", "page.html", "--arm", "last"], tmp_path, source=source)
