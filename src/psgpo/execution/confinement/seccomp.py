"""The system-call filter: a list of what a computing Python process needs; everything else is refused.

Refused are above all new processes, exec, network, signals to anybody, ptrace, shared memory, keyrings, and every call
that could change a file: opening for writing is refused here too, so that the filter alone already protects the host's
files. Threads are allowed.

It comes in two parts, because installing a large filter takes longer than many a program: the large one is installed
once in the zygote and leaves it what it needs to start and end children; the fence, a few instructions, is installed in
each child and takes that away again. The large one is a binary decision tree over the call's number: the kernel
evaluates a filter for every number once when it is installed, which a linear list makes slow.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from psgpo.execution.confinement import libc

Instruction = tuple[int, int, int, int]

_LOAD, _AND, _JEQ, _JGE, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FIRST_UNKNOWN = 450
"""Numbers from here on are newer than this list: ENOSYS makes libc fall back to what it knows."""

_O_WRITING = 0o3 | 0o100 | 0o1000  # access mode, O_CREAT, O_TRUNC
_PRCTL_THREAD_NAME = (15, 16)
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET

# name: (x86-64, aarch64); None where the architecture has no such call
_SIMPLE: dict[str, tuple[int | None, int | None]] = {
    # data on open descriptors
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "pread64": (17, 67),
    "preadv": (295, 69), "readv": (19, 65), "writev": (20, 66), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "close_range": (436, 436), "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None), "select": (23, None),
    "ppoll": (271, 73), "pselect6": (270, 72), "epoll_create": (213, None), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441),
    "eventfd": (284, None), "eventfd2": (290, 19), "timerfd_create": (283, 85), "timerfd_settime": (286, 86),
    "timerfd_gettime": (287, 87), "sendto": (44, 206), "recvfrom": (45, 207), "shutdown": (48, 210),
    "getsockopt": (55, 209), "getsockname": (51, 204),
    # looking at files
    "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50),
    "umask": (95, 166),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "madvise": (28, 233),
    # threads and signals to oneself by the kernel
    "futex": (202, 98), "futex_waitv": (449, 449), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "set_tid_address": (218, 96), "rseq": (334, 293), "membarrier": (324, 283), "arch_prctl": (158, None),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126),
    "getpriority": (140, 141), "getcpu": (309, 168),
    # time
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "alarm": (37, None), "setitimer": (38, 103),
    "getitimer": (36, 102), "times": (100, 153), "getrusage": (98, 165), "restart_syscall": (219, 128),
    # who and where am I
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158), "getpgid": (121, 155),
    "getpgrp": (111, None), "getsid": (124, 156), "getresuid": (118, 148), "getresgid": (120, 150),
    "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278),
    # limits (hard limits cannot be raised) and the end
    "getrlimit": (97, 163), "setrlimit": (160, 164), "wait4": (61, 260), "waitid": (247, 95),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
_CHECKED: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "clone": (56, 220), "kill": (62, 129), "recvmsg": (47, 212),
    "fcntl": (72, 25), "ioctl": (16, 29),
    "prctl": (157, 167), "prlimit64": (302, 261), "socketpair": (53, 199), "clone3": (435, 435), "openat2": (437, 437),
}  # fmt: skip


def _answer(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


def _load_argument(index: int) -> Instruction:
    """Low 32 bits of an argument; every argument tested here is an int or flag word, whose high half is ignored."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _masked(index: int, mask: int, value: int, otherwise: int = _EPERM) -> list[Instruction]:
    """Allow when `argument & mask == value`."""
    test: list[Instruction] = [_load_argument(index), (_AND, 0, 0, mask), (_JEQ, 0, 1, value)]
    return [*test, _answer(_ALLOW), _answer(_ERRNO | otherwise)]


def _one_of(index: int, values: tuple[int, ...]) -> list[Instruction]:
    tests: list[Instruction] = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_load_argument(index), *tests, _answer(_ERRNO | _EPERM), _answer(_ALLOW)]


