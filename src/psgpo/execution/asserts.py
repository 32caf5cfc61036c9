"""Run a trusted test script against a program in another process.

The script's names for the program's function and classes are proxies. A call sends plain data and gets plain data, or
an exception, or a `Handle` on an object of the program's own class. A handle can be passed back, read, written, called,
indexed and listed; each time the program answers with plain data that the script then judges. What would make the
program's word the judgement (comparing a handle, asking its truth, hashing it) is an error.
"""

from __future__ import annotations

import builtins
import json
import marshal
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any, NoReturn

from psgpo.execution import channel
from psgpo.execution.foresight import known_calls
from psgpo.execution.session import EndedError, Reply, Session
from psgpo.records import Status


class ProgramEndedError(BaseException):
    """No further check can run. Not an `Exception`, so that a script's own handlers let it pass."""


class ProgramError(Exception):
    """An exception of the program that is none of the builtin ones."""


class HandleError(Exception):
    """The script used an object of the program in a way that would trust it."""


_NOT_RAISED_HERE = (StopIteration, StopAsyncIteration, ExceptionGroup)
"""The end of an iteration would silently end one of the script's own loops; a group needs members."""


class Link:
    """What the script's proxies share: the program's process and what is known about it."""

    def __init__(self, session: Session, *, allow_nan: bool) -> None:
        self._session = session
        self._allow_nan = allow_nan
        self._read = 0
        self.ended: EndedError | None = None
        """Set once the program has ended; every later request ends the check that makes it."""
        self.answers = 0
        """Requests that the program has answered, be it by an exception."""
        self.surprised = False
        """True when a check made more or fewer calls than the one foreseen: nothing of this run counts."""
        self.handles_used = False
        self.unstable = False
        """True when the program ran out of memory: another time it may not."""

    def recorded(self, index: int) -> Any:
        """The answer to call `index` of those that were sent at the start; see `request` for the errors."""
        if self._read > index:
            self.surprised = True
        if self.ended is not None or self.surprised:
            raise ProgramEndedError
        try:
            reply = self._session.reply()
        except EndedError as end:
            self.ended = end
            raise ProgramEndedError from None
        self._read += 1
        return self._value(reply)

    def finished(self, index: int) -> None:
        """Learn that check `index` is over; it should have read its answer."""
        if self.ended is None and self._read <= index:
            self.surprised = True

    def request(self, operation: str, *content: Any) -> Any:
        """Ask the program's process.

        Raises:
            ProgramEndedError: it will never answer again.
            Exception: what the program raised, as the builtin exception of that name or as `ProgramError`.
        """
        if self.ended is not None:
            raise ProgramEndedError
        frame = channel.encode([operation, *content], limit=channel.TRUSTED_BYTES, foreign=_reference)
        try:
            reply = self._session.ask(frame)
        except EndedError as end:
            self.ended = end
            raise ProgramEndedError from None
        return self._value(reply)

    def _value(self, reply: Reply) -> Any:
        self.answers += 1
        if reply.value is None:
            self._raise(reply)
        try:
            value = channel.decode(reply.value, allow_nan=self._allow_nan, resolve=self._handle)
        except channel.TooLargeError as error:
            raise _marked(ProgramError(str(error)), Status.OUTPUT_LIMIT, str(error)) from None
        except channel.BadValueError as error:
            raise _marked(ProgramError(str(error)), Status.BAD_VALUE, str(error)) from None
        return value

    def _handle(self, number: int) -> Handle:
        self.handles_used = True
        return Handle(self, number)

    def _raise(self, reply: Reply) -> NoReturn:
        assert reply.status is not None
        self.unstable = self.unstable or reply.status is Status.MEMORY
        kind = getattr(builtins, reply.exception, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, _NOT_RAISED_HERE):
            kind = ProgramError
        text = reply.detail.partition(": ")[2]  # after the name of the class
        try:
            error = kind(text)
        except TypeError:  # a few need more than a text
            error = kind.__new__(kind, text)
        raise _marked(error, reply.status, reply.detail)


