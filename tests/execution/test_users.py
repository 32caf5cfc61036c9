"""The sandbox as root, as an ordinary user, and as one who may not make namespaces; the rung is reported each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from execution_world import run_script
from hostile_objects import HOSTILE_OBJECTS
from hostile_programs import HOSTILE
from hostile_scripts import HOSTILE_SCRIPTS
from test_exploits import EXPECTED, HONEST_IN, KINDS
from test_sandbox_hostile import USES

from psgpo.execution.confinement import ladder
from psgpo.records import Tests

BECOME = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
user, group = os.geteuid(), os.getegid()
if libc.unshare(0x10000000):
    sys.exit("no user namespace: " + os.strerror(ctypes.get_errno()))
for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {user} 1"), ("gid_map", f"65534 {group} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
if sys.argv[1] == "forbidden":
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])  # as a user above 0, which ends all capabilities
"""

GRADE = r"""
from psgpo.records import tests_from_json
from psgpo.execution.confinement import libc
capabilities = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff"))
suites = {name: tests_from_json(record) for name, record in given["suites"].items()}
answers = {}
with Sandbox(timeout=15, memory_mb=96, without=given["without"], require=given["require"]) as sandbox:
    for kind, (program, tests) in given["honest"].items():
        verdict = sandbox.grade([(program, tests_from_json(tests))])[0]
        answers["honest " + kind] = [verdict.status, verdict.confinement]
    for kind, name, program in given["programs"]:
        verdict = sandbox.grade([(program, suites[kind])])[0]
        answers[kind + " " + name] = [verdict.status, verdict.confinement]
    rung = sandbox.confinement
json.dump({"user": os.geteuid(), "capabilities": int(capabilities, 16), "rung": rung, "answers": answers,
           "left": wait_until_alone(), "home": sorted(os.listdir(os.environ["HOME"]))}, sys.stdout)
"""


def programs(home: Path) -> list[tuple[str, str, str, set[str]]]:
    """Kind, name, text and allowed statuses of all hostile programs that end by themselves."""
    found = []
    for kind, each in (("calls", HOSTILE), ("asserts", HOSTILE_OBJECTS), ("stdio", HOSTILE_SCRIPTS)):
        for name, (program, allowed) in each.items():
            if "TIMEOUT" not in allowed:
                found.append((kind, name, program.replace("HOME", str(home)), allowed))
    return found


def grade_as(
    how: str, home: Path, *, without: tuple[str, ...] = (), require: str = ladder.LOWEST_CONFINED
) -> dict[str, Any]:
    """Grade the honest and the hostile programs as "self", or in a user namespace as an ordinary user: "ordinary" may
    make namespaces of its own, "forbidden" may not. Nothing may be left behind and nothing must pass that is hostile.
    """
    home.mkdir(mode=0o755)
    (home / ".bashrc").write_text("# mine\n")
    everything = programs(home)
    suites: dict[str, Tests] = {kind: make(EXPECTED["default"]) for kind, make in KINDS.items()} | {"asserts": USES}
    given = {
        "programs": [each[:3] for each in everything],
        "suites": {kind: tests.to_json() for kind, tests in suites.items()},
        "honest": {kind: (program, tests.to_json()) for kind, (program, tests) in HONEST_IN.items()},
        "without": list(without),
        "require": require,
    }
    launcher = () if how == "self" else (sys.executable, "-c", BECOME, how)
    result: dict[str, Any] = run_script(GRADE, given=given, env={"HOME": str(home)}, launcher=launcher)
    assert result["left"] == []
    assert result["home"] == [".bashrc"]
    assert (home / ".bashrc").read_text() == "# mine\n"
    answers = result["answers"]
    assert {rung for _, rung in answers.values()} == {result["rung"]}
    assert {answers[f"honest {kind}"][0] for kind in KINDS} == {"PASSED"}
    wrong = {
        f"{kind} {name}": answers[f"{kind} {name}"][0]
        for kind, name, _, allowed in everything
        if answers[f"{kind} {name}"][0] not in allowed
    }
    assert wrong == {}
    return result


def _may_become_ordinary(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", BECOME, how, "-c", "pass"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine does not let the test make a user namespace: {done.stderr.strip()[-200:]}")


def test_as_whoever_runs_the_tests(tmp_path: Path) -> None:
    assert grade_as("self", tmp_path / "home")["user"] == os.geteuid()


def test_without_namespaces(tmp_path: Path) -> None:
    result = grade_as("self", tmp_path / "home", without=("namespaces",), require="seccomp")
    assert result["rung"] in ("seccomp+landlock", "seccomp")


def test_as_an_ordinary_user(tmp_path: Path) -> None:
    _may_become_ordinary("ordinary")
    result = grade_as("ordinary", tmp_path / "home")
    assert (result["user"], result["capabilities"]) == (65534, 0)


def test_as_an_ordinary_user_who_may_not_make_namespaces(tmp_path: Path) -> None:
    _may_become_ordinary("forbidden")
    result = grade_as("forbidden", tmp_path / "home")
    assert (result["user"], result["capabilities"]) == (65534, 0)
    assert result["rung"] in ("seccomp+landlock", "seccomp")


def test_a_rung_that_is_not_reached_is_refused(tmp_path: Path) -> None:
    _may_become_ordinary("forbidden")
    with pytest.raises(AssertionError, match="'full' is required"):
        grade_as("forbidden", tmp_path / "home", require="full")
