"""The pages, followed: every shell block is run in order on a small desk, or says why not (`pytest -rsP`)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from docs_desk import STAGED, lay_out, made_small, not_here, small_options, supply
from docs_world import PAGES, PSGPO, ROOT, SHELL, block_commands, blocks, run, written_files
from typer.testing import CliRunner

from model_server import fake_server
from psgpo.cli.main import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
TOLD = [page for page in PAGES if any(block.language in SHELL for block in blocks(page))]


@pytest.fixture(scope="module")
def store(desk: Path) -> Path:
    return lay_out(desk)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A model that says the same of every line."""

    def reply(request: dict[str, Any], number: int) -> str:
        judging = "ANSWER" in request["messages"][0]["content"]
        return "ANSWER: 1" if judging else "```python\n    return 0\n```"

    with fake_server(reply, models=[{"id": "deepseek-coder"}]) as state:
        yield state.url


@pytest.mark.parametrize("page", TOLD, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_followed(
    page: Path,
    desk: Path,
    store: Path,
    server: str,
    tmp_path: Path,
    tiny_overrides: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    for name, block in written_files(page).items():
        (tmp_path / name).write_text(block.text, encoding="utf-8")
    supply(str(page.relative_to(ROOT)), store, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    left, done = [], 0
    for block in (block for block in blocks(page) if block.language in SHELL):
        for command in block_commands(block):
            reason = block.not_run or not_here(command)
            if reason:
                left.append(f"{command}: {reason}")
            elif command.psgpo is None:
                words = list(command.words[1:])
                run([sys.executable, *words, *small_options(words)], tmp_path)
                done += 1
            else:
                follow(made_small(command.psgpo, tiny_overrides, server), str(command))
                done += 1
    if not done:
        pytest.skip("; ".join(left))
    sys.stdout.write("".join(f"not run: {one}\n" for one in left))


def follow(arguments: Sequence[str], command: str) -> None:
    """Run psgpo in this process, which has PyTorch loaded; what has stages is a process of its own."""
    if arguments[0] in STAGED and "--dry-run" not in arguments:
        run([*PSGPO, *arguments], Path.cwd())
        return
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, f"{command}\n{result.output[-2000:]}\n{result.exception!r}"
