"""What runs in the untrusted process: load the program, do what the tester asks, answer with plain data.

Nothing here is trusted by anybody: once the program is loaded it can rewrite all of it. It only makes honest programs
fast and their failures well named. The process holds inputs and no expected values.

The first frame names the kind of work; `KINDS` says what follows. Frames to the tester are JSON lists: ["ready", time],
then per request ["ok", value] or ["error", status, detail, name of a builtin exception]. After ["end", status, detail,
name] nothing further is answered; ["load", ...] says that nothing will be; a whole program says ["done"].
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from psgpo.execution import channel

READY = "ready"
DONE = b'["done"]'
MAX_DETAIL = 200
"""Longest error text, characters."""

_ModuleType = type(sys)
_exit = os._exit
_SIMPLE = (bool, type(None))
_SIMPLE_REPLIES = {True: b'["ok",true]', False: b'["ok",false]', None: b'["ok",null]'}
"""What needs no encoder to be sent, besides small integers."""


def greet(fd: int) -> None:
    """Tell the tester that the process is confined, and since when."""
    channel.write_frame(fd, b'["%b",%b]' % (READY.encode(), repr(time.monotonic()).encode()))


def serve(fd: int, reader: channel.FrameReader) -> None:
    """Answer one request on `fd` and end the process."""
    try:
        KINDS[reader.frame().decode()](fd, reader)
    except BaseException as error:
        _say(fd, "end", error)
    finally:
        _exit(0)


def _serve_calls(fd: int, reader: channel.FrameReader) -> None:
    """Frames: function and lists of arguments (see `encoding.encode_calls`), program. All calls are known beforehand
    and answered in order."""
    request, program = reader.frame(), reader.frame()
    function, calls = marshal.loads(request)  # written by a trusted process
    module = _load(fd, program, "solution")
    target = None if module is None else _function(fd, module, function)
    if target is not None:
        for arguments in calls:
            try:
                result = target(*arguments)
                if type(result) is int and -(2**63) <= result < 2**63:
                    reply = b'["ok",%d]' % result
                elif type(result) in _SIMPLE:
                    reply = _SIMPLE_REPLIES[result]
                else:
                    reply = b'["ok",%b]' % channel.encode(result, foreign=_base_value)
            except (SystemExit, GeneratorExit):
                raise
            except BaseException as error:
                _say(fd, "error", error)
            else:
                channel.write_frame(fd, reply)


def _serve_requests(fd: int, reader: channel.FrameReader) -> None:
    """Frames: list of names, program; then one frame per request, see `_REQUESTS`, each answered before the next."""
    names, program = channel.decode(reader.frame()), reader.frame()
    module = _load(fd, program, "solution")
    entry_point = None if module is None else _function(fd, module, names[0])
    if entry_point is None:
        return
    objects = [entry_point]
    for name in names[1:]:
        if name not in module.__dict__:
            _say(fd, "load", NameError(f"the program defines no {name!r}"))
            return
        objects.append(module.__dict__[name])

    def foreign(value: Any) -> Any:
        try:
            return _base_value(value)
        except channel.BadValueError:
            objects.append(value)
            return channel.Ref(len(objects) - 1)

    while True:
        request = channel.decode(reader.frame(), limit=channel.TRUSTED_BYTES, resolve=objects.__getitem__)
        try:
            result = _REQUESTS[request[0]](*request[1:])
            reply = b'["ok",%b]' % channel.encode(result, foreign=foreign)
        except (SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            _say(fd, "error", error)
        else:
            channel.write_frame(fd, reply)


def _call(target: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    return target(*arguments, **keywords)


def _set_item(target: Any, key: Any, value: Any) -> None:
    target[key] = value


_REQUESTS: dict[str, Callable[..., Any]] = {
    "call": _call,
    "get": getattr,
    "set": setattr,
    "item": lambda target, key: target[key],
    "set item": _set_item,
    "list": list,
    "next": next,
    "len": len,
    "str": str,
    "repr": repr,
}
"""What the tester can do with an object of the program; the first argument is the object."""


def _serve_script(fd: int, reader: channel.FrameReader) -> None:
    """Frame: program. It runs as a script whose standard input and output are descriptors 0 and 1."""
    program = reader.frame()
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    failure: BaseException | None = None
    try:
        if _load(fd, program, "__main__") is None:
            return
    except SystemExit:
        pass  # a program's ordinary way to end
    try:
        _finish_script()
    except BaseException as error:
        failure = error
    if failure is None:
        channel.write_frame(fd, DONE)
    else:
        _say(fd, "end", failure)


def _finish_script() -> None:
    """What the interpreter does at the end of a script: wait for threads, run exit functions, flush."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()


KINDS: dict[str, Callable[[int, channel.FrameReader], None]] = {
    "calls": _serve_calls,
    "requests": _serve_requests,
    "script": _serve_script,
}


def _load(fd: int, program: bytes, name: str) -> Any:
    """Run the program as module `name`; None when it has been reported as unusable."""
    try:
        code = compile(program.decode(), "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError) as error:
        _say(fd, "load", error, "SYNTAX_ERROR")
        return None
    except SystemError as error:  # how the compiler may put it
        raise MemoryError from error
    module = _ModuleType(name)
    module.__file__ = "/program.py"  # there is no such file, but scripts look where they are
    sys.modules[name] = module  # dataclasses and typing look their module up
    try:
        exec(code, module.__dict__)
    except SystemExit:
        if name == "__main__":
            raise
        _say(fd, "load", sys.exc_info()[1])
        return None
    except BaseException as error:
        if name == "__main__":
            _flush()
        _say(fd, "load", error)
        return None
    return module


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(BaseException):
            stream.flush()  # type: ignore[union-attr]


def _function(fd: int, module: Any, name: str) -> Any:
    """The function to call, `name` or `Class.name`; None when it has been reported as missing."""
    owner, _, method = name.rpartition(".")
    try:
        target = getattr(module.__dict__[owner](), method) if owner else module.__dict__[name]
    except KeyError:
        target = None
    except BaseException as error:
        _say(fd, "load", error)
        return None
    if not callable(target):
        _say(fd, "load", NameError(f"the program defines no function {name!r}"))
        return None
    return target


_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (str, str.__str__),
    (float, float.__float__),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (list, lambda value: list(list.__iter__(value))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)


def _base_value(value: Any) -> Any:
    """A Counter, named tuple or IntEnum as the dict, tuple or int that it is.

    Raises:
        BadValueError: the value is none of a builtin type.
    """
    kind = type(value)
    for base, convert in _BASES:
        if issubclass(kind, base):
            return convert(value)
    if "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].generic):
        return value.item()
    raise channel.BadValueError(f"{channel.type_name(kind)} is not plain data")


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


def _builtin_name(error: BaseException) -> str:
    """The exception's own class or the nearest builtin one that it derives from: what a test can catch it as."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def _describe(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{name}: {text}" if text else name


def _say(fd: int, kind: str, error: BaseException | None, status: str = "") -> None:
    assert error is not None
    found, detail = _classify(error)
    if status:
        found, detail = status, _describe(error)
    texts = [text[:MAX_DETAIL].encode("utf-8", "backslashreplace").decode() for text in (detail, _builtin_name(error))]
    channel.write_frame(fd, channel.encode([kind, status or found, *texts]))
