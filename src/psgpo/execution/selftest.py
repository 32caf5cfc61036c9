"""Evidence instead of promises: a program that tries to get out, run in every new slot before any other."""

from __future__ import annotations

from collections.abc import Iterable

FUNCTION = "attempt"
ATTEMPTS = ("read", "write", "process", "network", "signal", "look")

PROGRAM = """
import os, _socket

def read():
    open("/etc/passwd").read(1)

def write():
    path = "/tmp/psgpo-selftest-%d" % os.getpid()
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)

def process():
    if os.fork() == 0:
        os._exit(0)

def network():
    _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).close()

def signal():
    os.kill(os.getppid(), 0)

def look():
    if not [name for name in os.listdir("/proc") if name.isdigit()]:
        raise OSError("nothing to see")

def attempt(name):
    try:
        globals()[name]()
    except OSError:
        return False
    return True
"""

MEANING = {
    "read": "read a file of the system",
    "write": "write a file",
    "process": "start a process",
    "network": "open a socket",
    "signal": "signal another process",
    "look": "see other processes",
}

REFUSED_BY = {
    "namespaces": ("read", "look"),
    "landlock": ("read", "write", "look"),
    "seccomp": ("write", "process", "network", "signal"),
}
"""What each layer promises to refuse."""


def broken_promises(layers: Iterable[str], possible: Iterable[str]) -> list[str]:
    """Attempts that succeeded although a layer in force should have refused them."""
    promised = {attempt for layer in layers for attempt in REFUSED_BY.get(layer, ())}
    return sorted(promised & set(possible))
