"""Landlock: the process may read the standard library and a few system files, and nothing else on the file system.

Site-packages are left out on purpose: a benchmark installed there would hand the program its expected values. From
kernel 6.12 on (ABI 6) Landlock also stops signals and abstract sockets to processes outside.
"""

from __future__ import annotations

import ctypes
import os
import struct

from psgpo.execution.confinement import libc
from psgpo.execution.confinement.readable import Readable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""ABI -> number of file system rights it knows; a newer ABI keeps the last."""
SIGNAL_SCOPE_ABI = 6


def abi() -> int:
    """The kernel's Landlock version.

    Raises:
        OSError: the kernel has none, or it is switched off.
    """
    return libc.syscall(_CREATE_RULESET, 0, 0, 1)


class Ruleset:
    """A ruleset, built once and applied in every child."""

    def __init__(self, readable: Readable) -> None:
        version = abi()
        rights = max(count for known, count in _FILE_RIGHTS.items() if known <= version)
        words = [(1 << rights) - 1]
        if version >= 4:
            words.append(0b11)  # TCP bind and connect
        if version >= SIGNAL_SCOPE_ABI:
            words.append(0b11)  # abstract sockets and signals
        attributes = (ctypes.c_uint64 * len(words))(*words)
        self._fd = libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), 8 * len(words), 0)
        for path in readable.listed:
            self._allow(path, _READ_DIRECTORY)
        for path in readable.trees:
            self._allow(path, _READ_DIRECTORY | _READ_FILE)
        for path in readable.files:
            self._allow(path, _READ_FILE)

    def _allow(self, path: str, rights: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # not there: nothing to allow
        try:
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd))
            libc.syscall(_ADD_RULE, self._fd, 1, ctypes.byref(rule), 0)
        finally:
            os.close(fd)

    def apply(self) -> None:
        """Confine this process for good. Needs no_new_privs."""
        libc.syscall(_RESTRICT_SELF, self._fd, 0)