def _checks() -> dict[str, list[Instruction]]:
    stream_pair = [_load_argument(0), (_JEQ, 0, 4, 1), _load_argument(1), (_AND, 0, 0, 0xF), (_JEQ, 0, 1, 1)]
    return {
        "open": _masked(1, _O_WRITING, 0, _EACCES),
        "openat": _masked(2, _O_WRITING, 0, _EACCES),
        "clone": _masked(0, _CLONE_NEW, 0),  # fenced
        "kill": [_answer(_ALLOW)],  # fenced
        "recvmsg": [_answer(_ALLOW)],  # fenced
        "fcntl": _one_of(1, (0, 1, 2, 3, 4, 1030)),  # duplicate, descriptor flags, status flags
        "ioctl": _one_of(1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # is it a terminal, non-blocking, exec
        "prctl": _one_of(0, (libc.PR_SET_PDEATHSIG, *_PRCTL_THREAD_NAME, libc.PR_SET_SECCOMP)),  # fenced
        "prlimit64": _masked(0, 0xFFFFFFFF, 0),  # of oneself
        "socketpair": [*stream_pair, _answer(_ALLOW), _answer(_ERRNO | _EPERM)],  # a local pair, as asyncio needs it
        "clone3": [_answer(_ERRNO | _ENOSYS)],  # its flags are behind a pointer; libc falls back to clone
        "openat2": [_answer(_ERRNO | _ENOSYS)],
    }


def fence_program(machine: str) -> bytes:
    """What a child may not do though its zygote may: new processes, signals, receiving descriptors, process settings.

    Raises:
        KeyError: an architecture this list does not know.
    """
    column = list(_ARCHITECTURE).index(machine) if machine in _ARCHITECTURE else -1
    start: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_JEQ, 1, 0, _ARCHITECTURE[machine]),
        _answer(_KILL),
        (_LOAD, 0, 0, 0),
    ]
    blocks = {
        "clone": _masked(0, _CLONE_THREAD, _CLONE_THREAD),
        "prctl": _one_of(0, _PRCTL_THREAD_NAME),
        "kill": [_answer(_ERRNO | _EPERM)],
        "recvmsg": [_answer(_ERRNO | _EPERM)],
    }
    for name, block in blocks.items():
        number = _CHECKED[name][column]
        assert number is not None
        start += [(_JEQ, 0, len(block), number), *block]
    return _pack([*start, _answer(_ALLOW)])


def zygote_program(machine: str) -> bytes:
    """The large filter for one architecture (`os.uname().machine`).

    Raises:
        KeyError: an architecture this list does not know.
    """
    column = list(_ARCHITECTURE).index(machine) if machine in _ARCHITECTURE else -1
    architecture = _ARCHITECTURE[machine]
    blocks: dict[int, list[Instruction]] = {}
    for numbers in _SIMPLE.values():
        if (number := numbers[column]) is not None:
            blocks[number] = [_answer(_ALLOW)]
    checks = _checks()
    for name, numbers in _CHECKED.items():
        if (number := numbers[column]) is not None:
            blocks[number] = checks[name]
    tree = _decide(_intervals(blocks))
    start: list[Instruction] = [(_LOAD, 0, 0, 4), (_JEQ, 1, 0, architecture), _answer(_KILL), (_LOAD, 0, 0, 0)]
    return _pack([*start, *tree])


def _pack(instructions: list[Instruction]) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def _intervals(blocks: dict[int, list[Instruction]]) -> list[tuple[int, list[Instruction]]]:
    """Consecutive numbers with the same answer as one interval: (first number, what to do)."""
    refuse, unknown = [_answer(_ERRNO | _EPERM)], [_answer(_ERRNO | _ENOSYS)]
    intervals: list[tuple[int, list[Instruction]]] = []
    for number in range(_FIRST_UNKNOWN):
        block = blocks.get(number, refuse)
        if not intervals or intervals[-1][1] != block:
            intervals.append((number, block))
    return [*intervals, (_FIRST_UNKNOWN, unknown)]


def _decide(intervals: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    left, right = _decide(intervals[:middle]), _decide(intervals[middle:])
    assert len(left) < 256, "a conditional jump spans at most 255 instructions"
    return [(_JGE, len(left), 0, intervals[middle][0]), *left, *right]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Filter:
    """A filter ready to be installed, after a fork too.

    Args:
        program: `zygote_program` or `fence_program`.
    """

    def __init__(self, program: Callable[[str], bytes]) -> None:
        self.code = program(os.uname().machine)
        self._copy = ctypes.create_string_buffer(self.code, len(self.code))
        self._program = _Program(len(self.code) // 8, ctypes.addressof(self._copy))
        self._pointer = ctypes.byref(self._program)

    def install(self) -> None:
        """Confine this process for good. Needs no_new_privs."""
        libc.prctl(libc.PR_SET_SECCOMP, 2, self._pointer)
