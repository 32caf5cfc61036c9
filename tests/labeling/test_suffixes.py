"""Splicing by lines, verdicts by a table: which joins are judged, and which of those that pass count."""

from __future__ import annotations

import pytest

from psgpo.labeling.suffixes import BATCH, FIRST, Reader, Spliced, crossed_programs, suffix_search
from psgpo.records import Call, CallTests, Problem, Status, Verdict

PROBLEM = Problem(
    id="p", prompt="sort", tests=CallTests(function="solve", calls=(Call(args=([2, 1],), expected=[1, 2]),))
)
DONOR = ["def solve(x):", "    x = sorted(x)", "    x = [v + 1 for v in x]", "    return x"]


def search(
    lines: list[str],
    passing: set[str],
    *,
    problem: Problem = PROBLEM,
    status: Status = Status.WRONG_ANSWER,
    halving: bool = False,
) -> tuple[int, int, list[str]]:
    """(m*, programs judged as counted, programs judged)."""
    asked: list[str] = []
    reader = Reader.of(problem, ["".join(f"{line}\n" for line in DONOR)])
    steps = suffix_search(lines, [False] * len(lines), [DONOR], reader, above=1, halving=halving)
    answer = None
    while True:
        try:
            programs = steps.send(answer)  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value.last, stop.value.judged, asked
        asked += programs
        answer = [
            Verdict(status=Status.PASSED if one in passing else status, tests_passed=0, tests_total=1)
            for one in programs
        ]


def joined(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_a_join_that_passes_without_the_line_does_not_count() -> None:
    wrong = ["def solve(x):", "    x = x[::-1]", "    return x"]
    again = joined(*wrong[:2], *DONOR[1:])
    assert search(wrong, {again})[0] == 2, "no program without the line passes: it is needed"
    assert search(wrong, {again, again.replace("x = x[::-1]", "pass")})[0] == 1, "the donor starts over"


def test_a_join_that_throws_the_lines_away_does_not_count() -> None:
    wrong = ["def solve(x):", "    y = []", "    y = y + [3]", "    return y"]
    passing = {joined(*wrong[:kept], *DONOR[1:]) for kept in (2, 3)}
    last, _, asked = search(wrong, passing)
    assert last == 2, "y is never read; that it starts as an empty list says nothing"
    assert passing <= set(asked)


def test_joins_that_do_not_parse_are_not_judged() -> None:
    wrong = ["def solve(x):", "    for v in x:", "    return x"]
    last, judged, asked = search(wrong, set())
    assert (last, judged, asked) == (1, 0, [])


def test_behind_a_prefix_that_never_ends_the_rest_is_not_tried() -> None:
    wrong = ["def solve(x):", *[f"    x = x + [{n}]" for n in range(3)], "    return x"]
    donor_joins = len(DONOR) - 1
    assert donor_joins < FIRST < BATCH
    long = [*DONOR[:2], *[f"    x = x + [{n}]" for n in range(20)], "    return x"]
    reader = Reader.of(PROBLEM, [joined(*long)])
    steps = suffix_search([*wrong[:2], "    return x"], [False] * 3, [long], reader, above=1)
    first = next(steps)
    endless = Verdict(status=Status.TIMEOUT, tests_passed=0, tests_total=1)
    assert len(first) == FIRST
    with pytest.raises(StopIteration) as ended:
        steps.send([endless] * FIRST)
    assert ended.value.value == Spliced(1, FIRST, None)


def test_starter_code_is_read_before_the_response_and_left_out_of_what_is_judged() -> None:
    starter = "def solve(x):\n"
    problem = Problem(id="p", prompt="sort", tests=PROBLEM.tests, starter_code=starter)
    reader = Reader.of(problem, ["    return x\n"])
    assert reader.readable("    return x\n")
    assert not reader.readable("    return (x\n")
    assert reader.unused(["    y = x + x", "    return x"]) == {1}
    body = "    x = x[::-1]\n    return sorted(x)\n"
    assert reader.reductions(body, range(1, 2), set()) == ["    pass\n    return sorted(x)\n"]


def test_joined_before_is_not_joined_again() -> None:
    programs = [["def solve(x):", f"    x = {n}", "    y = 2", "    return x"] for n in range(4)]
    before = set(crossed_programs(programs[:2]))
    later = set(crossed_programs(programs, fresh=2))
    assert before
    assert len(later) < len(before | later)
    assert before | later == set(crossed_programs(programs))


LONG = ["def solve(x):", *[f"    x = x + [{n}]" for n in range(12)], "    return x"]
BLOCK = [
    "def solve(x):",
    "    out = []",
    "    for v in x:",
    "        out.append(v)",
    "        out.append(0)",
    "    return out",
]


def completed(lines: list[str], kept: list[int]) -> set[str]:
    """Joins that pass where just these prefixes can be completed."""
    return {joined(*lines[:m], *DONOR[1:]) for m in kept}


@pytest.mark.parametrize("last", range(1, 14))
def test_halving_finds_the_same_line_with_fewer_programs(last: int) -> None:
    passing = completed(LONG, list(range(2, last + 1)))
    every, halved = (search(LONG, passing, halving=halving) for halving in (False, True))
    assert halved[0] == every[0] == last
    if last < 8:
        assert halved[1] < every[1]


@pytest.mark.parametrize("last", range(1, 6))
def test_halving_looks_into_the_statement_behind_the_last_completable_one(last: int) -> None:
    passing = completed(BLOCK, list(range(2, last + 1)))
    assert search(BLOCK, passing, halving=True)[0] == search(BLOCK, passing)[0]


@pytest.mark.parametrize("kept", [[2, 3, 4, 6], [2, 3, 4, 6, 7], [2, 4, 5, 6, 7, 8, 9]])
def test_halving_steps_over_one_statement_that_the_next_one_mends(kept: list[int]) -> None:
    passing = completed(LONG, kept)
    assert search(LONG, passing, halving=True)[0] == search(LONG, passing)[0] == kept[-1]
