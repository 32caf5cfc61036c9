"""What a tester can do with a program. `KINDS` maps the kind of a job to the function that does it.

A job function drives one `Session` and returns (header, frames) for the owner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psgpo.execution import channel
from psgpo.execution.comparators import COMPARATORS, Judge
from psgpo.execution.session import EndedError, Reply, Session
from psgpo.records import Status

Json = dict[str, Any]
Result = tuple[Json, list[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of job."""

    frames: int
    """Frames that follow the header."""
    work: Callable[[Session, Json, list[bytes]], Result]


def grade_calls(session: Session, header: Json, frames: list[bytes]) -> Result:
    """Run every test, also after one failed; the first that does not hold names the status.

    PASSED needs an answer that holds for each of at least one test.
    """
    *request, expected_frame = frames
    expected = channel.decode(expected_frame)
    judge = COMPARATORS[header["comparator"]]
    arguments = channel.decode(request[-1])
    held = answered = 0
    failure: tuple[Status, str] | None = None
    first_failing: int | None = None
    stable = True
    try:
        session.start(request)
        for index, want in enumerate(expected):
            status, detail = _judge(session.reply(), want, arguments[index], judge, header.get("tolerance", 0.0))
            answered += 1
            if status is None:
                held += 1
                continue
            stable = stable and status is not Status.MEMORY
            if failure is None:
                failure, first_failing = (status, detail), index
    except EndedError as end:
        stable = stable and end.stable
        if failure is None:
            failure, first_failing = (end.status, end.detail), answered if end.loaded else None
    if failure is None:
        assert held == answered == len(expected) > 0
        failure = (Status.PASSED, "")
    verdict = {
        "status": failure[0].value,
        "detail": failure[1],
        "tests_passed": held,
        "tests_total": len(expected),
        "first_failing": first_failing,
    }
    return {"verdict": verdict, "stable": stable}, []


def _judge(reply: Reply, want: Any, arguments: list[Any], judge: Judge, tolerance: float) -> tuple[Status | None, str]:
    """None when the answer holds, else what is wrong with it."""
    if reply.value is None:
        return reply.status, reply.detail
    allow_nan = b'"nan"' in reply.value and _has_nan(want)
    try:
        got = channel.decode(reply.value, allow_nan=allow_nan)
    except channel.TooLargeError as error:
        return Status.OUTPUT_LIMIT, str(error)
    except channel.BadValueError as error:
        return Status.BAD_VALUE, str(error)
    return (None, "") if judge(want, got, tuple(arguments), tolerance) else (Status.WRONG_ANSWER, "")


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    if isinstance(value, dict):
        return any(_has_nan(item) for pair in value.items() for item in pair)
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_has_nan, value))


def evaluate(session: Session, header: Json, frames: list[bytes]) -> Result:
    """Collect the value or the error of every call. Values are decoded here first, which makes that safe later."""
    errors: list[str | None] = []
    values: list[bytes] = []
    try:
        session.start(frames)
        for _ in range(header["tests"]):
            error, value = _checked(session.reply())
            errors.append(error)
            values.append(value)
    except EndedError as end:
        missing = header["tests"] - len(errors)
        errors += [f"{end.status}: {end.detail}"] * missing
        values += [b"null"] * missing
    return {"errors": errors}, values


def _checked(reply: Reply) -> tuple[str | None, bytes]:
    if reply.value is None:
        return f"{reply.status}: {reply.detail}", b"null"
    try:
        channel.decode(reply.value)
    except channel.TooLargeError as refusal:
        return f"{Status.OUTPUT_LIMIT}: {refusal}", b"null"
    except channel.BadValueError as refusal:
        return f"{Status.BAD_VALUE}: {refusal}", b"null"
    return None, reply.value


KINDS: dict[str, Kind] = {
    "calls": Kind(frames=4, work=grade_calls),  # program, function, calls, expected
    "evaluate": Kind(frames=3, work=evaluate),  # program, function, calls
}
