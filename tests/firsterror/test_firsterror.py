"""The benchmark of first errors: items whose answer is known, judges, the figure, the command."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_server import Answer, fake_server
from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.firsterror import Item, load_items
from psgpo.firsterror.items import candidate_lines
from psgpo.firsterror.judges import (
    BASELINES,
    NO_ANSWER,
    PROMPT,
    RIGHT,
    ChatJudge,
    named_line,
    read_answer,
    read_judge_prompt,
    scores_of,
)
from psgpo.firsterror.make import mutant_items, opchain_items, refuse_repeats
from psgpo.firsterror.measure import best_threshold, cross_fitted, figures, harmonic, interval, summary
from psgpo.firsterror.run import run_baseline, run_judge, run_scorer
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.lines import code_lines
from psgpo.mutation.catalogue import Catalogue
from psgpo.mutation.chat import ChatServer
from psgpo.mutation.run import Settings, run_mutation
from psgpo.problems.opchain import OpChain
from psgpo.records import AssertTests, Problem

ROOT = Path(__file__).resolve().parents[2]
CODE = "def f(a):\n    # add\n    b = a + 1\n    return b\n"


def item(name: str, first_error: int | None, *, problem: str = "", code: str = CODE, kind: str = "k") -> Item:
    return Item(
        id=name,
        problem_id=problem or name,
        prompt="Add 1.",
        code=code,
        first_error=first_error,
        candidates=candidate_lines(code),
        source="mutant",
        kind=kind,
    )


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=2, timeout=2.0, memory_mb=256) as opened:
        yield opened


@pytest.fixture(scope="module")
def chains(sandbox: Sandbox) -> list[Item]:
    return opchain_items(12, sandbox.evaluate_many, operations=(2, 4))


@pytest.fixture(scope="module")
def mutants(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    starter = 'def count(items, n):\n    """How many are above n."""\n'
    code = (
        starter
        + "    total = 0\n    for item in items:\n        if item > n:\n            total += 1\n    return total\n"
    )
    tests = AssertTests(entry_point="count", checks=("assert count([1, 5, 3], 1) == 2", "assert count([4], 4) == 0"))
    problem = Problem(id="p", prompt="Count.", tests=tests, reference_solution=code, starter_code=starter)
    out = tmp_path_factory.mktemp("mutants")
    run_mutation([problem], [Catalogue()], sandbox, out, settings=Settings(generated=10))
    return mutant_items(out, per_problem=4)


def test_pairs_of_the_embedded_benchmark_are_what_they_say(chains: list[Item], sandbox: Sandbox) -> None:
    problems = {p.id: p for p in OpChain().problems("test", 12, (2, 4))}
    verdicts = sandbox.grade([(entry.code, problems[entry.problem_id].tests) for entry in chains])
    assert [entry.first_error is None for entry in chains] == [verdict.passed for verdict in verdicts]
    assert len(chains) >= 20
    assert len({entry.problem_id for entry in chains}) == len(chains) // 2
    wrong = [entry for entry in chains if entry.first_error is not None]
    assert all(entry.first_error in entry.candidates for entry in wrong)
    assert len({entry.first_error for entry in wrong}) > 2


def test_opchain_items_follow_the_seed(chains: list[Item], sandbox: Sandbox) -> None:
    assert opchain_items(12, sandbox.evaluate_many, operations=(2, 4)) == chains
    assert opchain_items(12, sandbox.evaluate_many, operations=(2, 4), seed=1) != chains
    assert opchain_items(0, sandbox.evaluate_many) == []


def test_a_mutant_differs_from_the_reference_in_its_first_error_alone(mutants: list[Item]) -> None:
    wrong = [entry for entry in mutants if entry.first_error is not None]
    right = [entry for entry in mutants if entry.first_error is None]
    assert len(wrong) == len(right) == 4
    assert len({entry.first_error for entry in wrong}) == 4  # another line each time
    reference = next(entry for entry in right if entry.kind == "reference").code.split("\n")
    for entry in wrong:
        lines = entry.code.split("\n")
        assert [n for n, (a, b) in enumerate(zip(lines, reference, strict=True), start=1) if a != b] == [
            entry.first_error
        ]
        assert min(entry.candidates) == 3  # signature and docstring are the prompt's
    assert len({entry.id for entry in mutants}) == len(mutants)


def test_items_are_read_back_and_damage_is_named(mutants: list[Item], chains: list[Item], tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [entry.to_json() for entry in (*mutants, *chains)])
    assert load_items(path) == [*mutants, *chains]
    good = item("a", 3).to_json()
    for broken, words in [
        ({"first_error": 2}, "line 2 is none of its candidates"),
        ({"candidates": [9]}, "not lines of its program"),
        ({"candidates": []}, "not lines of its program"),
    ]:
        write_jsonl(path, [good, good | {"id": "b"} | broken])
        with pytest.raises(UserError, match=f"items.jsonl:2: .*{words}"):
            load_items(path)
    write_jsonl(path, [good, good])
    with pytest.raises(UserError, match="used on an earlier line"):
        load_items(path)
    write_jsonl(path, [])
    with pytest.raises(UserError, match="holds no item"):
        load_items(path)


def test_the_figure_by_hand() -> None:
    items = [item("a", 3), item("b", 4), item("c", 1), item("d", 3), item("e", None), item("f", None)]
    named = [3, 3, RIGHT, NO_ANSWER, RIGHT, 4]
    result = figures(items, named)
    assert result["acc_wrong"] == 1 / 4
    assert result["acc_wrong_within_1"] == 2 / 4
    assert result["acc_right"] == 1 / 2
    assert result["f1"] == pytest.approx(2 * 0.25 * 0.5 / 0.75)
    assert (result["wrong"], result["right"], result["no_answer"]) == (4, 2, 1)


def test_undefined_is_nan_and_zero_is_zero() -> None:
    assert math.isnan(figures([item("a", 3)], [3])["f1"])
    assert math.isnan(figures([item("a", None)], [RIGHT])["acc_wrong"])
    assert harmonic(0.0, 0.0) == 0.0
    assert figures([item("a", 3), item("b", None)], [4, RIGHT])["f1"] == 0.0
    assert all(map(math.isnan, interval([item("a", 3)], [3], draws=5)))


def test_comments_and_given_lines_are_never_named() -> None:
    entry = dataclasses.replace(item("a", 3), candidates=(3, 4))
    assert named_line(entry, [-9, -9, 0.5, -1], 0.0) == 4
    assert named_line(entry, [-9, -9, -0.5, -1], 0.0) == 3
    assert named_line(entry, [-9, -9, 0.5, 0.0], 0.0) == RIGHT


def test_the_threshold_is_chosen_on_the_other_half() -> None:
    items, scores = [], []
    for number in range(10):
        items += [item(f"w{number}", 4, problem=f"p{number}"), item(f"r{number}", None, problem=f"p{number}")]
        scores += [[0.9, 0, 0.8, 0.3], [0.9, 0, 0.7, 0.6]]
    assert 0.3 < best_threshold(items, scores) <= 0.6
    named, thresholds = cross_fitted(items, scores)
    assert figures(items, named)["f1"] == 1.0
    assert len(thresholds) == 2
    # One half says that low scores are good ones: what is chosen there must not be used there.
    flipped = [[1 - s for s in row] if i >= 10 else row for i, row in enumerate(scores)]
    assert figures(items, cross_fitted(items, flipped)[0])["f1"] < 1.0


class Perfect:
    """Knows the answer by the program's text."""

    def __init__(self, items: list[Item]) -> None:
        self.errors = {entry.code: entry.first_error for entry in items}

    def score_lines(self, problem: str, code: str) -> list[float]:
        error = self.errors[code] or math.inf
        return [1.0 if number < error else -1.0 for number in range(1, len(code_lines(code)) + 1)]


