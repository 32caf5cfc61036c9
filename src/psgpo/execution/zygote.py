"""The zygote: a lean process that forks one child per program. It holds no tests, no secrets and an empty environment.

Control protocol with the tester, over one stream socket:

    zygote -> tester   one frame when ready: {layer: "" when it is in force, else why not}
    tester -> zygote   RUN: `RUN_REQUEST` plus descriptors (SCM_RIGHTS): the child's end of a socket pair, where the
                       child answers, and for a script also its standard input and output
    tester -> zygote   END: one byte, `END_NOW` or `END_AFTER_EXIT`
    zygote -> tester   `END_REPLY` once the child and everything it started are gone
"""

from __future__ import annotations

import _socket
import array
import builtins
import functools
import gc
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from psgpo.execution import channel, child, helper
from psgpo.execution.confinement import landlock, libc, namespaces, seccomp
from psgpo.execution.confinement.readable import Readable, readable_paths
from psgpo.execution.packages import Packages
from psgpo.execution.stack import MAIN, limit_stack

CHILD_FD = 3
RUN_REQUEST = struct.Struct("<IQ")
"""CPU limit in seconds, address space limit in bytes."""
END_REPLY = struct.Struct("<id?")
"""Raw wait status, CPU seconds, whether the process was still there when it should have ended."""
END_NOW = b"k"
END_AFTER_EXIT = b"x"
"""The channel is closed already: give the process a moment to end by itself, so that its own wait status is seen."""
EXIT_GRACE = 0.5
"""Seconds that moment lasts."""
OPEN_FILES = 64
PROCESSES = 64
"""Threads of one program, the zygote included; set where the user id is counted for this slot alone."""
FIRST_UID = 1_879_048_192
"""Root's children run as this plus a process id: a user nobody else is. `NOBODY` where the id is not mapped."""
NOBODY = 65534
PRELOADED = (
    "bisect", "collections", "copy", "dataclasses", "datetime", "enum", "fractions", "functools", "heapq", "itertools",
    "math", "operator", "re", "string", "typing",
)  # fmt: skip
"""What programs import most: loaded once here instead of in every child."""


_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Confinement:
    """What is put in force once for the zygote, and what is left to do in each child."""

    def __init__(self, packages: Packages, without: list[str]) -> None:
        user = FIRST_UID + os.getpid()  # before entering a PID namespace, where every zygote is number 1
        readable = readable_paths(packages)
        self.refusals = dict.fromkeys(without, "switched off")
        self._try("namespaces", lambda: namespaces.enter(readable))
        self._try("landlock", lambda: _confine(landlock.Ruleset(readable).apply))
        self._try("seccomp", lambda: _confine(_filter_calls))
        if self.in_force("namespaces"):
            namespaces.enter(readable)
            _become_first_process()
        else:
            os.chdir("/")
        self._ruleset = landlock.Ruleset(readable) if self.in_force("landlock") else None
        self.fence = seccomp.Filter(seccomp.fence_program) if self.in_force("seccomp") else None
        """To be installed in each child."""
        self.user_alone = self._leave_root(user, readable)
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it, so it comes last

    def in_force(self, layer: str) -> bool:
        return not self.refusals[layer]

    def seal(self) -> None:
        """Confine the zygote itself, and so every child to come. It opens no file and starts no program any more."""
        for limit, value in (
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (value, value))
        limit_stack(MAIN)
        if self._ruleset is not None:
            self._ruleset.apply()
        if self.fence is not None:
            seccomp.Filter(seccomp.zygote_program).install()

    def _try(self, layer: str, action: Callable[[], None]) -> None:
        if layer not in self.refusals:
            self.refusals[layer] = _trial(action)

    def _leave_root(self, own_user: int, readable: Readable) -> bool:
        """Become a user without rights; True when no other process counts towards that user's process limit."""
        if os.geteuid() != 0:
            libc.drop_capabilities()
            self.refusals["uid"] = "not started by root: the program runs as the same user as the owner"
            return self.in_force("namespaces")
        if "uid" not in self.refusals:
            for user in (own_user, NOBODY):
                self.refusals["uid"] = _trial(functools.partial(_become_user, user, readable))
                if self.in_force("uid"):
                    _become_user(user, readable)
                    if user == NOBODY:
                        self.refusals["uid"] = "only as nobody, whose processes are not the program's alone"
                    return user != NOBODY
        libc.drop_capabilities()
        return False