class Handle:
    """An object that lives in the program's process."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: Link, number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def _ask(self, operation: str, *content: Any) -> Any:
        return self._link.request(operation, channel.Ref(self._number), *content)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._ask("call", list(arguments), keywords)

    def __getattr__(self, name: str) -> Any:
        if name == "__bases__":
            self._refuse()  # `issubclass` would believe it
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("set item", key, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(_plain(self._ask("list"), list))

    def __next__(self) -> Any:
        return self._ask("next")

    def __len__(self) -> int:
        return int(_plain(self._ask("len"), int))

    def __str__(self) -> str:
        return str(_plain(self._ask("str"), str))

    def __repr__(self) -> str:
        return str(_plain(self._ask("repr"), str))

    def _refuse(self, *_: object) -> NoReturn:
        detail = "the test compares an object that is no plain data, and the program's word on it is no evidence"
        raise _marked(HandleError(detail), Status.BAD_VALUE, detail)

    __bool__ = __hash__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise HandleError(f"the program answers with {type(value).__name__} instead of {kind.__name__}")
    return value


def _reference(value: Any) -> channel.Ref:
    if type(value) is Handle:
        return channel.Ref(value._number)
    raise channel.BadValueError(f"the test passes a {channel.type_name(type(value))}, which is not plain data")


def _marked(error: Exception, status: Status, detail: str) -> Exception:
    """Note on an exception that it is the program's, and how the verdict names it."""
    error.psgpo_status = status, detail  # type: ignore[attr-defined]
    return error


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A test script ready to run."""

    names: tuple[str, ...]
    """What the program defines: the entry point, then its classes."""
    setup: CodeType
    checks: tuple[CodeType, ...]
    request: bytes | None
    """All calls of the program at once (`encoding.encode_calls`), one per check, when they are known beforehand."""
    allow_nan: bool
    """Whether the script speaks of NaN at all; a program's NaN is refused otherwise."""


@lru_cache(maxsize=1024)
def compile_script(packed: bytes, names: bytes) -> Script:
    """Compile setup and checks, once however many programs they judge.

    Args:
        packed: JSON, [setup, [check, ...]].
        names: list of what the program defines (`channel.encode`).
    """
    setup, checks = json.loads(packed)
    known = channel.decode(names)
    if b"random" in packed:
        import random  # noqa: F401 - so that `run_script` finds it, also for the first script that uses it
    calls = known_calls(setup, checks, known[0]) if len(known) == 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old escapes and `is` with a literal: the tests are what they are
        return Script(
            names=tuple(known),
            setup=compile(setup, "<setup>", "exec"),
            checks=tuple(compile(check, f"<check {index}>", "exec") for index, check in enumerate(checks)),
            request=None if calls is None else marshal.dumps((known[0], calls), 2),
            allow_nan=re.search(rb"\b(?:is)?nan\b", packed, re.IGNORECASE) is not None,
        )


Outcome = tuple[Status, str]
_UNFORESEEN = Status.BAD_VALUE, "the test calls the program otherwise than foreseen"
"""Never the last word: the script is run again, asking one by one."""


def run_script(link: Link, script: Script, *, known: bool) -> list[Outcome]:
    """One (status, detail) per check, in order; PASSED for those that hold.

    Args:
        link: the program.
        script: what to run.
        known: the program has `script.request` and answers its calls; else it answers one request at a time.
    """
    namespace: dict[str, Any] = {"__name__": "tests"}
    current = 0

    def answer(*_: Any) -> Any:
        return link.recorded(current)

    namespace |= {name: answer if known else Handle(link, number) for number, name in enumerate(script.names)}
    if "random" in sys.modules:
        sys.modules["random"].seed(0)  # a verdict must not depend on what was graded before
    broken = _run(link, script.setup, namespace)
    if broken[0] is not Status.PASSED:
        return [broken] * len(script.checks)
    outcomes = []
    for current, check in enumerate(script.checks):
        outcomes.append(_run(link, check, namespace))
        if known:
            link.finished(current)
            if link.surprised:
                return [_UNFORESEEN] * len(script.checks)
    return outcomes


def _run(link: Link, code: CodeType, namespace: dict[str, Any]) -> Outcome:
    outcome = Status.PASSED, ""
    try:
        exec(code, namespace)
    except BaseException as error:
        outcome = _outcome(error)
    if link.ended is not None:
        return link.ended.status, link.ended.detail
    return outcome


def _outcome(error: BaseException) -> Outcome:
    mark = getattr(error, "psgpo_status", None)
    if mark is not None:
        status, detail = mark
        return status, detail
    if isinstance(error, AssertionError):
        return Status.WRONG_ANSWER, ""
    if isinstance(error, NameError | ImportError | SyntaxError | channel.BadValueError | channel.TooLargeError):
        return Status.WRONG_ANSWER, f"the test itself fails: {type(error).__name__}: {error}"[:200]
    return Status.WRONG_ANSWER, f"{type(error).__name__} in the test: {error}"[:200]
