"""The folder that weights pass through on their way to vLLM. Needs no vLLM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from psgpo.sampling.vllm import _hand_over_folder

HOLDER = """
import sys
from pathlib import Path
from psgpo.sampling.vllm import _hand_over_folder
with _hand_over_folder(Path(sys.argv[1])) as folder:
    (folder / "model.safetensors").write_bytes(b"weights")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_stays_and_one_of_a_killed_process_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        theirs = Path(holder.stdout.readline().strip())
        with _hand_over_folder(tmp_path) as ours:
            assert sorted(tmp_path.iterdir()) == sorted([ours, theirs])
            assert (theirs / "model.safetensors").is_file()
        assert list(tmp_path.iterdir()) == [theirs]
        holder.send_signal(signal.SIGKILL)
    with _hand_over_folder(tmp_path) as ours:
        assert list(tmp_path.iterdir()) == [ours]


def test_nothing_is_read_out_of_process_ids(tmp_path: Path) -> None:
    """A container that was killed had the same ids as this one."""
    left = tmp_path / f"psgpo-weights-{os.getpid()}"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"weights")
    with _hand_over_folder(tmp_path) as ours:
        assert list(tmp_path.iterdir()) == [ours]
        assert ours.stat().st_mode & 0o777 == 0o700


def test_what_is_no_folder_of_ours_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data").touch()
    (tmp_path / "psgpo-weights-link").symlink_to(elsewhere)
    (tmp_path / "psgpo-weights-file").touch()
    with _hand_over_folder(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "data", "elsewhere", "psgpo-weights-file", "psgpo-weights-link",
    ]  # fmt: skip


def test_a_folder_deleted_before_its_lock_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, []

    def make_and_lose_the_first(**options: object) -> str:
        made.append(make(**options))  # type: ignore[call-overload]
        if len(made) == 1:
            shutil.rmtree(made[0])
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose_the_first)
    with _hand_over_folder(tmp_path) as ours:
        assert [str(ours)] == made[1:]
        assert ours.is_dir()
