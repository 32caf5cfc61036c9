"""Stronger tests: only inputs on which the reference answers, plainly and always the same."""

from __future__ import annotations

from mutation_world import count_even, data_file, problem

from psgpo.execution import Sandbox
from psgpo.mutation.strengthen import generated_stages, known_inputs, plus_stages
from psgpo.problems.benchmarks import load_benchmark
from psgpo.records import AssertTests, Call, CallTests, Problem, StdioCase, StdioTests


def plus_problem(function: str, *pairs: tuple[tuple[object, ...], object]) -> Problem:
    calls = tuple(Call(args=args, expected=expected) for args, expected in pairs)
    return Problem(id="toy/count", prompt="", tests=CallTests(function=function, calls=calls, comparator="evalplus"))


def test_known_inputs_are_read_out_of_asserts() -> None:
    checks = (
        "assert f([1, 2], x) == 3",  # not written out
        "assert set(f([1, -2], 'a')) == {1}",
        "assert math.isclose(f((1, 2), {3: 4}), 0.5)",
        "assert f(1, key=2) == 3",
        "assert other(7) == f(5, 6)",
    )
    tests = AssertTests(entry_point="f", checks=checks)
    assert known_inputs(tests) == [([1, -2], "a"), ((1, 2), {3: 4}), (5, 6)]
    renamed = AssertTests(
        entry_point="f", setup="candidate = f\nother = g", checks=("assert candidate(1) == other(2)",)
    )
    assert known_inputs(renamed) == [(1,)]
    assert known_inputs(StdioTests(cases=(StdioCase(stdin="1", expected="2"),))) == []


def test_plus_tests_that_the_reference_fails_are_left_out(sandbox: Sandbox) -> None:
    task = count_even()
    extended = plus_problem("count_even", (([2, 4],), 2), (([1],), 7), ((None,), 0), (([0],), 1))
    (stage,) = plus_stages([task], {task.id: extended}, sandbox, timeout=2.0)
    assert stage is not None
    assert (stage.name, stage.count, stage.refused) == ("plus", 2, 2)
    assert sandbox.grade([(task.reference_solution or "", stage.tests)])[0].passed


def test_plus_tests_of_another_function_are_not_used(sandbox: Sandbox) -> None:
    task = count_even()
    assert plus_stages([task], {task.id: plus_problem("other", (([2],), 1))}, sandbox, timeout=2.0) == [None]
    assert plus_stages([task], {}, sandbox, timeout=2.0) == [None]


def test_generated_tests_expect_what_the_reference_answers(sandbox: Sandbox) -> None:
    task = count_even()
    (stage,) = generated_stages([task], [None], sandbox, count=15, seed=0, timeout=2.0)
    assert stage is not None
    assert isinstance(stage.tests, CallTests)
    assert stage.count == 15
    assert all(call.expected == sum(n % 2 == 0 for n in call.args[0]) for call in stage.tests.calls)
    (again,) = generated_stages([task], [None], sandbox, count=15, seed=0, timeout=2.0)
    (other,) = generated_stages([task], [None], sandbox, count=15, seed=1, timeout=2.0)
    assert again == stage != other


def test_humaneval_gets_generated_tests(sandbox: Sandbox) -> None:
    problems = load_benchmark("humaneval", data_file("HumanEval.jsonl.gz"), limit=4)
    stages = generated_stages(problems, [None] * 4, sandbox, count=5, seed=0, timeout=2.0)
    assert [stage.count if stage else 0 for stage in stages] == [5] * 4


def test_answers_that_change_or_fail_or_are_no_plain_data_make_no_test(sandbox: Sandbox) -> None:
    random_ = problem("import random\ndef f(n):\n    return n if n == 3 else random.random()\n", ["assert f(3) == 3"])
    failing = problem("def f(n):\n    return 3 if n == 3 else 1 // 0\n", ["assert f(3) == 3"])
    objects = problem("def f(n):\n    return 3 if n == 3 else object()\n", ["assert f(3) == 3"])
    stages = generated_stages([random_, failing, objects], [None] * 3, sandbox, count=10, seed=0, timeout=2.0)
    assert stages == [None, None, None]


def test_order_does_not_count_where_the_own_tests_ignore_it(sandbox: Sandbox) -> None:
    code = "def f(items):\n    return list(dict.fromkeys(items))\n"
    tests = AssertTests(entry_point="f", checks=("assert set(f([3, 1, 3])) == {1, 3}",))
    task = Problem(id="toy/set", prompt="", tests=tests, reference_solution=code)
    (stage,) = generated_stages([task], [None], sandbox, count=5, seed=0, timeout=2.0)
    assert stage is not None
    assert isinstance(stage.tests, CallTests)
    assert stage.tests.comparator == "evalplus-set"
    backwards = "def f(items):\n    return list(dict.fromkeys(items))[::-1]\n"
    assert sandbox.grade([(backwards, stage.tests)])[0].passed
