"""What runs in the untrusted process: load the program, call its function, answer with plain data.

Nothing here is trusted by anybody: once the program is loaded it can rewrite all of it. It only makes honest programs
fast and their failures well named. The process holds inputs and no expected values.

Frames to the tester are JSON lists: ["ready"], then per call ["ok", value] or ["error", status, detail]. After
["end", status, detail] no further call is answered; ["load", status, detail] says that none will be.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from psgpo.execution import channel

READY = b'["ready"]'
MAX_DETAIL = 200
"""Longest error text, characters."""

_ModuleType = type(sys)
_exit = os._exit


def serve(fd: int) -> None:
    """Answer one request on `fd` and end the process. The request is three frames: program, function, calls."""
    try:
        channel.write_frame(fd, READY)
        program, function, calls = (channel.read_frame(fd) for _ in range(3))
        target = _load(fd, program, function.decode())
        if target is not None:
            for arguments in channel.decode(calls):
                _answer(fd, target, arguments)
    except BaseException as error:
        _say(fd, "end", *_classify(error))
    finally:
        _exit(0)


def _load(fd: int, program: bytes, function: str) -> Any:
    """The function to call; None when the program has been reported as unusable."""
    try:
        code = compile(program.decode(), "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError) as error:
        _say(fd, "load", "SYNTAX_ERROR", _describe(error))
        return None
    module = _ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses and typing look their module up
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        _say(fd, "load", *_classify(error))
        return None
    target = module.__dict__.get(function)
    if not callable(target):
        _say(fd, "load", "RUNTIME_ERROR", f"NameError: the program defines no function {function!r}")
        return None
    return target


def _answer(fd: int, target: Any, arguments: tuple[Any, ...]) -> None:
    try:
        reply = b'["ok",' + channel.encode(target(*arguments)) + b"]"
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        _say(fd, "error", *_classify(error))
        return
    channel.write_frame(fd, reply)


def _classify(error: BaseException) -> tuple[str, str]:
    kind = type(error)
    if kind is channel.BadValueError:
        return "BAD_VALUE", str(error)
    if kind is channel.TooLargeError:
        return "OUTPUT_LIMIT", str(error)
    if isinstance(error, SystemExit):
        return "NO_REPORT", "the program called exit"
    if isinstance(error, MemoryError):
        return "MEMORY", "the program ran out of memory"
    return "RUNTIME_ERROR", _describe(error)


def _describe(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{name}: {text}" if text else name


def _say(fd: int, kind: str, status: str, detail: str) -> None:
    text = detail[:MAX_DETAIL].encode("utf-8", "backslashreplace").decode()
    channel.write_frame(fd, channel.encode([kind, status, text]))
