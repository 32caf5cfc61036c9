"""What becomes of a proposal: every outcome on a program made for it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from mutation_world import COUNT, LARGEST, count_even, largest, problem

from psgpo.execution import Outcome, Sandbox
from psgpo.mutation.candidates import Candidate, changed_lines
from psgpo.mutation.program import Program
from psgpo.mutation.verify import Work, given_lines, judge_batch
from psgpo.records import Call, CallTests, Problem, Status, Tests, Verdict


class Scripted:
    """A teacher that proposes these programs."""

    name = "scripted"

    def __init__(self, *proposals: tuple[str, str], layout: bool = False) -> None:
        self.proposals, self.layout = proposals, layout

    def settings(self) -> dict[str, object]:
        return {}

    def propose(self, problem: Problem, program: Program, *, seed: int) -> list[Candidate]:
        found = []
        for family, code in self.proposals:
            changed = changed_lines(program.text, code)
            first = changed.first if changed else 1
            candidate = Candidate(
                code=code,
                teacher=self.name,
                operator="scripted",
                kind="scripted",
                family=family,  # type: ignore[arg-type]
                line=min(first, len(program.lines)),
                mutated_line=first,
                in_place=bool(changed and changed.in_place),
                layout=self.layout,
            )
            found.append(candidate)
        return found


def judged(
    sandbox: Sandbox, task: Problem, *proposals: tuple[str, str], layout: bool = False, **options: object
) -> Work:
    settings = {"plus": {}, "generated": 0, "seed": 0, "timeout": 2.0} | options
    return judge_batch([task], [Scripted(*proposals, layout=layout)], sandbox, **settings)[0]  # type: ignore[arg-type]


def outcomes(work: Work) -> list[tuple[str, str]]:
    assert not work.skipped
    return [(entry.outcome, entry.decided_by) for entry in work.judged]


def test_pass_is_positive_and_fail_is_negative(sandbox: Sandbox) -> None:
    wrong, other = COUNT.replace("+= 1", "+= 2"), COUNT.replace("number % 2 == 0", "not number % 2")
    assert outcomes(judged(sandbox, count_even(), ("bug", wrong), ("refactor", other))) == [
        ("negative", "tests"),
        ("positive", ""),
    ]


def test_a_rewrite_that_breaks_the_program_is_negative_whatever_it_was_meant_to_be(sandbox: Sandbox) -> None:
    work = judged(sandbox, count_even(), ("refactor", COUNT.replace("== 0", "== 1")))
    assert outcomes(work) == [("negative", "tests")]


def test_endless_and_greedy_programs_are_told_apart(sandbox: Sandbox) -> None:
    work = judged(sandbox, count_even(), ("bug", COUNT.replace("total = 0", "total = len('x' * 10**10)")))
    assert outcomes(work) == [("memory", "tests")]
    assert outcomes(judged(sandbox, count_even(), ("bug", COUNT.replace("total = 0", "while 1: total = 0")))) == [
        ("timeout", "tests")
    ]


def test_lines_that_no_test_executes_are_unreached(sandbox: Sandbox) -> None:
    code = "def f(n):\n    if n > 100:\n        return 0\n    return n\n"
    task = problem(code, ["assert f(1) == 1", "assert f(5) == 5"])
    work = judged(
        sandbox, task, ("bug", code.replace("return 0", "return 1")), ("bug", code.replace("> 100", ">= 100"))
    )
    assert outcomes(work) == [("unreached", ""), ("positive", "")]


def test_duplicates_and_equivalents_are_set_aside(sandbox: Sandbox) -> None:
    wrong = COUNT.replace("== 0", "== 1")
    same_tree = wrong.replace("== 1", "==  1")
    same_code = COUNT.replace("total = 0", "total = (0)")
    folded = COUNT.replace("% 2", "% (1 + 1)")
    work = judged(sandbox, count_even(), ("bug", wrong), ("bug", same_tree), ("bug", same_code), ("bug", folded))
    assert [outcome for outcome, _ in outcomes(work)] == ["negative", "duplicate", "duplicate", "equivalent"]
    parentheses = judged(sandbox, count_even(), ("refactor", same_code), ("refactor", same_code), layout=True)
    assert [outcome for outcome, _ in outcomes(parentheses)] == ["positive", "duplicate"]


def test_what_does_not_parse_is_invalid(sandbox: Sandbox) -> None:
    broken = COUNT.replace("total = 0", "total = = 0")
    late = COUNT.replace("total = 0", "total = 0; return = 1")
    assert [o for o, _ in outcomes(judged(sandbox, count_even(), ("bug", broken), ("bug", late)))] == ["invalid"] * 2


def test_weak_tests_are_helped_by_plus_and_by_generated_inputs(sandbox: Sandbox) -> None:
    weak = problem(LARGEST, ["assert largest([1, 5]) == 5", "assert largest([12, 4, 30]) == 30"], name="toy/largest")
    last = LARGEST.replace("number > best", "number > best - 7")
    calls = (Call(args=([5, 1],), expected=5),)
    plus = {"toy/largest": Problem(id="toy/largest", prompt="", tests=CallTests(function="largest", calls=calls))}
    assert outcomes(judged(sandbox, weak, ("bug", last))) == [("positive", "")]
    assert outcomes(judged(sandbox, weak, ("bug", last), plus=plus)) == [("negative", "plus")]
    assert outcomes(judged(sandbox, weak, ("bug", last), generated=30)) == [("negative", "generated")]
    right = LARGEST.replace("number > best", "best < number")
    assert outcomes(judged(sandbox, weak, ("refactor", right), plus=plus, generated=30)) == [("positive", "")]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (problem(None, ["assert f(1) == 1"]), "no reference solution"),
        (problem("def f(n):\n    return 2\n", ["assert f(1) == 1"]), "fails its own tests (WRONG_ANSWER"),
        (problem("def f(n:\n", ["assert f(1) == 1"]), "is no Python program"),
        (problem("def f(n):\n    return 1\n# ```\n```\n", ["assert f(1) == 1"]), "fence of a code block"),
        (problem("def f(n):\n    while 1: pass\n", ["assert f(1) == 1"]), "TIMEOUT"),
    ],
    ids=["none", "wrong", "syntax", "fence", "endless"],
)
def test_references_that_cannot_be_used_are_skipped_with_the_reason(
    sandbox: Sandbox, task: Problem, words: str
) -> None:
    work = judged(sandbox, task, ("bug", "def f(n):\n    return 3\n"))
    assert words in work.skipped
    assert work.judged == []


def test_a_reference_that_is_slow_is_skipped() -> None:
    class Slow:
        def grade(self, items: Iterable[tuple[str, Tests]]) -> list[Verdict]:
            verdict = Verdict(status=Status.PASSED, tests_passed=1, tests_total=1, cpu_seconds=0.6)
            return [verdict for _ in items]

        def evaluate_many(self, items: object) -> list[list[Outcome]]:
            raise AssertionError("nothing to evaluate")

    work = judge_batch([count_even()], [], Slow(), plus={}, generated=5, seed=0, timeout=2.0)[0]
    assert "more than a quarter of the time limit of 2 s" in work.skipped


def test_lines_of_the_prompt_are_given() -> None:
    starter = 'def f(n):\n    """Doc."""\n'
    task = problem(starter + "    return n\n", ["assert f(1) == 1"], starter_code=starter)
    assert given_lines(task) == 2
    assert given_lines(largest()) == 0
