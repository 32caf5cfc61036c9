"""The search over splices with a sandbox that runs the small programs of these tests in place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from psgpo.labeling.splice import SpliceResult, SpliceSettings, judge_all, splice_labels, splice_search
from psgpo.records import Status, Verdict

RIGHT = """\
def f(xs):
    total = 0
    for x in xs:
        if x > 0:
            total += x
    return total
"""
CASES = ([1, -2, 3], 4), ([], 0), ([-1], 0), ([5, 5], 10)


def judge(programs: Sequence[str]) -> list[Verdict]:
    return [verdict(program) for program in programs]


def verdict(program: str) -> Verdict:
    outcomes = tuple(outcome(program, list(xs), wanted) for xs, wanted in CASES)
    held = sum(one is Status.PASSED for one in outcomes)
    status = next((one for one in outcomes if one is not Status.PASSED), Status.PASSED)
    return Verdict(status=status, tests_passed=held, tests_total=len(CASES), outcomes=outcomes)


def outcome(program: str, xs: list[int], wanted: int) -> Status:
    scope: dict[str, object] = {"range": lambda *a: range(*a)}
    try:
        exec(compile(program, "<test>", "exec"), scope)
        answer = scope["f"](xs)  # type: ignore[operator]
    except MemoryError:
        return Status.MEMORY
    except Exception:
        return Status.RUNTIME_ERROR
    return Status.PASSED if answer == wanted and type(answer) is int else Status.WRONG_ANSWER


def search(code: str, *pool: str, settings: SpliceSettings | None = None) -> SpliceResult:
    searches = [splice_search(code, pool, roots=["f"], settings=settings)]
    ((_, result),) = judge_all(searches, lambda asked: judge([program for _, program in asked]))
    return result


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (RIGHT.replace("x > 0", "x < 2"), 4),
        (RIGHT.replace("total += x", "total = x"), 5),
        (RIGHT.replace("return total", "return total + 1"), 6),
        (RIGHT.replace("total = 0", "# first\n    total = 0").replace("+= x", "-= x"), 6),
        ("def f(values):\n    s = 0\n    for v in values:\n        if v > 0:\n            s -= v\n    return s\n", 5),
    ],
)
def test_the_first_wrong_line_is_found(wrong: str, line: int) -> None:
    result = search(wrong, RIGHT)
    assert (result.last_proved, result.suspect, result.exact) == (line - 1, line, True)
    assert result.proof is not None
    assert verdict(result.proof).passed
    assert result.proof.splitlines()[: line - 1] == wrong.splitlines()[: line - 1]


def test_a_program_without_its_end_is_right_so_far() -> None:
    result = search("\n".join(RIGHT.splitlines()[:4]) + "\n", RIGHT)
    assert result.suspect is None
    assert splice_labels(result, [False] * 4) == (1.0,) * 4


def test_without_donors_only_wrong_lines_are_proved() -> None:
    result = search(RIGHT.replace("return total", "return 7"))
    assert (result.last_proved, result.donors, result.first_refuted) == (0, 0, 6)
    for gap in ("zero", "negative"):
        assert splice_labels(result, [False] * 6, gap) == (0.0,) * 5 + (-1.0,)  # type: ignore[arg-type]


def test_gaps_are_zero_or_negative() -> None:
    result = SpliceResult(
        lines=5, last_proved=2, first_refuted=5, suspect=3, executions=9, shared=0, donors=1, proof="", confined=False
    )
    flags = [False] * 5
    assert splice_labels(result, flags, "negative") == (1.0, 1.0, -1.0, -1.0, -1.0)
    assert splice_labels(result, flags, "zero") == (1.0, 1.0, 0.0, 0.0, -1.0)
    assert SpliceResult.from_json(result.to_json()) == result


def test_a_later_statement_of_the_module_may_complete_what_a_function_reads() -> None:
    right = """\
kept = []
def f(xs):
    return sum(x for x in xs if (x > 0) in kept)
for sign in [True]:
    kept.append(sign)
"""
    assert verdict(right).passed
    wrong = right.replace("[True]", "[True, False]")
    for pool in ([], [right]):
        assert search(wrong, *pool).first_refuted is None, "another loop may fill the list"


def test_no_line_that_a_passing_program_begins_with_is_wrong() -> None:
    wrong = "K = 2\ndef f(xs):\n    return K * sum(x for x in xs if x > 0)\nK = 3\n"
    right = wrong.replace("3", "1")
    assert verdict(right).passed
    assert search(wrong).first_refuted == 3, "but for programs that bind K anew"
    result = search(wrong, right)
    assert (result.shared, result.first_refuted) == (3, 4)
    assert splice_labels(result, [False] * 4, "zero")[3] == -1.0
    assert -1.0 not in splice_labels(result, [False] * 4, "zero")[:3]
    result = SpliceResult(
        lines=6, last_proved=2, first_refuted=5, suspect=5, executions=9, shared=3, donors=1, proof="", confined=False
    )
    assert splice_labels(result, [False] * 6, "zero") == (1.0, 1.0, 0.0, -1.0, -1.0, -1.0)


def test_what_one_changed_statement_mends_is_known_and_not_labelled() -> None:
    result = SpliceResult(
        lines=4, last_proved=2, first_refuted=None, suspect=3, executions=5, shared=0, donors=1, proof="", confined=True
    )
    assert result.exact
    assert splice_labels(result, [False] * 4, "zero") == (1.0, 1.0, 0.0, 0.0)


def test_budgets_hold() -> None:
    settings = SpliceSettings(first_sweep=2, per_line=4, per_program=6, batch=2, confirm=0)
    wrong = "def f(xs):\n    a = len(xs)\n    b = a * 2\n    c = b + a\n    return c\n"
    result = search(wrong, RIGHT, settings=settings)
    assert result.executions <= 6 + 4 + 3


def test_many_searches_side_by_side_find_what_one_finds() -> None:
    codes = [RIGHT.replace("x > 0", f"x > {n}") for n in range(1, 9)] + ["def f(:\n", ""]
    alone = [search(code, RIGHT) for code in codes]
    searches = [splice_search(code, [RIGHT], roots=["f"]) for code in codes]
    together = dict(judge_all(searches, lambda asked: judge([p for _, p in asked]), in_flight=3))
    assert [together[number] for number in range(len(codes))] == alone
