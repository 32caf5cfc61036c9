"""Tests and programs as the bytes that go to a slot. Tests are encoded once, however many programs they judge."""

from __future__ import annotations

import hashlib
import json
import marshal
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psgpo.errors import UserError
from psgpo.execution import channel
from psgpo.execution.comparators import COMPARATORS, STDOUT_COMPARATORS, WITHOUT_TOLERANCE
from psgpo.execution.slot import Job
from psgpo.records import AssertTests, CallTests, StdioTests, Tests

WITHOUT_SHARING = 2
"""Version of the marshal format in which what occurs twice arrives as two: programs change their arguments."""
STDIO_BYTES = 256 << 20
"""All inputs and outputs of one problem together, as JSON."""
REMEMBERED_BYTES = 256 << 20
"""Encoded tests kept, the least recently used ones go first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTests:
    """Tests ready to be sent."""

    kind: str
    """A key of `psgpo.execution.jobs.KINDS`."""
    tests: int
    """How many there are."""
    frames: tuple[bytes, ...]
    """What follows the program."""
    digest: bytes
    """SHA-256 over all that the verdict depends on."""
    comparator: str = ""
    tolerance: float = 0.0

    @property
    def size(self) -> int:
        """Bytes, with something for the objects around them."""
        return 512 + sum(map(len, self.frames))

    def job(self, program: bytes) -> Job:
        return Job(
            kind=self.kind,
            tests=self.tests,
            frames=(program, *self.frames),
            comparator=self.comparator,
            tolerance=self.tolerance,
        )


class TestEncoder:
    """Encodes tests and remembers the latest. Thread-safe."""

    __test__ = False  # no test class, whatever its name

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._known: OrderedDict[int, tuple[Tests, EncodedTests]] = OrderedDict()
        """By identity; the tests are held, so an id stays theirs."""

    def encode(self, tests: Tests) -> EncodedTests:
        """The tests' bytes.

        Raises:
            UserError: there are no tests, an unknown comparator, a tolerance that it does not use, broken statements,
                or values that are no plain data.
        """
        with self._lock:
            if (found := self._known.get(id(tests))) is not None:
                self._known.move_to_end(id(tests))
                return found[1]
        encoded = _encode(tests)
        with self._lock:
            self._known[id(tests)] = (tests, encoded)
            self._bytes += encoded.size
            while self._bytes > REMEMBERED_BYTES and len(self._known) > 1:
                _, (_, oldest) = self._known.popitem(last=False)
                self._bytes -= oldest.size
        return encoded


def check_tests(tests: Tests) -> None:
    """Raise `UserError` unless a sandbox can use the tests."""
    _encode(tests)


def encode_calls(function: str, calls: Sequence[Sequence[Any]]) -> bytes:
    """The function's name and the lists of arguments as one frame.

    Raises:
        UserError: an argument is no plain data.
    """
    return _marshalled(function, (function, [list(arguments) for arguments in calls]))


def program_bytes(program: str) -> bytes:
    """A lone surrogate becomes bytes that are no UTF-8: the program's process reports them as a syntax error."""
    return program.encode("utf-8", "surrogatepass")


def _encode(tests: Tests) -> EncodedTests:
    if isinstance(tests, CallTests):
        return _encode_call_tests(tests)
    if isinstance(tests, AssertTests):
        return _encode_assert_tests(tests)
    return _encode_stdio_tests(tests)


def _encode_call_tests(tests: CallTests) -> EncodedTests:
    _check(tests.calls, f"tests of {tests.function!r}", tests.comparator, COMPARATORS)
    if tests.tolerance and tests.comparator in WITHOUT_TOLERANCE:
        raise UserError(
            f"tests.tolerance = {tests.tolerance}: comparator {tests.comparator!r} has none; use 'close', or leave the "
            "tolerance out"
        )
    _check_names(tests.function.split(".") if isinstance(tests.function, str) else [tests.function])
    frames = (
        encode_calls(tests.function, [call.args for call in tests.calls]),
        _marshalled(tests.function, [call.expected for call in tests.calls]),
    )
    judge = f"{tests.comparator} {tests.tolerance!r}"
    return EncodedTests(
        kind="calls",
        tests=len(tests.calls),
        frames=frames,
        digest=_digest(judge, frames),
        comparator=tests.comparator,
        tolerance=tests.tolerance,
    )


def _encode_assert_tests(tests: AssertTests) -> EncodedTests:
    _check(tests.checks, f"tests of {tests.entry_point!r}", "", {"": None})
    _check_names([tests.entry_point, *tests.objects])
    for place, code in [("setup", tests.setup), *((f"check {n}", check) for n, check in enumerate(tests.checks))]:
        try:
            compile(code, f"<{place}>", "exec")
        except (SyntaxError, ValueError) as error:
            raise UserError(f"tests of {tests.entry_point!r}, {place}: not valid Python ({error})") from None
    names = channel.encode([tests.entry_point, *tests.objects])
    frames = (names, json.dumps([tests.setup, tests.checks]).encode())
    return EncodedTests(kind="asserts", tests=len(tests.checks), frames=frames, digest=_digest("", frames))


def _encode_stdio_tests(tests: StdioTests) -> EncodedTests:
    _check(tests.cases, "stdio tests", tests.comparator, STDOUT_COMPARATORS)
    for number, case in enumerate(tests.cases):
        if not (_is_text(case.stdin) and _is_text(case.expected)):
            raise UserError(f"stdio tests, case {number}: stdin and expected must be texts without lone surrogates")
    frames = (json.dumps([[case.stdin, case.expected] for case in tests.cases]).encode(),)
    if len(frames[0]) > STDIO_BYTES:
        raise UserError(f"stdio tests: their texts take more than {STDIO_BYTES >> 20} MiB; leave the largest out")
    return EncodedTests(
        kind="stdio",
        tests=len(tests.cases),
        frames=frames,
        digest=_digest(tests.comparator, frames),
        comparator=tests.comparator,
    )


def _check(tests: Sequence[Any], who: str, comparator: str, known: dict[str, Any]) -> None:
    if not tests:
        raise UserError(f"{who}: a program cannot be graded without tests; give at least one")
    if comparator not in known:
        raise UserError(f"tests.comparator: unknown {comparator!r}; known: {', '.join(known)}")


def _check_names(names: Sequence[Any]) -> None:
    if wrong := [name for name in names if not (isinstance(name, str) and name.isidentifier())]:
        raise UserError(f"tests: {wrong[0]!r} is not the name of a function or class")


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _marshalled(function: str, value: Any) -> bytes:
    """Python's own format: fast to read, and safe from a writer that is trusted."""
    try:
        channel.encode(value, limit=channel.TRUSTED_BYTES)  # which says what may be sent and how much of it
        return marshal.dumps(value, WITHOUT_SHARING)
    except (channel.BadValueError, channel.TooLargeError, ValueError) as error:
        raise UserError(f"tests of {function!r} cannot be sent to the sandbox: {error}") from None


def _digest(judge: str, frames: Sequence[bytes]) -> bytes:
    digest = hashlib.sha256(judge.encode())
    for frame in frames:
        digest.update(len(frame).to_bytes(8, "little"))
        digest.update(frame)
    return digest.digest()