def test_a_perfect_scorer_gets_one_and_baselines_do_not(
    chains: list[Item], mutants: list[Item], tmp_path: Path
) -> None:
    items = [*chains, *mutants]
    assert run_scorer(items, Perfect(items), tmp_path / "a", threshold=0.0)["all"]["f1"] == 1.0
    result = run_scorer(items, Perfect(items), tmp_path / "b")
    assert result["all"]["f1"] == 1.0
    assert result["cross_fitted"]
    assert set(result["by_source"]) == {"opchain", "mutant"}
    rows = list(read_jsonl(tmp_path / "b" / "results.jsonl", dict))
    assert [row["named"] or None for row in rows] == [entry.first_error for entry in items]
    for name in BASELINES:
        assert run_baseline(items, name, tmp_path / name)["all"]["f1"] < 0.6
    assert run_baseline(items, "all-right", tmp_path / "c")["all"]["acc_right"] == 1.0
    with pytest.raises(UserError, match="choose one of all-right"):
        run_baseline(items, "none", tmp_path / "d")


def test_a_scorer_must_score_every_line() -> None:
    class Short:
        def score_lines(self, problem: str, code: str) -> list[float]:
            return [1.0]

    with pytest.raises(UserError, match="1 scores for 4 lines"):
        scores_of(Short(), [item("a", 3)])

    class Undefined:
        def score_lines(self, problem: str, code: str) -> list[float]:
            return [1.0, 0.0, math.nan, 1.0]

    with pytest.raises(UserError, match="item a: the scorer gave NaN for line 3"):
        scores_of(Undefined(), [item("a", 3)])


def test_the_folder_of_another_judge_is_refused(tmp_path: Path) -> None:
    items = [item("a", 3), item("b", None)]
    before = run_baseline(items, "last-line", tmp_path)
    with pytest.raises(UserError, match=r"another job \(judge differ"):
        run_baseline(items, "random", tmp_path)
    with pytest.raises(UserError, match=r"another job \(judge differ"):
        run_scorer(items, Perfect(items), tmp_path)
    with pytest.raises(UserError, match=r"another job \(items differ"):
        run_baseline(items[:1], "last-line", tmp_path)
    assert run_baseline(items, "last-line", tmp_path) == before


