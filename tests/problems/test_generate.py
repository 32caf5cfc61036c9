"""Problems and training examples: deterministic, strong, disjoint between splits, rebuilt from JSON Lines."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from psgpo.errors import UserError
from psgpo.problems import load_problems_jsonl, save_problems_jsonl
from psgpo.problems.opchain import (
    OPERATIONS,
    OpChain,
    OpChainSettings,
    Step,
    canonical_solution,
    chain_of,
    composition_split,
    measure_strength,
)
from psgpo.problems.opchain.chain import draw_chain
from psgpo.problems.opchain.operation import HEADER, runnable
from psgpo.problems.opchain.strength import choose_inputs
from psgpo.records import AssertTests, Call, CallTests, Problem, StdioCase, StdioTests, Tests


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return OpChain().problems("train", 200, (1, 10))


def test_equal_settings_give_equal_problems_whatever_else_is_asked_for(problems: list[Problem]) -> None:
    again = OpChain().problems("train", 30, (1, 10))
    assert again == problems[:30]
    of_six = OpChain().problems("train", 3, (6, 6))
    assert of_six == [problem for problem in problems if problem.difficulty == 6][:3]
    assert OpChain(OpChainSettings(seed=1)).problems("train", 5, (3, 3)) != OpChain().problems("train", 5, (3, 3))


def test_problems_are_uniform_over_length_and_their_ids_say_which_they_are(problems: list[Problem]) -> None:
    assert Counter(problem.difficulty for problem in problems) == dict.fromkeys(range(1, 11), 20)
    assert problems[23].id == "opchain/train/4-00002"
    assert len({problem.id for problem in problems}) == len({problem.prompt for problem in problems}) == 200


def test_reference_solutions_pass_and_outputs_vary(problems: list[Problem]) -> None:
    for problem in problems:
        chain = chain_of(problem)
        assert problem.reference_solution == canonical_solution(chain)
        assert len(chain) == problem.difficulty
        assert composition_split(chain) == "train"
        solve = runnable(tuple(problem.reference_solution.splitlines()[1:-1]))
        outputs = []
        for call in problem.tests.calls:
            given = list(call.args[0]) if isinstance(call.args[0], list) else call.args[0]
            outputs.append(solve(given))
            assert outputs[-1] == call.expected
        assert len(outputs) == 8
        assert len({repr(output) for output in outputs}) >= 3


def test_hidden_tests_catch_mistakes(problems: list[Problem]) -> None:
    strength = measure_strength(problems)
    assert strength["mutants"] > 2000
    assert strength["rate"] < 0.01
    assert strength["families"]["double"]["mutants"] > 300
    assert strength["families"]["double"]["rate"] < 0.01
    assert strength["families"]["dropped"]["rate"] == 0
    assert set(strength["by_operation"]) <= set(OPERATIONS)
    assert sum(entry["mutants"] for entry in strength["by_operation"].values()) == strength["mutants"]


def test_strength_notices_weak_tests(problems: list[Problem]) -> None:
    weak = []
    for problem in problems[:60]:
        record = problem.to_json()
        record["tests"]["calls"] = record["tests"]["calls"][-1:]
        weak.append(Problem.from_json(record))
    assert measure_strength(weak)["rate"] > 0.02


def test_a_hidden_mistake_is_reported_by_position() -> None:
    chain = (Step(OPERATIONS["reverse"]), Step(OPERATIONS["sort_up"]))  # sorting hides every mistake in reversing
    inputs = [[3, 1, 2], [5, 4, 4], [9, 0, 1], [2, 2, 7], [1, 0, 5], [8, 3, 3]]
    chosen, hidden = choose_inputs(chain, 4, inputs)
    assert chosen == []
    assert hidden == {0}


def test_splits_share_no_composition() -> None:
    chain = OpChain()
    compositions: dict[str, set[tuple[object, ...]]] = {}
    for split in ("train", "validation", "test"):
        for problem in chain.problems(split, 90, (1, 3)):
            steps = chain_of(problem)
            key = tuple(step.name for step in steps) + ((steps[0].parameter,) if len(steps) == 1 else ())
            compositions.setdefault(split, set()).add(key)
    assert not compositions["train"] & compositions["test"]
    assert not compositions["train"] & compositions["validation"]
    assert not compositions["validation"] & compositions["test"]
    rng = random.Random(0)
    shares = Counter(composition_split(draw_chain(rng, 5)) for _ in range(2000))
    assert shares["train"] == pytest.approx(1400, abs=100)


def test_training_examples_come_from_training_compositions_and_are_wrong_as_often_as_promised() -> None:
    chain = OpChain(OpChainSettings(comment_rate=0.0, noop_rate=0.0))
    examples = list(chain.sft_examples(400, (1, 4)))
    assert examples == list(chain.sft_examples(400, (1, 4)))
    assert all(example.solution.startswith(HEADER + "\n    ") for example in examples)
    assert all(example.solution.endswith("\n    return x\n") for example in examples)
    rng = random.Random(5)
    step = Step(OPERATIONS["reverse"])
    right = {canonical_solution((step,))} | {"\n".join((HEADER, *code, "    return x\n")) for code in step.correct()}
    wrong = sum(chain.imperfect_solution((step,), rng) not in right for _ in range(2000))
    assert wrong / 2000 == pytest.approx(chain.bug_rates["reverse"], abs=0.04)


def test_bug_rates_span_their_range_and_scale() -> None:
    rates = OpChain().bug_rates
    assert min(rates.values()) == pytest.approx(0.05)
    assert max(rates.values()) == pytest.approx(0.65)
    assert OpChain(OpChainSettings(seed=3)).bug_rates != rates
    assert sum(OpChain(OpChainSettings(seed=3)).bug_rates.values()) == pytest.approx(sum(rates.values()))
    scaled = OpChain(OpChainSettings(sparseness=2.0)).bug_rates
    assert max(scaled.values()) == 0.95
    perfect = OpChain(OpChainSettings(sparseness=0.0))
    assert perfect.pass_rate(5, samples=20) == 1.0
    assert OpChain().pass_rate(1) == pytest.approx(0.65, abs=0.03)
    assert OpChain().pass_rate(8) < 0.06


def test_comments_and_no_ops_are_sprinkled_in() -> None:
    noisy = OpChain(OpChainSettings(comment_rate=1.0, noop_rate=1.0, sparseness=0.0))
    example = next(noisy.sft_examples(1, (3, 3)))
    assert sum(line.strip().startswith("#") for line in example.solution.splitlines()) == 3
    assert sum(line in ("    pass", "    x = x") for line in example.solution.splitlines()) == 3


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"bug_rate_low": 0.9}, "bug_rate_low"),
        ({"comment_rate": 2}, "comment_rate"),
        ({"sparseness": -1}, "sparseness"),
    ],
)
def test_settings_are_checked(settings: dict[str, float], word: str) -> None:
    with pytest.raises(UserError, match=word):
        OpChainSettings(**settings)  # type: ignore[arg-type]


def test_requests_are_checked() -> None:
    with pytest.raises(UserError, match="split 'dev'"):
        OpChain().problems("dev", 1)
    with pytest.raises(UserError, match="low"):
        OpChain().problems("train", 1, (0, 3))


def test_json_lines_round_trip_and_mistakes_name_the_line(tmp_path: Path, problems: list[Problem]) -> None:
    path = tmp_path / "problems.jsonl"
    assert save_problems_jsonl(path, problems[:20]) == 20
    assert load_problems_jsonl(path) == problems[:20]
    assert [chain_of(problem) for problem in load_problems_jsonl(path)] == [chain_of(p) for p in problems[:20]]
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"problems\.jsonl:21: the id 'opchain/train/1-00000'"):
        load_problems_jsonl(path)
    path.write_text("")
    with pytest.raises(UserError, match="holds no problem"):
        load_problems_jsonl(path)
    record = '{"id": "a", "prompt": "b", "tests": {"kind": "calls", "function": "f", "calls": []}}\n'
    path.write_text(record)
    with pytest.raises(UserError, match=r"problems\.jsonl:1: problem a: the problem has no tests"):
        load_problems_jsonl(path)


def test_a_foreign_problem_has_no_chain(problems: list[Problem]) -> None:
    record = problems[0].to_json() | {"metadata": {}}
    with pytest.raises(UserError, match=r"metadata\.operations"):
        chain_of(Problem.from_json(record))


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (AssertTests(entry_point="f", checks=("f(1)", "assert f(1 == 1")), "tests of 'f', check 1: not valid Python"),
        (
            CallTests(function="f", calls=(Call(args=(), expected=1),), comparator="closest"),
            "unknown 'closest'; known: ex",
        ),
        (CallTests(function="f", calls=(Call(args=(), expected=1),), tolerance=0.1), "comparator 'exact' has none"),
        (
            StdioTests(cases=(StdioCase(stdin="", expected=""),), comparator="close"),
            "unknown 'close'; known: exact, lines",
        ),
    ],
)
def test_tests_that_no_sandbox_can_use_are_refused_by_line_and_problem(
    tests: Tests, message: str, tmp_path: Path, problems: list[Problem]
) -> None:
    path = tmp_path / "p.jsonl"
    save_problems_jsonl(path, [problems[0], Problem(id="own/1", prompt="p", tests=tests)])
    with pytest.raises(UserError, match=rf"p\.jsonl:2: problem own/1: .*{message}"):
        load_problems_jsonl(path)
