"""Hostile programs are refused, leave no trace, and the next honest program is graded as if nothing had happened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from execution_world import HONEST, ROOT, run_script
from hostile_programs import HOSTILE

EXPLOITS = Path(os.environ.get("PSGPO_EXPLOITS", ROOT.parent / "shared" / "exploits"))
HARM = Path("/tmp/harm")
HANGING_EXPLOITS = {"c_loop_pow", "regex_backtrack", "sigalrm_ignore", "sigmask_all"}
HANGING = {name for name, (_, allowed) in HOSTILE.items() if allowed == {"TIMEOUT"}} | HANGING_EXPLOITS

JAIL = """
secret = "hidden:0123456789abcdef:"
hidden = CallTests(function="f", calls=tuple(Call(args=(x,), expected=secret + str(x)) for x in (3, 7, 11)))
floats = CallTests(function="f", comparator="close", calls=(Call(args=(1,), expected=[0.25, 0.5, 7.0]),))
squares = CallTests(function="f", calls=tuple(Call(args=(x,), expected="sq:%d" % (x * x)) for x in (3, 7, 11)))
suites = {"default": hidden, "floatlist": floats, "winnable": squares}
answers = {}
for timeout in (0.5, 10.0):  # a short leash for those that hang, a long one for the rest: the machine may be busy
    with Sandbox(timeout=timeout, memory_mb=96, without=given["without"], allow_unconfined=True) as sandbox:
        rung = sandbox.confinement
        for name, variant, program in given["programs"]:
            if (name in given["hanging"]) == (timeout < 1):
                verdict = sandbox.grade([(program, suites[variant])])[0]
                after = sandbox.grade([(given["honest"], squares)])[0]
                answers[name] = [verdict.status, verdict.tests_passed, verdict.detail, after.status]
json.dump({"answers": answers, "left": wait_until_alone(), "rung": rung}, sys.stdout)
"""


def _jail(programs: list[tuple[str, str, str]], home: Path, without: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Grade in a process of its own with a home to lose; check that nothing outside changed and nobody is left."""
    home.mkdir()
    (home / ".bashrc").write_text("# mine\n")
    made_harm = not HARM.exists()
    HARM.mkdir(exist_ok=True)
    HARM.chmod(0o777)
    before = (sorted(os.listdir(HARM)), sorted(os.listdir("/dev/shm")))
    try:
        given = {"programs": programs, "honest": HONEST, "without": list(without), "hanging": sorted(HANGING)}
        result = run_script(JAIL, given=given, env={"HOME": str(home), "API_TOKEN": "secret"})
        assert (sorted(os.listdir(HARM)), sorted(os.listdir("/dev/shm"))) == before
    finally:
        if made_harm:
            for path in HARM.iterdir():
                path.unlink()
            HARM.rmdir()
    assert result["left"] == []
    assert [path.name for path in home.iterdir()] == [".bashrc"]
    assert (home / ".bashrc").read_text() == "# mine\n"
    unharmed = {name for name, (*_, after) in result["answers"].items() if after == "PASSED"}
    assert unharmed == set(result["answers"])
    return result["answers"]


def test_hostile_programs_are_refused_with_the_right_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    programs = [(name, "default", program.replace("HOME", str(home))) for name, (program, _) in HOSTILE.items()]
    answers = _jail(programs, home)
    wrong = {name: answers[name] for name, (_, allowed) in HOSTILE.items() if answers[name][0] not in allowed}
    assert wrong == {}
    assert all(answers[name][1] == 0 for name in HOSTILE)


READS_FILES = {"reads home", "reads the owner's environment"}


@pytest.mark.parametrize(
    "without", [("namespaces",), ("namespaces", "landlock")], ids=["no-namespaces", "seccomp-only"]
)
def test_lower_rungs_protect_the_host_too(tmp_path: Path, without: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    names = set(HOSTILE) - HANGING - (READS_FILES if "landlock" in without else set())
    programs = [(name, "default", HOSTILE[name][0].replace("HOME", str(home))) for name in sorted(names)]
    answers = _jail(programs, home, without)
    assert {name: answers[name] for name in names if answers[name][0] not in HOSTILE[name][1]} == {}


def test_a_hostile_answer_that_is_right_still_counts_only_once(tmp_path: Path) -> None:
    twice = HOSTILE["answers twice"][0]
    home = tmp_path / "home"
    answers = _jail([("twice", "winnable", twice)], home)
    assert answers["twice"][:2] == ["WRONG_ANSWER", 1]


def test_known_exploits_are_refused_and_honest_controls_are_not(tmp_path: Path) -> None:
    if not EXPLOITS.is_dir():
        pytest.skip(f"no exploit collection at {EXPLOITS}; set PSGPO_EXPLOITS (the suite's own programs still run)")
    programs = []
    for path in sorted(EXPLOITS.glob("*.py")):
        text = path.read_text()
        variant = re.search(r"^# variant: (\w+)", text, re.M)
        assert variant is not None, path
        if variant[1] != "stdio":
            programs.append((path.stem, variant[1], text))
    assert len(programs) >= 30
    answers = _jail(programs, tmp_path / "home")
    passed = {name for name, (status, *_) in answers.items() if status == "PASSED"}
    assert passed == {"zz_honest_right"}
    assert {name for name, (status, *_) in answers.items() if status == "INFRASTRUCTURE"} == set()
    assert answers["zz_honest_wrong"][0] == "WRONG_ANSWER"
    assert {answers[name][0] for name in HANGING_EXPLOITS} == {"TIMEOUT"}
    assert answers["memory_bomb"][0] == "MEMORY"
