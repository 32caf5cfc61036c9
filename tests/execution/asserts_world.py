"""What the tests of assert scripts share."""

from __future__ import annotations

from psgpo.execution import Sandbox
from psgpo.records import AssertTests, Status, Verdict

P, WRONG, BAD = Status.PASSED, Status.WRONG_ANSWER, Status.BAD_VALUE


def script(*checks: str, setup: str = "", objects: tuple[str, ...] = ()) -> AssertTests:
    return AssertTests(entry_point="f", checks=checks, setup=setup, objects=objects)


def grade(
    sandbox: Sandbox, program: str, *checks: str, setup: str = "", objects: tuple[str, ...] = ()
) -> tuple[list[Status], Verdict]:
    """The outcome of each check, and the whole verdict."""
    verdict = sandbox.grade([(program, script(*checks, setup=setup, objects=objects))])[0]
    assert verdict.tests_passed == verdict.outcomes.count(Status.PASSED)
    assert verdict.tests_total == len(verdict.outcomes) == len(checks)
    assert verdict.passed == (verdict.tests_passed == len(checks))
    return list(verdict.outcomes), verdict
