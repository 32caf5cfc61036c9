"""Which lines of a program its tests execute, found out inside the sandbox.

The program is wrapped into another one that runs it, test by test, under a line tracer. A mutant behaves like the
reference until its changed line is executed for the first time, so a line that the reference never executes is never
executed in its mutants either: one trace serves them all.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from psgpo.mutation.program import Program
from psgpo.mutation.strengthen import Grader
from psgpo.records import AssertTests, CallTests, Tests

_CHUNKS = 4
"""Parts of a stage's tests: when a part takes too long, those before it still count."""

_TRACER = '''\
def psgpo_reached(kind, setup, tests):
    """Lines of SOURCE that the tests execute."""
    import io
    import sys

    reached, pending = set(), {}

    def local(frame, event, argument):
        if event == "line":
            reached.add(frame.f_lineno)
            left = pending[frame.f_code]
            left.discard(frame.f_lineno)
            if not left:
                return None
        return local

    def enter(frame, event, argument):
        code = frame.f_code
        if code.co_filename != "<reference>":
            return None
        if code not in pending:
            pending[code] = {line for _, _, line in code.co_lines() if line}
        return local if pending[code] else None

    code = compile(SOURCE, "<reference>", "exec")
    names = {"__name__": "__main__" if kind == "stdio" else "reference"}

    def run(test):
        if kind == "stdio":
            sys.stdin, sys.stdout = io.StringIO(test), io.StringIO()
            exec(code, dict(names))
        elif kind == "asserts":
            exec(test, names)
        else:
            target = names[setup.split(".")[0]]
            if "." in setup:
                target = getattr(target(), setup.split(".")[1])
            target(*test)

    sys.settrace(enter)
    try:
        if kind != "stdio":
            exec(code, names)
        if kind == "asserts":
            exec(setup, names)
        for test in tests:
            try:
                run(test)
            except (Exception, SystemExit):
                pass
    finally:
        sys.settrace(None)
        sys.stdin, sys.stdout = sys.__stdin__, sys.__stdout__
    return sorted(reached)
'''


def reached_lines(items: Sequence[tuple[Program, Sequence[Tests]]], grader: Grader) -> list[frozenset[int] | None]:
    """Per program the lines (from 1) that any of its tests executes; None where no trace could be had."""
    requests = []
    for program, tests in items:
        source = f"SOURCE = {program.text!r}\n\n\n{_TRACER}"
        calls = [call for part in tests for call in _calls(part)]
        requests.append((source, "psgpo_reached", calls))
    found: list[frozenset[int] | None] = []
    for outcomes in grader.evaluate_many(requests) if requests else []:
        answers = [outcome.value for outcome in outcomes if outcome.error is None]
        found.append(frozenset(line for answer in answers for line in answer) if answers else None)
    return found


def is_reached(program: Program, line: int, reached: frozenset[int]) -> bool:
    """Whether a line, or the beginning of the statement it belongs to, was executed.

    Python reports no event for the inner lines of some statements, such as a list of constants.
    """
    if line in reached:
        return True
    around = [
        node
        for node in ast.walk(program.tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    innermost = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)
    return innermost is not None and innermost.lineno in reached


def _calls(tests: Tests) -> list[tuple[Any, ...]]:
    if isinstance(tests, CallTests):
        kind, setup, each = "calls", tests.function, [list(call.args) for call in tests.calls]
    elif isinstance(tests, AssertTests):
        kind, setup, each = "asserts", tests.setup, list(tests.checks)  # type: ignore[arg-type]
    else:
        kind, setup, each = "stdio", "", [case.stdin for case in tests.cases]  # type: ignore[misc]
    size = max(1, -(-len(each) // _CHUNKS))
    return [(kind, setup, each[start : start + size]) for start in range(0, len(each), size)]
