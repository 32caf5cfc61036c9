"""The command as a user meets it: exit codes, one-line errors, exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from psgpo.problems import load_problems_jsonl

ROOT = Path(__file__).parent.parent.parent


def psgpo(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "psgpo", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "recipes/none.toml"], "recipes/none.toml: no such recipe"),
        (["run", "recipes/demo.toml", "--set", "rl.stepz=3"], "did you mean 'steps'"),
        (["run", "recipes/demo.toml", "--until", "rl-nope", "--set", "out=OUT"], "'rl-nope' is no stage"),
        (["rl", "recipes/demo.toml", "--arm", "nope", "--set", "out=OUT"], "'rl-nope' is no stage"),
        (["sft", "recipes/demo.toml", "--set", "out=src"], "src exists and is no run directory"),
        (["prm", "stage", "recipes/demo.toml", "--name", "nope", "--set", "out=OUT"], "'prm-nope' is no stage"),
        (["report", "src"], "src"),
        (["problems", "--operations", "many"], "--operations 'many'"),
        (["problems", "--split", "nope"], "nope"),
        (["rl", "recipes/demo.toml", "--set", "out=OUT"], "needs problems, sft first"),
    ],
)
def test_mistakes_cost_one_line_and_exit_status_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = psgpo(*(argument.replace("OUT", str(tmp_path / "run")) for argument in arguments))
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.startswith("psgpo: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_problems_print_and_export(tmp_path: Path) -> None:
    printed = psgpo("problems", "--count", "2", "--operations", "2-3", "--seed", "5")
    assert printed.returncode == 0
    assert printed.stdout.count("def solve(x):") == 2
    exported = psgpo(
        "problems", "--count", "2", "--operations", "2-3", "--seed", "5", "--out", str(tmp_path / "p.jsonl")
    )
    assert exported.returncode == 0
    problems = load_problems_jsonl(tmp_path / "p.jsonl")
    assert [problem.difficulty for problem in problems] == [2, 3]
    assert all(problem.prompt in printed.stdout for problem in problems)


def test_doctor_and_version() -> None:
    doctor = psgpo("doctor")
    assert doctor.returncode == 0
    assert "seccomp" in doctor.stdout
    assert psgpo("--version").stdout.startswith("psgpo ")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """/dev/full refuses every write with ENOSPC, as a full disk does."""
    code = (
        "import sys; from psgpo.cli import main; from psgpo.runs import directory;"
        "directory.write_json = lambda path, value: open('/dev/full', 'w', buffering=1).write('x\\n');"
        f"sys.argv = ['psgpo', 'sft', 'recipes/demo.toml', '--set', 'out={tmp_path / 'run'}']; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the disk is full; free some space" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_misspelt_stage_binds_no_folder(tmp_path: Path) -> None:
    psgpo("run", "recipes/demo.toml", "--until", "prm-sgin", "--set", f"out={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
