"""Hostile programs are refused, leave no trace, and the next honest program is graded as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from execution_world import BACKENDS
from hostile_objects import HOSTILE_OBJECTS
from hostile_programs import HOSTILE
from hostile_scripts import HOSTILE_SCRIPTS
from jail import Answer, Attack, grade_in_jail
from test_exploits import EXPECTED, HONEST_IN, INPUTS, KINDS, SCRIPT_END, SECRET

from psgpo.records import AssertTests, Tests

Programs = dict[str, tuple[str, set[str]]]
PROGRAMS: dict[str, Programs] = {"calls": HOSTILE, "asserts": HOSTILE_OBJECTS, "stdio": HOSTILE_SCRIPTS}
"""Kind of test -> what is written to fool it."""
READS_FILES = {"reads home", "reads the owner's environment"}
"""Refused by namespaces and Landlock alone."""

USES = AssertTests(
    entry_point="f",
    setup=f"import copy\nsecrets = {{x: {SECRET!r} + str(x) for x in {INPUTS}}}",
    checks=(
        "assert f(3) == secrets[3]",
        "assert not f(3) != secrets[3]",
        "assert secrets[3] == f(3)",
        "assert f(3) in (secrets[3],)",
        "assert {f(3): 1} == {secrets[3]: 1}",
        "assert f(x=3) == f(3) == secrets[3]",
        "got = [f(x) for x in secrets]\nassert got == list(secrets.values())",
        "for x, want in secrets.items():\n    assert f(x) == want",
        "assert all(map(lambda x: f(x) == secrets[x], secrets))",
        "for got, want in zip(map(f, secrets), secrets.values()):\n    assert got == want",
        "assert not list(filter(lambda x: f(x) != secrets[x], secrets))",
        "assert sorted(f(3)) == sorted(secrets[3])",
        "assert set(f(3)) == set(secrets[3])",
        "assert secrets[3] in f(3)",
        "assert [*f(3)] == [*secrets[3]]",
        "assert f(3)[-9:] == secrets[3][-9:]",
        "assert str(f(3)) == secrets[3]",
        "assert f'{f(3)}' == secrets[3]",
        "assert ''.join(f(3)) == secrets[3]",
        "assert copy.deepcopy(f(3)) == secrets[3]",
        "assert max(f(3), secrets[3]) == min(f(3), secrets[3])",
        "if f(3) != secrets[3]: raise AssertionError",
        "try:\n    assert f(3) == secrets[3]\nfinally:\n    pass",
        "assert f(3).startswith(secrets[3])",
    ),
)
"""Every way in which a test script may look at an answer; only the right one makes any of them hold."""


def grade(
    programs: Programs,
    kind: str,
    home: Path,
    *,
    without: tuple[str, ...] = (),
    end: str = "",
    backend: str | None = None,
) -> dict[str, Answer]:
    """Grade programs, each followed by `end`, with tests of one kind, whose expected values are secret."""
    suites: dict[str, Tests] = {"secret": USES if kind == "asserts" else KINDS[kind](EXPECTED["default"])}
    attacks = []
    for name, (program, allowed) in programs.items():
        text = program.replace("HOME", str(home)) + end
        attacks.append(Attack(name=name, program=text, suite="secret", hangs="TIMEOUT" in allowed))
    return grade_in_jail(attacks, suites, HONEST_IN, home, without=without, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_hostile_programs_are_refused_with_the_right_name(kind: str, backend: str, tmp_path: Path) -> None:
    answers = grade(PROGRAMS[kind], kind, tmp_path / "home", backend=backend)
    wrong = {
        name: answers[name] for name, (_, allowed) in PROGRAMS[kind].items() if answers[name].status not in allowed
    }
    assert wrong == {}
    assert {name for name, answer in answers.items() if answer.tests_passed} == set()


STUCK = {
    "asserts": {"replaces os.write"},
    "stdio": {"closed channel", "floods the channel", "colliding set", "colliding dict of tuples", "digits of death"},
}
"""Those that wait for ever in a kind of test that they were not written for."""


@pytest.mark.parametrize("kind", list(STUCK))
def test_what_fools_no_call_fools_no_other_kind(kind: str, tmp_path: Path) -> None:
    stuck = STUCK[kind] | {"value that unfolds"}
    programs = {
        name: (program, allowed | ({"TIMEOUT"} if name in stuck else set()))
        for name, (program, allowed) in HOSTILE.items()
    }
    answers = grade(programs, kind, tmp_path / "home", end=SCRIPT_END if kind == "stdio" else "")
    assert {name for name, answer in answers.items() if answer.status == "PASSED" or answer.tests_passed} == set()


@pytest.mark.parametrize("kind", list(PROGRAMS))
@pytest.mark.parametrize(
    "without", [("namespaces",), ("namespaces", "landlock")], ids=["no-namespaces", "seccomp-only"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_lower_rungs_protect_the_host_too(kind: str, without: tuple[str, ...], backend: str, tmp_path: Path) -> None:
    programs = {
        name: each
        for name, each in PROGRAMS[kind].items()
        if "TIMEOUT" not in each[1] and not ("landlock" in without and name in READS_FILES)
    }
    answers = grade(programs, kind, tmp_path / "home", without=without, backend=backend)
    wrong = {name: answers[name] for name, (_, allowed) in programs.items() if answers[name].status not in allowed}
    assert wrong == {}


def test_a_hostile_answer_that_is_right_still_counts_only_once(tmp_path: Path) -> None:
    attack = Attack(name="twice", program=HOSTILE["answers twice"][0], suite="winnable")
    suites: dict[str, Tests] = {"winnable": KINDS["calls"](EXPECTED["winnable"])}
    answer = grade_in_jail([attack], suites, HONEST_IN, tmp_path / "home")["twice"]
    assert (answer.status, answer.tests_passed) == ("WRONG_ANSWER", 1)


def test_the_jail_notices_what_an_unconfined_program_does(tmp_path: Path) -> None:
    """Without any layer the program does write; a test above that could not fail would be worth nothing."""
    program = "import os\nos.close(os.open('/dev/shm/psgpo-jail', os.O_CREAT | os.O_WRONLY))\ndef f(x): return ''"
    attack = Attack(name="writes", program=program, suite="secret")
    suites: dict[str, Tests] = {"secret": KINDS["calls"](EXPECTED["default"])}
    everything = ("namespaces", "landlock", "seccomp", "uid")
    with pytest.raises(AssertionError, match="psgpo-jail"):
        grade_in_jail([attack], suites, HONEST_IN, tmp_path / "home", without=everything)
    Path("/dev/shm/psgpo-jail").unlink(missing_ok=True)