def test_two_folders_with_programs_of_one_problem_are_refused(mutants: list[Item], chains: list[Item]) -> None:
    refuse_repeats([*mutants, *chains])
    with pytest.raises(UserError, match="comes from two of --mutants"):
        refuse_repeats([*mutants, *mutants])


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("Line 2 is fine.\n\nANSWER: 3", 3),
        ("ANSWER: 0", RIGHT),
        ("**Answer:** line 4", 4),
        ("ANSWER: 2 ... no.\nANSWER: 1", 1),
        ("The answer is none", NO_ANSWER),
        ("answer: none", RIGHT),
        ("3", 3),
        ("ANSWER: 99", NO_ANSWER),
        ("I think it is right.", NO_ANSWER),
        ("", NO_ANSWER),
        ("ANSWER: -1", NO_ANSWER),
        ("-1", NO_ANSWER),
    ],
)
def test_answers_of_a_judge(reply: str, line: int) -> None:
    assert read_answer(reply, item("a", 3)) == line


@contextmanager
def judge_server(answers: list[str], seen: list[str]) -> Iterator[str]:
    def reply(request: dict[str, Any], number: int) -> Answer:
        seen.append(request["messages"][0]["content"])
        word = answers[number % len(answers)]
        return (400, word) if word == "refuse" else word

    with fake_server(reply) as state:
        yield state.url


def test_a_model_as_judge_goes_on_where_it_stopped(tmp_path: Path) -> None:
    items = [item("a", 3), item("b", None), item("c", 4)]
    seen: list[str] = []

    def judge(url: str) -> ChatJudge:
        return ChatJudge(server=ChatServer(url=url, model="m", pause=0.01), prompt=read_judge_prompt(PROMPT))

    with judge_server(["ANSWER: 3", "ANSWER: 0", "refuse"], seen) as url:
        with pytest.raises(UserError, match="HTTP 400"):
            run_judge(items, judge(url), tmp_path, concurrency=1)
        assert "3:     b = a + 1" in seen[0]
        assert "Add 1." in seen[0]
        before = len(list(read_jsonl(tmp_path / "answers.jsonl", dict)))
        assert before < 3
        with pytest.raises(UserError, match="items differ"):
            run_judge(items[:2], judge(url), tmp_path)
    seen.clear()
    job = json.loads((tmp_path / "job.json").read_text())
    with judge_server(["ANSWER: 4"], seen) as url:
        (tmp_path / "job.json").write_text(json.dumps(job | {"url": url}))
        result = run_judge(items, judge(url), tmp_path, concurrency=2)
    assert len(seen) == 3 - before
    assert result["all"]["wrong"] == 2
    assert len(list(read_jsonl(tmp_path / "results.jsonl", dict))) == 3
    assert len(summary(items, [3, 0, 4])["by_kind"]) == 1


def psgpo(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "psgpo", "firsterror", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


SCORER = """\
class Long:
    def score_lines(self, problem, code):
        return [-float(len(line)) for line in code.rstrip().split("\\n")]
"""


def test_the_command(tmp_path: Path) -> None:
    items, out = tmp_path / "items.jsonl", tmp_path / "out"
    made = psgpo("make", "--out", str(items), "--opchain", "6", "--operations", "2-3")
    assert made.returncode == 0, made.stderr
    assert len(load_items(items)) >= 8
    done = psgpo("run", str(items), "--baseline", "last-line", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "acc wrong" in done.stdout
    assert json.loads((out / "summary.json").read_text())["all"]["acc_right"] == 0
    (tmp_path / "mine.py").write_text(SCORER)
    scored = psgpo("run", str(items), "--scorer", "mine:Long", "--out", str(tmp_path / "long"), cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "thresholds" in scored.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["make", "--out", "OUT"], "nothing to make items from"),
        (["make", "--out", "OUT", "--opchain", "3", "--operations", "x"], "--operations 'x'"),
        (["make", "--out", "OUT", "--mutants", "none"], "no such file"),
        (["run", "none.jsonl", "--out", "OUT", "--baseline", "random"], "no such file"),
        (["run", "ITEMS", "--out", "OUT", "--baseline", "random", "--held-out", "0"], "keeps none of its problems"),
        (["run", "none.jsonl", "--out", "OUT"], "exactly one of"),
        (["run", "ITEMS", "--out", "OUT", "--scorer", "nowhere:x"], "--scorer 'nowhere:x'"),
        (["run", "ITEMS", "--out", "OUT", "--scorer", "json:JSONDecoder"], "no score_lines"),
        (["run", "ITEMS", "--out", "OUT", "--prm", "nowhere"], "no such folder"),
        (["run", "ITEMS", "--out", "OUT", "--server", "http://x/v1"], "--model"),
    ],
)
def test_mistakes_cost_one_line_and_exit_status_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", [item("a", 3).to_json()])
    places: dict[str, Any] = {"OUT": str(tmp_path / "out"), "ITEMS": str(tmp_path / "items.jsonl")}
    done = psgpo(*(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
