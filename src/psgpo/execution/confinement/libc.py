"""The system calls that Python does not wrap, each raising OSError on failure."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

M_ARENA_MAX = -8

_MACHINE = os.uname().machine
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_CAPABILITY_VERSION_3 = 0x20080522


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    """Call by number; pointers as ctypes objects, integers as 64 bits."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(int(_libc.syscall(ctypes.c_long(number), *wide)), f"system call {number}")


def prctl(option: int, value: int, pointer: object = 0) -> None:
    """prctl with one integer, and a pointer where the option takes one."""
    third = pointer if not isinstance(pointer, int) else ctypes.c_ulong(pointer)
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), third, zero, zero), f"prctl({option})")


def unshare(flags: int) -> None:
    """Leave the shared namespaces named by `flags`."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); an empty string is passed as NULL."""
    texts = [text.encode() if text else None for text in (source, target, kind)]
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {source} on {target}")


def make_read_only(target: str, *, devices: bool) -> None:
    """Make the mount tree at `target` read-only and without set-uid; device files work only when `devices`."""
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID | (0 if devices else MS_NODEV), 0, 0, 0)
    syscall(_MOUNT_SETATTR, _AT_FDCWD, ctypes.c_char_p(target.encode()), _AT_RECURSIVE, ctypes.byref(attributes), 32)


def pivot_to_cwd() -> None:
    """Make the working directory (a mount point) the root, and drop the old root."""
    dot = ctypes.c_char_p(b".")
    syscall(_PIVOT_ROOT[_MACHINE], dot, dot)
    _check(_libc.umount2(dot, MNT_DETACH), "umount of the old root")


def drop_capabilities() -> None:
    """Give up every capability; with no_new_privs they cannot come back."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    syscall(_CAPSET[_MACHINE], ctypes.byref(header), ctypes.byref(data))


def limit_arenas() -> None:
    """One heap arena for all threads: glibc would reserve 64 MiB of address space for each further one."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
