"""What programs return or print on the tests' inputs: the votes of a majority. Expected values are never looked at.

Programs run in the sandbox and answer with plain data; anything else (an object, a crash, an exit, no answer in time)
is a failed call, which votes for nothing. Two outputs are one when they are equal with equal types at every depth, so 1
and 1.0 are two; two printed texts when their lines are, white space at the ends left out.

Unlike the judge, which starts a program afresh for each standard input, here one process runs it as a script input
after input. One that reads or writes the descriptors themselves, past Python's streams, prints nothing here, and a
program that prints nothing has no vote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from psgpo.jsonl import JsonlAppender, read_jsonl
from psgpo.lines import extract_code
from psgpo.problems.programs import judged_program
from psgpo.records import AssertTests, CallTests, Problem, Response, StdioTests
from psgpo.rerank.choose import vote_clusters

Outputs = tuple[str | None, ...]
"""Per call a digest of what was returned; None for a call that failed."""
BATCH = 256
"""Programs between two writes."""


class Evaluator(Protocol):
    """The part of `psgpo.execution.Sandbox` that is needed here."""

    def evaluate_many(self, items: Sequence[tuple[str, str, Sequence[tuple[Any, ...]]]], /) -> Any: ...


def why_no_majority(problems: Sequence[Problem]) -> str | None:
    """None where every problem has outputs to vote on: what a function returns, or what a program prints.

    A majority over some of the problems would stand beside methods that are measured on all of them.
    """
    scripts = [problem.id for problem in problems if isinstance(problem.tests, AssertTests)]
    if not scripts:
        return None
    return (
        f"{len(scripts)} of {len(problems)} problems ({scripts[0]}{', ...' if len(scripts) > 1 else ''}) are tested by "
        "scripts, which say of no value that it is the output"
    )


def votes_of(
    groups: Mapping[str, Sequence[Response]],
    problems: Mapping[str, Problem],
    evaluator: Evaluator,
    path: Path,
    *,
    progress: Any = lambda done, total: None,
) -> dict[str, list[int | None]]:
    """Clusters of equal outputs of every problem's responses, in their order.

    What is known lies in `path`: rows of `program` (SHA-256 of problem, program and inputs) and `outputs`.
    """
    programs: dict[str, tuple[str, str, Sequence[tuple[Any, ...]]]] = {}
    keys: dict[str, list[str]] = {name: [] for name in groups}
    for name, group in groups.items():
        for response in group:
            asked = _asked(problems[name], judged_program(problems[name], extract_code(response.text)))
            program, function, calls = asked
            content = f"{name}\x1f{function}\x1f{_spelled(calls)}\x1f{program}"
            key = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
            programs[key] = asked
            keys[name].append(key)
    with JsonlAppender(path) as appender:
        known: dict[str, Outputs] = {row["program"]: tuple(row["outputs"]) for row in read_jsonl(path, dict)}
        missing = [key for key in programs if key not in known]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            for key, outcomes in zip(batch, evaluator.evaluate_many([programs[key] for key in batch]), strict=True):
                known[key] = tuple(None if found.error is not None else digest(found.value) for found in outcomes)
                appender.append({"program": key, "outputs": list(known[key])})
            progress(len(programs) - len(missing) + start + len(batch), len(programs))
    return {name: vote_clusters([known[key] for key in keys[name]]) for name in groups}


SCRIPT = """\
def printed(text):
    import builtins, io, sys, types
    stdin = sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    stdout = sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    # Scripts open descriptor 0 by its number too.
    module.open = lambda file, *rest, **more: stdin if file in (0, "/dev/stdin") else builtins.open(file, *rest, **more)
    try:
        exec(compile({program!r}, "<program>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        pass  # an ordinary way to end
    lines = [line.rstrip() for line in stdout.buffer.getvalue().decode().rstrip().split("\\n")]
    if lines == [""]:
        raise EOFError("it printed nothing")
    return lines
"""
"""A program that reads standard input, as a function: the sandbox tells what is returned, not what is printed."""


def _asked(problem: Problem, program: str) -> tuple[str, str, Sequence[tuple[Any, ...]]]:
    """(program, function, calls) for the sandbox."""
    tests = problem.tests
    if isinstance(tests, CallTests):
        return program, tests.function, [call.args for call in tests.calls]
    assert isinstance(tests, StdioTests), "the caller has asked `why_no_majority`"
    return SCRIPT.format(program=program), "printed", [(case.stdin,) for case in tests.cases]


def digest(value: Any) -> str:
    """Sixteen hex digits that equal values share: sets and dicts in any order, NaN with NaN.

    >>> digest({1: "a", 2: "b"}) == digest({2: "b", 1: "a"}), digest(1) == digest(1.0)
    (True, False)
    """
    return hashlib.sha256(_spelled(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _spelled(value: Any) -> str:
    kind = type(value)
    if kind is dict:
        return f"dict{sorted((_spelled(key), _spelled(item)) for key, item in value.items())}"
    if kind in (set, frozenset):
        return f"{kind.__name__}{sorted(map(_spelled, value))}"
    if kind in (list, tuple):
        return f"{kind.__name__}[{','.join(map(_spelled, value))}]"
    if kind is int:
        return f"int:{value:x}"  # in decimal, Python refuses long numbers
    return f"{kind.__name__}:{0.0 if kind is float and value == 0 else value!r}"
