"""The ladder, the system-call filter by numbers, fail-closed starts and the doctor."""

from __future__ import annotations

import os
import struct

import pytest
from execution_world import HONEST, squares

from psgpo.errors import UserError
from psgpo.execution import Sandbox, SandboxError, doctor, pool, selftest
from psgpo.execution.confinement import ladder
from psgpo.execution.confinement.seccomp import fence_program, zygote_program

ALLOW, EPERM, EACCES, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x5000D, 0x50026, 0x80000000
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run_filters(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the kernel answers to a child: of all filters' answers the strictest."""
    words = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, architecture or ARCHITECTURE[machine], 0, *words)
    answers = [interpret(program(machine), data) for program in (fence_program, zygote_program)]
    return min(answers, key=[KILL, EPERM, EACCES, ENOSYS, ALLOW].index)


def interpret(code: bytes, data: bytes) -> int:
    """Run a BPF program on one system call's data."""
    program = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    place, accumulator = 0, 0
    while True:
        operation, yes, no, operand = program[place]
        place += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x15:
            place += yes if accumulator == operand else no
        elif operation == 0x35:
            place += yes if accumulator >= operand else no
        else:
            assert operation == 0x06
            return int(operand)


@pytest.mark.parametrize(
    ("machine", "number", "arguments", "answer"),
    [
        ("x86_64", 0, (), ALLOW),  # read
        ("aarch64", 63, (), ALLOW),
        ("x86_64", 231, (), ALLOW),  # exit_group
        ("x86_64", 59, (), EPERM),  # execve
        ("aarch64", 221, (), EPERM),
        ("x86_64", 322, (), EPERM),  # execveat
        ("x86_64", 57, (), EPERM),  # fork
        ("x86_64", 58, (), EPERM),  # vfork
        ("x86_64", 41, (), EPERM),  # socket
        ("aarch64", 198, (), EPERM),
        ("x86_64", 62, (), EPERM),  # kill
        ("aarch64", 129, (), EPERM),
        ("x86_64", 234, (), EPERM),  # tgkill
        ("x86_64", 101, (), EPERM),  # ptrace
        ("x86_64", 319, (), EPERM),  # memfd_create
        ("x86_64", 425, (), EPERM),  # io_uring_setup
        ("x86_64", 165, (), EPERM),  # mount
        ("x86_64", 87, (), EPERM),  # unlink
        ("x86_64", 82, (), EPERM),  # rename
        ("x86_64", 250, (), EPERM),  # keyctl
        ("x86_64", 56, (0x3D0F00,), ALLOW),  # clone of a thread
        ("x86_64", 56, (0x1200011,), EPERM),  # clone of a process
        ("x86_64", 56, (0x3D0F00 | 0x10000000,), EPERM),  # thread with a user namespace
        ("aarch64", 220, (0x3D0F00,), ALLOW),
        ("aarch64", 220, (17,), EPERM),
        ("x86_64", 435, (), ENOSYS),  # clone3
        ("x86_64", 437, (), ENOSYS),  # openat2
        ("x86_64", 9999, (), ENOSYS),
        ("x86_64", 0x40000000, (), ENOSYS),  # the x32 table
        ("x86_64", 2, (0, os.O_RDONLY), ALLOW),  # open
        ("x86_64", 2, (0, os.O_WRONLY), EACCES),
        ("x86_64", 257, (0, 0, os.O_RDONLY | 0o2000000), ALLOW),  # openat, close-on-exec
        ("x86_64", 257, (0, 0, os.O_RDWR), EACCES),
        ("x86_64", 257, (0, 0, 0o100), EACCES),  # O_CREAT alone creates a file
        ("x86_64", 257, (0, 0, 0o1000), EACCES),  # O_TRUNC alone empties one
        ("aarch64", 56, (0, 0, os.O_WRONLY), EACCES),
        ("x86_64", 157, (15,), ALLOW),  # prctl: thread name
        ("x86_64", 157, (22, 2), EPERM),  # prctl: another filter
        ("x86_64", 47, (), EPERM),  # recvmsg, which could bring descriptors
        ("aarch64", 212, (), EPERM),
        ("x86_64", 157, (1,), EPERM),  # prctl: parent death signal
        ("x86_64", 16, (0, 0x5401), ALLOW),  # ioctl: is it a terminal
        ("x86_64", 16, (0, 0x5412), EPERM),  # ioctl: TIOCSTI
        ("x86_64", 72, (0, 1031), EPERM),  # fcntl: F_SETPIPE_SZ
        ("x86_64", 72, (0, 8), EPERM),  # fcntl: F_SETOWN
        ("x86_64", 302, (0, 9), ALLOW),  # prlimit of oneself
        ("x86_64", 302, (1, 9), EPERM),
        ("x86_64", 53, (1, 1 | 0o2004000), ALLOW),  # socketpair, unix stream
        ("x86_64", 53, (1, 2), EPERM),  # datagrams could be addressed to anybody
        ("x86_64", 53, (2, 1), EPERM),
    ],
)
def test_filter(machine: str, number: int, arguments: tuple[int, ...], answer: int) -> None:
    assert run_filters(machine, number, *arguments) == answer


def test_a_foreign_architecture_is_killed() -> None:
    assert run_filters("x86_64", 0, architecture=0x40000003) == KILL  # 32-bit x86, with other numbers


def test_rungs_name_the_strongest_set_of_layers() -> None:
    assert ladder.rung({"namespaces", "landlock", "seccomp", "uid"}) == "full"
    assert ladder.rung({"landlock", "seccomp", "uid"}) == "seccomp+landlock"
    assert ladder.rung({"seccomp"}) == "seccomp"
    assert ladder.rung({"uid"}) == "rlimits+uid"
    assert ladder.rung({"namespaces"}) == "rlimits"
    assert ladder.at_least("full", "seccomp")
    assert not ladder.at_least("rlimits+uid", ladder.LOWEST_CONFINED)


def test_a_sandbox_fails_closed_below_the_required_rung() -> None:
    with pytest.raises(UserError, match="'full' is required"):
        Sandbox(require="full", without=("namespaces",))
    everything = ("namespaces", "landlock", "seccomp", "uid")
    with pytest.raises(UserError, match="allow_unconfined=True for programs you trust"):
        Sandbox(without=everything)
    with Sandbox(without=everything, allow_unconfined=True) as sandbox:
        verdict = sandbox.grade([(HONEST, squares())])[0]
    assert (verdict.passed, verdict.confinement) == (True, "rlimits")


def test_a_layer_that_does_not_hold_stops_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_self_test", lambda slot: ("process",))
    with pytest.raises(SandboxError, match=r"does not hold: a program can \['process'\]"):
        Sandbox()


def test_the_self_test_sees_what_is_possible_without_layers() -> None:
    everything = pool.Pool(1, pool.Limits(timeout=5.0, memory_mb=128), required="rlimits", without=ladder.LAYERS)
    everything.close()
    assert {"read", "process", "network", "look"} <= set(everything.possible)
    assert selftest.broken_promises(["seccomp"], ["read"]) == []


def test_the_doctor_reports_each_layer_and_each_attempt() -> None:
    checks = doctor.report()
    names = [check.name for check in checks]
    assert names[:5] == ["platform", *ladder.LAYERS]
    assert names[-1] == "confinement"
    assert [name for name in names if name.startswith("attempt: ")] == [f"attempt: {a}" for a in selftest.ATTEMPTS]
    text = doctor.render(checks)
    assert len(text.splitlines()) == len(checks)
    assert all(check.detail in text for check in checks)
