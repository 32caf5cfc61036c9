"""What a tester can do with a program. `KINDS` maps the kind of a job to the function that does it.

A job function drives the program's processes and returns (header, frames) for the owner.
"""

from __future__ import annotations

import fcntl
import json
import marshal
import os
from collections.abc import Callable, Sequence
from typing import Any

from psgpo.execution import asserts, channel
from psgpo.execution.comparators import COMPARATORS, STDOUT_COMPARATORS, Judge
from psgpo.execution.session import EndedError, Reply, Session, Work
from psgpo.records import Status

Json = dict[str, Any]
Result = tuple[Json, list[bytes]]
Outcome = tuple[Status, str]

SPARE_OUTPUT = 1 << 20
"""Bytes that a script may write beyond twice the expected output."""
_ALL_SEALS = 0xF
_PASSED = (Status.PASSED, "")


def grade_calls(work: Work, header: Json, frames: Sequence[bytes]) -> Result:
    """Call the program's function once per test; frames: program, calls, expected values (`encoding`)."""
    program, request, packed = frames
    expected = marshal.loads(packed)
    _, arguments = marshal.loads(request)
    judge = COMPARATORS[header["comparator"]]
    outcomes: list[Outcome] = []
    with Session(work, patient=True) as session:
        end = None
        try:
            session.start([b"calls", request, program])
            for given, want in zip(arguments, expected, strict=True):
                outcomes.append(_judge(session.reply(), want, tuple(given), judge, header["tolerance"]))
        except EndedError as error:
            end = error
    return _verdict(outcomes, end, len(expected), "calls"), []


def _judge(reply: Reply, want: Any, arguments: tuple[Any, ...], judge: Judge, tolerance: float) -> Outcome:
    if reply.value is None:
        assert reply.status is not None
        return reply.status, reply.detail
    allow_nan = b'"nan"' in reply.value and _has_nan(want)
    try:
        got = channel.decode(reply.value, allow_nan=allow_nan)
    except channel.TooLargeError as error:
        return Status.OUTPUT_LIMIT, str(error)
    except channel.BadValueError as error:
        return Status.BAD_VALUE, str(error)
    return _PASSED if judge(want, got, arguments, tolerance) else (Status.WRONG_ANSWER, "")


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    if isinstance(value, complex):
        return value != value
    if isinstance(value, dict):
        return any(_has_nan(item) for pair in value.items() for item in pair)
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_has_nan, value))


def grade_asserts(work: Work, header: Json, frames: Sequence[bytes]) -> Result:
    """Run the test script here and the program there; frames: program, names, script (`asserts.compile_script`)."""
    program, names, packed = frames
    script = asserts.compile_script(packed, names)
    if script.request is not None:
        answer = _run_asserts(work, script, [b"calls", script.request, program], header["tests"], known=True)
        if Status.BAD_VALUE not in answer["verdict"]["outcomes"]:
            return answer, []
        # What the program returned may be an object that the script knows how to question. That the first run was in
        # vain is not its fault: it gets its whole time again.
        work.wall_seconds = 0.0
    return _run_asserts(work, script, [b"requests", names, program], header["tests"], known=False), []


def _run_asserts(work: Work, script: asserts.Script, frames: list[bytes], tests: int, *, known: bool) -> Json:
    with Session(work, patient=known) as session:
        link = asserts.Link(session, allow_nan=script.allow_nan)
        end, outcomes = None, []
        try:
            session.start(frames)
            outcomes = asserts.run_script(link, script, known=known)
        except EndedError as error:
            end = error
    end = end or link.ended
    if end is not None and not end.loaded:
        outcomes = []  # no check ran, whatever the script made of it
    if end is None and link.answers == 0 and all(status is Status.PASSED for status, _ in outcomes):
        end, outcomes = EndedError(Status.NO_REPORT, "no check asked the program anything"), []
    mode = "asserts+objects" if link.handles_used else "asserts"
    answer = _verdict(outcomes, end, tests, mode)
    return answer | {"stable": answer["stable"] and not link.unstable}


def grade_stdio(work: Work, header: Json, frames: Sequence[bytes]) -> Result:
    """Run the program afresh for each case; frames: program, JSON list of [stdin, expected stdout]."""
    program, packed = frames
    cases = json.loads(packed)
    judge = STDOUT_COMPARATORS[header["comparator"]]
    outcomes: list[Outcome] = []
    stable, end = True, None
    for stdin, expected in cases:
        if work.seconds_left <= 0:
            end = EndedError(Status.TIMEOUT, "wall time limit", stable=False)
            break
        try:
            outcomes.append(_run_case(work, program, stdin.encode(), expected, judge))
        except EndedError as error:
            if error.status is Status.SYNTAX_ERROR:
                end = error
                break
            outcomes.append((error.status, error.detail))
            stable = stable and error.stable
    answer = _verdict(outcomes, end, len(cases), "stdio")
    return answer | {"stable": answer["stable"] and stable}, []


def _run_case(
    work: Work, program: bytes, stdin: bytes, expected: str, judge: Callable[[str, str], bool]
) -> tuple[Status, str]:
    """Run the program on one input; compared inside the session, while its alarm is set."""
    source = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    try:
        with os.fdopen(os.dup(source), "wb") as stream:
            stream.write(stdin)
        os.lseek(source, 0, os.SEEK_SET)
        fcntl.fcntl(source, fcntl.F_ADD_SEALS, _ALL_SEALS)
        with Session(work, (source, writer)) as session:
            session.start([b"script", program])
            written = session.output(reader, 2 * len(expected.encode()) + SPARE_OUTPUT)
            return _PASSED if judge(expected, written.decode("utf-8", "replace")) else (Status.WRONG_ANSWER, "")
    finally:
        os.close(reader)


def _verdict(outcomes: Sequence[Outcome], end: EndedError | None, total: int, mode: str) -> Json:
    """What the owner needs for a `Verdict`.

    The first test that does not hold names the status; tests that never ran carry what ended the program. PASSED needs
    an answer that holds for each of at least one test.
    """
    rest = [(end.status, end.detail)] * (total - len(outcomes)) if end is not None else []
    every = [*outcomes, *rest]
    assert len(every) == total > 0
    first = next((index for index, (status, _) in enumerate(every) if status is not Status.PASSED), None)
    never_ran = end is not None and not end.loaded and not outcomes
    status, detail = _PASSED if first is None else every[first]
    verdict = {
        "status": status.value,
        "detail": detail,
        "tests_passed": sum(status is Status.PASSED for status, _ in every),
        "tests_total": total,
        "first_failing": None if never_ran else first,
        "outcomes": [status.value for status, _ in every],
        "mode": mode,
    }
    memory = any(status is Status.MEMORY for status, _ in every)
    return {"verdict": verdict, "stable": not memory and (end is None or end.stable)}


def evaluate(work: Work, header: Json, frames: Sequence[bytes]) -> Result:
    """Collect the value or the error of every call. Values are decoded here first, which makes that safe later."""
    program, request = frames
    errors: list[str | None] = []
    values: list[bytes] = []
    with Session(work, patient=True) as session:
        try:
            session.start([b"calls", request, program])
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


KINDS: dict[str, Callable[[Work, Json, Sequence[bytes]], Result]] = {
    "calls": grade_calls,
    "asserts": grade_asserts,
    "stdio": grade_stdio,
    "evaluate": evaluate,
}