def _confine(apply: Callable[[], None]) -> None:
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    apply()


def _filter_calls() -> None:
    for program in (seccomp.zygote_program, seccomp.fence_program):
        seccomp.Filter(program).install()


def _become_user(user: int, readable: Readable) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    with open(os.path.join(readable.standard_library, "os.py"), "rb"):
        pass  # a library in a private home folder cannot be read by another user


def _trial(action: Callable[[], None]) -> str:
    """Do `action` in a throwaway process: empty when it works, else the reason."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except (OSError, KeyError) as error:
            os.write(writer, str(error).encode()[:500])
        finally:
            os._exit(0)
    os.close(writer)
    reason = os.read(reader, 500).decode()
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    return reason or (f"the trial died (wait status {status})" if status else "")


def _become_first_process() -> None:
    """Fork into the new PID namespace. The caller's process only waits; its death kills the namespace."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    pid = os.fork()
    if pid:
        os.closerange(3, OPEN_FILES)
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Serve until the tester closes the control socket. Arguments: its descriptor, packages, layers to leave off."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    control = _socket.socket(fileno=int(arguments[0]))
    os.environ.clear()
    libc.limit_arenas()
    try:
        packages = Packages.from_argument(arguments[1])
        # The helper first, for its file cannot be read once the zygote is confined.
        serve, refusal = (None, "switched off") if helper.NAME in arguments[2:] else helper.load()
        confinement = Confinement(packages, [layer for layer in arguments[2:] if layer != helper.NAME])
        if confinement.fence is None:
            serve, refusal = None, refusal or "needs the layer seccomp"
        _warm_up(packages)
        confinement.seal()
    except Exception as error:
        channel.write_frame(control.fileno(), channel.encode({"error": f"{type(error).__name__}: {error}"}))
        raise
    channel.write_frame(control.fileno(), channel.encode(confinement.refusals | {helper.NAME: refusal}))
    if serve is None:
        while request := _receive(control):
            _run_one(control, confinement, *request)
    else:
        _serve_by(serve, control, confinement)


def _serve_by(serve: helper.Serve, control: _socket.socket, confinement: Confinement) -> None:
    assert confinement.fence is not None
    processes = PROCESSES if confinement.user_alone else 0
    orphan_dies = not confinement.in_force("namespaces")
    first = serve(control.fileno(), confinement.fence.code, processes, orphan_dies, round(1000 * EXIT_GRACE))
    if first is not None:
        try:
            gc.enable()
            child.serve(CHILD_FD, channel.FrameReader(CHILD_FD, *first))
        finally:
            os._exit(70)


def _warm_up(packages: Packages) -> None:
    """Load and touch what a child will use, so that it is shared memory there, then hide the sandbox's own modules."""
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    __import__("random")  # without its new seed in every child, which costs time and makes verdicts a matter of luck
    os.register_at_fork = register
    sys.path.extend(packages.folders)
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # a pool of threads would not live on in a child
    for name in (*PRELOADED, *packages.names):
        __import__(name)
    os.environ.clear()
    sys.modules["random"].seed(0)  # the same numbers in every slot and run
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # as in an interpreter with `site`
    calls = channel.encode([[1, [2.5, "x"], {"k": (None, True)}]])
    space: dict[str, Any] = {}
    exec(compile("def f(*a):\n    return [a, {1: {2}}]\n", "<program>", "exec"), space)
    channel.encode(space["f"](*channel.decode(calls)))
    for name in [name for name in sys.modules if name.partition(".")[0] == "psgpo"]:
        del sys.modules[name]
    gc.collect()
    gc.disable()
    gc.freeze()
    _LARDER.extend(_use_up_pools())


