"""A world of its own for one zygote: private mounts with a minimal read-only root, no network, no other processes.

Root enters as it is; an ordinary user enters through a user namespace. The process that calls `enter` stays in the old
PID namespace; its next child is the new one's first process, and all others die with that one.
"""

from __future__ import annotations

import os

from psgpo.execution.confinement import libc
from psgpo.execution.confinement.readable import Readable

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_ROOT = "/proc"
"""Where the new root is assembled: a directory that exists everywhere and that nothing bound into the root lies in."""
_INSIDE_ID = 65534


def enter(readable: Readable) -> None:
    """Unshare and move into a new root that holds only what is readable.

    Raises:
        OSError: the kernel or its settings refuse one of the steps; the process is then in a mixed state.
    """
    flags = _NEWNS | _NEWIPC | _NEWPID | _NEWNET
    if os.geteuid() == 0:
        libc.unshare(flags)
    else:
        user, group = os.geteuid(), os.getegid()
        libc.unshare(flags | _NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{_INSIDE_ID} {user} 1")
        _write("/proc/self/gid_map", f"{_INSIDE_ID} {group} 1")
    libc.mount("", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
    _assemble_root(readable)
    os.chdir(_ROOT)
    libc.pivot_to_cwd()
    os.chdir("/")
    libc.make_read_only("/", devices=True)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _assemble_root(readable: Readable) -> None:
    harmless = libc.MS_NOSUID | libc.MS_NODEV
    libc.mount("tmpfs", _ROOT, "tmpfs", harmless, "size=1m,mode=755")
    wanted = [*readable.library_directories, readable.standard_library, "/usr/share/zoneinfo"]
    for path in sorted(path for path in dict.fromkeys(wanted) if os.path.isdir(path)):
        target = _ROOT + path
        if os.path.islink(path):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.symlink(os.readlink(path), target)
        elif not os.path.isdir(target):  # else a parent is bound already
            os.makedirs(target)
            libc.mount(path, target, flags=libc.MS_BIND | libc.MS_REC)
            libc.make_read_only(target, devices=False)
    hidden = [_ROOT + path for path in readable.hidden if os.path.isdir(_ROOT + path)]
    for path in hidden:
        libc.mount("tmpfs", path, "tmpfs", harmless, "size=64k,mode=555")
    for path in readable.packages:
        _bind(path)
    for path in hidden:
        libc.make_read_only(path, devices=False)
    for path in ("/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom"):
        if os.path.exists(path):
            os.makedirs(os.path.dirname(_ROOT + path), exist_ok=True)
            os.close(os.open(_ROOT + path, os.O_CREAT | os.O_WRONLY, 0o444))
            libc.mount(path, _ROOT + path, flags=libc.MS_BIND)
            libc.make_read_only(_ROOT + path, devices=True)


def _bind(path: str) -> None:
    """Show a file or directory at its own place, read-only."""
    target = _ROOT + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    libc.mount(path, target, flags=libc.MS_BIND | libc.MS_REC)
    libc.make_read_only(target, devices=False)
