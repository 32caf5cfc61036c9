"""Grade hostile programs in a jail of the test's own, so that a program that gets out of the sandbox harms nothing.

Where the kernel allows, the grader runs in its own mount, PID and IPC namespaces: everything is read-only but a home
folder, /tmp/harm and /dev/shm, which are private. Elsewhere it runs as it is, with a home folder to lose.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from execution_world import need_backend, run_script

from psgpo.execution import helper
from psgpo.records import Tests

HARM = "/tmp/harm"
"""Where the exploit collection writes when it can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """One hostile program."""

    name: str
    program: str
    suite: str
    """Key of the tests it is graded with."""
    hangs: bool = False
    """Whether only the time limit ends it, so that it gets a short one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the grader made of it."""

    status: str
    tests_passed: int
    detail: str
    mode: str
    after: str
    """Status of an honest program graded right after it, with tests of the same kind."""


JAIL = r"""
import ctypes, shutil

def enter(home):
    "A process with its own mounts and processes; what it prints is the result. Says why not, where it is not allowed."
    from psgpo.execution.confinement import libc
    try:
        pid = os.fork()
        if pid == 0:
            libc.unshare(0x20000 | 0x08000000 | 0x20000000)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            return "namespaces refused"
        libc.unshare(0x20000 | 0x08000000 | 0x20000000)
    except OSError as error:
        return str(error)
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
    libc.prctl(1, 9)
    libc.mount("", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("proc", "/proc", "proc")
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 14):
        with open("/proc/sys/kernel/pid_max", "w") as limit:  # the namespace's own since that version
            limit.write("4000")
    libc.make_read_only("/", devices=True)
    for path in (home, "/tmp/harm", "/dev/shm"):
        libc.mount("tmpfs", path, "tmpfs", 0, "size=64m,mode=1777")
    return ""

def traces(home):
    found = {}
    for top in (home, "/tmp/harm", "/dev/shm"):
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                found[path] = open(path, errors="replace").read()[:200] if os.path.isfile(path) else ""
    return found

def resources():
    "Processes of the tree and their descriptors, by number."
    pids = [os.getpid(), *survivors()]
    return [len(pids), sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)]

def settled(wanted, seconds=5):
    end = time.monotonic() + seconds
    while (now := resources()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return now

home = given["home"]
jailed = enter(home)
open(os.path.join(home, ".bashrc"), "w").write("# mine\n")
before = traces(home)

from psgpo.records import tests_from_json
suites = {name: tests_from_json(record) for name, record in given["suites"].items()}
honest = {name: (program, tests_from_json(record)) for name, (program, record) in given["honest"].items()}
answers, growth = {}, []
for hanging in (True, False):
    attacks = [attack for attack in given["attacks"] if attack["hangs"] == hanging]
    if not attacks:
        continue
    limit = 0.6 if hanging else 15.0  # short for those that hang; for the rest a machine may be busy
    with Sandbox(timeout=limit, memory_mb=96, without=given["without"], allow_unconfined=True) as sandbox:
        rung, backend = sandbox.confinement, sandbox.backend
        sandbox.grade(honest.values())
        start = resources()
        for attack in attacks:
            tests = suites[attack["suite"]]
            verdict = sandbox.grade([(attack["program"], tests)])[0]
            kind = tests.to_json()["kind"]
            after = sandbox.grade([honest[kind]])[0].status
            if after != "PASSED":  # once more: a hundredth of a second of the short leash may have been the machine's
                after = sandbox.grade([honest[kind]])[0].status
            answers[attack["name"]] = [verdict.status, verdict.tests_passed, verdict.detail, verdict.mode, after]
        growth.append([start, settled(start)])
json.dump({"answers": answers, "left": wait_until_alone(), "rung": rung, "backend": backend, "growth": growth,
           "jailed": jailed, "changed": sorted(set(before.items()) ^ set(traces(home).items()))}, sys.stdout)
"""


def grade_in_jail(
    attacks: Iterable[Attack],
    suites: Mapping[str, Tests],
    honest: Mapping[str, tuple[str, Tests]],
    home: Path,
    *,
    without: tuple[str, ...] = (),
    rung: str | None = None,
    backend: str | None = None,
) -> dict[str, Answer]:
    """Grade each attack, then an honest program; no process, file or descriptor may be left behind.

    Args:
        honest: kind of test -> a program that passes, and its tests.
        home: an empty folder's path, made here.
        rung: the confinement that must have been in force; None for any.
        backend: what has to start the processes, "c" or "python"; None for whatever does here. The rungs without
            seccomp are always Python's.
    """
    home.mkdir()
    given: dict[str, Any] = {
        "attacks": [asdict(attack) for attack in attacks],
        "suites": {name: tests.to_json() for name, tests in suites.items()},
        "honest": {kind: (program, tests.to_json()) for kind, (program, tests) in honest.items()},
        "home": str(home),
        "without": list(without),
    }
    wanted = {}
    if backend is not None:
        need_backend(backend)
        wanted[helper.VARIABLE] = backend
    made_harm = not os.path.isdir(HARM)
    os.makedirs(HARM, exist_ok=True)
    try:
        result = run_script(JAIL, given=given, env=wanted | {"HOME": str(home), "API_TOKEN": "secret"})
    finally:
        if made_harm and not os.listdir(HARM):
            os.rmdir(HARM)
    assert result["changed"] == [], result["changed"]
    assert result["left"] == [], result["left"]
    assert all(start == end for start, end in result["growth"]), result["growth"]
    assert backend is None or result["backend"] == backend
    assert rung is None or result["rung"] == rung
    answers = {
        name: Answer(status=status, tests_passed=passed, detail=detail, mode=mode, after=after)
        for name, (status, passed, detail, mode, after) in result["answers"].items()
    }
    for name, answer in answers.items():
        assert (answer.after, answer.status == "INFRASTRUCTURE") == ("PASSED", False), (name, answer)
    return answers