_LARDER: list[object] = []
"""Keeps full what `_use_up_pools` filled."""
_POOL_BYTES, _POOL_HEADER, _LARGEST_SMALL = 16 << 10, 48, 512
"""CPython's allocator for small objects; where it differs, filling its pools does neither good nor harm."""


def _use_up_pools() -> Iterator[object]:
    """Fill the small-object pools that are in use.

    A child's first object of each size then opens a fresh pool, one zeroed page, instead of writing to a pool that it
    shares with the zygote, whose page the kernel would have to copy.
    """
    for size in range(_POOL_HEADER, _LARGEST_SMALL + 1, 16):
        fresh = 0
        for _ in range(4 * _POOL_BYTES // size):
            block = bytes(size - sys.getsizeof(b""))
            fresh += id(block) % _POOL_BYTES == _POOL_HEADER
            if fresh == 3:
                break  # the first block of a pool, given back: the pool is free and will be taken next
            yield block
    for _ in range(3000):
        yield object()
        yield float(_)


def _receive(control: _socket.socket) -> tuple[array.array[int], int, int] | None:
    descriptors = array.array("i")
    data, ancillary, _, _ = control.recvmsg(RUN_REQUEST.size, _socket.CMSG_LEN(3 * descriptors.itemsize))
    if not data:
        return None
    (_, _, packed), *_ = ancillary
    descriptors.frombytes(packed)
    return (descriptors, *RUN_REQUEST.unpack(data))


def _run_one(
    control: _socket.socket,
    confinement: Confinement,
    descriptors: array.array[int],
    cpu_seconds: int,
    memory_bytes: int,
) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            _become_child(confinement, descriptors, cpu_seconds, memory_bytes)
        finally:
            os._exit(70)
    for fd in descriptors:
        os.close(fd)
    order = control.recv(1)
    overstayed = order == END_AFTER_EXIT and not _ends_by_itself(pid)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    _kill_descendants(pid, confinement)
    if order:
        control.sendall(END_REPLY.pack(status, usage.ru_utime + usage.ru_stime, overstayed))


def _ends_by_itself(pid: int) -> bool:
    deadline = time.monotonic() + EXIT_GRACE
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
        time.sleep(0.001)
    return False


def _kill_descendants(pid: int, confinement: Confinement) -> None:
    """Kill what the program may have started. With the filter in force there is nothing: it cannot start a process."""
    if confinement.in_force("seccomp"):
        return
    alone = confinement.in_force("namespaces") or confinement.user_alone
    try:
        if alone:
            os.kill(-1, signal.SIGKILL)  # every process of the namespace or user but this one
        else:
            os.killpg(pid, signal.SIGKILL)
        while os.waitpid(-1, 0)[0]:
            pass
    except (ProcessLookupError, ChildProcessError):
        pass


def _become_child(confinement: Confinement, descriptors: array.array[int], cpu_seconds: int, memory_bytes: int) -> None:
    if confinement.fence is None:
        os.setsid()  # a group to be killed
    if not confinement.in_force("namespaces"):  # where a namespace ends with its first process, so does the child
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    if confinement.user_alone:
        resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    for target, fd in enumerate(descriptors[1:]):  # first, for one of them may have the channel's number
        os.dup2(fd, target)
    os.dup2(descriptors[0], CHILD_FD)
    os.set_inheritable(CHILD_FD, False)
    os.closerange(CHILD_FD + 1, OPEN_FILES + 64)
    if confinement.fence is not None:
        confinement.fence.install()
    gc.enable()
    child.greet(CHILD_FD)
    child.serve(CHILD_FD, channel.FrameReader(CHILD_FD))
