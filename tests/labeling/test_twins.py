"""Twins in the small world: what they begin and end with, that they are run, what is known of their lines."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labeling_world import EOS, CharTokenizer, FakeGrader, encode, label, problem, random_responses, response, words_of

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.labeling import make_twins, response_behind
from psgpo.lines import code_lines
from psgpo.prm.data import build_examples
from psgpo.records import Call, CallTests, LineLabels, Problem, Response, Status, Verdict


def with_solution(of: Problem) -> Problem:
    return replace(of, reference_solution="".join(f"{word}\n" for word in of.tests.calls[0].args))


def spliced(problems: Sequence[Problem], responses: Sequence[Response], folder: Path) -> tuple[LineLabels, ...]:
    made = label(problems, responses, folder / "j", {"one": None}, strategy="splice", references=True, hunt=0)
    return tuple(made.labels)


def twins(labels: Sequence[LineLabels], problems: Sequence[Problem], **changes: Any) -> list[LineLabels]:
    arguments = {"tokenizer": CharTokenizer(), "sandbox": FakeGrader(), "seed": 3} | changes
    return make_twins(labels, problems, **arguments)


def of_kind(made: Sequence[LineLabels], kind: str) -> list[LineLabels]:
    return [twin for twin in made if twin.response.checkpoint.endswith(kind)]


def test_a_failed_response_is_mended_and_continued(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 4))
    failed = response(asked, "def\n# note\napple\nwrong\n", index=5)
    labels = spliced([asked], [failed], tmp_path)
    assert (labels[0].last_solvable, labels[0].done) == (3, 0.5)
    mended, continued = twins(labels, [asked])

    assert mended.response.text == "def\n# note\napple\nbirch\ncedar\n"
    assert mended.response.checkpoint == "one/mended"
    assert mended.response.verdict.passed
    assert mended.response.token_ids == (*encode(mended.response.text), EOS)
    assert (mended.labels, mended.last_solvable, mended.done) == ((1, 0, 1, 1, 1), 5, 1.0)
    assert mended.joined == (3, 0.5)

    # One wrong line stands for nothing of the ending or for its first line.
    assert continued.response.text.removeprefix("def\n# note\napple\nwrong\n") in ("birch\ncedar\n", "cedar\n")
    assert not continued.response.verdict.passed
    assert (continued.labels[:4], set(continued.labels[4:])) == ((1, 0, 1, -1), {-1})
    assert (continued.last_solvable, continued.done) == (3, 0.5)

    for twin in (mended, continued):
        ends = [twin.response.token_ids[end] for end in twin.line_ends]
        assert ends == [ord("\n")] * len(code_lines(twin.response.text))
        assert response_behind(twin.response) == ("p", 5, "one")
        assert (twin.completions, twin.tokens, twin.executions, twin.probes) == (0, 0, 1, ())
        assert LineLabels.from_json(twin.to_json()) == twin


def test_a_prm_learns_of_the_good_lines_what_the_response_says_of_them(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 4))
    mended, continued = twins(spliced([asked], [response(asked, "def\napple\nwrong\n")], tmp_path), [asked])
    assert (mended.joined, continued.done) == ((2, 0.5), 0.5)
    # As if the two lines were long-winded, and stood for a fifth of a program.
    mended, continued = replace(mended, joined=(2, 0.2)), replace(continued, done=0.2)
    of_mended, of_continued = build_examples([mended, continued], PrmSettings(target="progress"))
    assert of_mended.targets == pytest.approx((0.1, 0.2, 0.6, 1.0))
    assert of_continued.targets[:2] == pytest.approx((0.1, 0.2))
    assert set(of_continued.targets[2:]) == {0.2}
    assert set(of_mended.weights + of_continued.weights) == {1.0}


def test_labels_of_twins_are_the_truth(tmp_path: Path) -> None:
    problems, responses = random_responses(80, seed=9)
    problems = [with_solution(one) for one in problems]
    labels = spliced(problems, responses, tmp_path)
    made = twins(labels, problems)
    words = {one.id: list(one.tests.calls[0].args) for one in problems}
    for twin in made:
        wanted = words[twin.response.problem_id]
        here = words_of(twin.response.text)
        right = next((n for n, (a, b) in enumerate(zip(here, wanted, strict=False)) if a != b), len(wanted))
        assert [value for value in twin.labels if value] == [1.0 if n < right else -1.0 for n in range(len(here))]
        assert twin.response.verdict.passed == (here == wanted) == twin.response.checkpoint.endswith("/mended")
    failed, solved = (
        {label_.response.problem_id for label_ in labels if label_.response.verdict.passed is passed}
        for passed in (False, True)
    )
    # Where the policy wrote the very program that mends a response, there is no twin.
    assert failed - solved <= {twin.response.problem_id for twin in of_kind(made, "/mended")} <= failed
    assert len(of_kind(made, "/continued")) > len(failed)


def test_equal_programs_of_a_problem_are_one_twin(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 3))
    failed = [response(asked, "def\nwrong\n", index=index) for index in range(6)]
    made = twins(spliced([asked], failed, tmp_path), [asked])
    texts = [twin.response.text for twin in made]
    assert len(set(texts)) == len(texts)
    assert len(of_kind(made, "/mended")) == 1


def test_what_is_drawn_depends_on_the_response_and_the_seed_alone(tmp_path: Path) -> None:
    problems, responses = random_responses(60, seed=2)
    problems = [with_solution(one) for one in problems]
    labels = spliced(problems, responses, tmp_path)
    made = {twin.response.text: twin.labels for twin in twins(labels, problems)}
    some = {twin.response.text: twin.labels for twin in twins(labels[::2], problems)}
    written = {f"{response_.text.rstrip()}\n" for response_ in responses}
    assert {item for item in some.items() if item[0] not in written} <= made.items()
    assert {twin.response.text for twin in twins(labels, problems, seed=4)} != made.keys()


def test_what_has_no_known_ending_has_no_twin(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 4))
    known, guessed = spliced(
        [asked], [response(asked, f"def\n{word}\n", index=n) for n, word in enumerate("ab")], tmp_path
    )
    made = twins([known, replace(guessed, guessed=True)], [asked])
    assert {response_behind(twin.response) for twin in made} == {("p", 0, "one")}
    with pytest.raises(UserError, match="none of 1 failed responses has one"):
        twins([replace(known, done=None)], [asked])
    assert twins(spliced([asked], [response(asked, "def\napple\nbirch\ncedar\n")], tmp_path / "x"), [asked]) == []


def test_a_twin_that_the_tokenizer_changes_is_left_out(tmp_path: Path) -> None:
    class Upper(CharTokenizer):
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return super().__call__(text.replace("cedar", "CEDAR"))

    asked = [with_solution(problem(name, words)) for name, words in (("p", 4), ("q", 1))]
    failed = [response(asked[0], "def\nwrong\n"), response(asked[1], "wrong\n")]
    labels = spliced(asked, failed, tmp_path)
    assert {twin.response.problem_id for twin in twins(labels, asked, tokenizer=Upper())} == {"q"}
    with pytest.raises(UserError, match="none of 1 failed responses has one"):
        twins(labels[:1], asked, tokenizer=Upper())


def test_what_is_longer_than_a_response_may_be_is_left_out(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 4))
    labels = spliced([asked], [response(asked, "def\nwrongly\n")], tmp_path)
    most = max(len(twin.response.token_ids) for twin in twins(labels, [asked]))
    short = twins(labels, [asked], max_tokens=most - 1)
    assert len(short) == 1
    assert len(short[0].response.token_ids) < most


def test_what_the_policy_wrote_itself_is_no_twin(tmp_path: Path) -> None:
    asked = with_solution(problem("p", 3))
    texts = ["def\napple\nbirch", "def\nwrong\n", "def\nwrong\nbirch\n", "def\n# a\nwrong\n"]
    made = twins(spliced([asked], [response(asked, text, index=n) for n, text in enumerate(texts)], tmp_path), [asked])
    assert "def\n# a\napple\nbirch\n" in {twin.response.text for twin in made}
    assert not {twin.response.text for twin in made} & {f"{text.rstrip()}\n" for text in texts}


def test_a_program_that_ran_out_of_time_is_no_twin(tmp_path: Path) -> None:
    class Slow(FakeGrader):
        def _verdict(self, program: str, tests: CallTests) -> Verdict:
            verdict = super()._verdict(program, tests)
            return verdict if verdict.passed else replace(verdict, status=Status.TIMEOUT)

    asked = with_solution(problem("p", 4))
    labels = spliced([asked], [response(asked, "def\nwrong\n")], tmp_path)
    assert [twin.response.checkpoint for twin in twins(labels, [asked], sandbox=Slow())] == ["one/mended"]


class Runs(FakeGrader):
    """Judges by running: for programs that have to be Python."""

    def _verdict(self, program: str, tests: CallTests) -> Verdict:
        space: dict[str, Any] = {}
        try:
            exec(program, space)
            passed = all(space["solve"](*call.args) == call.expected for call in tests.calls)
        except Exception:
            passed = False
        status = Status.PASSED if passed else Status.WRONG_ANSWER
        return Verdict(status=status, tests_passed=int(passed), tests_total=1)


SOLUTION = "def solve(x):\n    x = x + 1\n    for _ in range(2):\n        x = x * 2\n    return x\n"
PYTHON = Problem(
    id="py",
    prompt="p",
    tests=CallTests(function="solve", calls=(Call(args=(1,), expected=8), Call(args=(3,), expected=16))),
    source="opchain",
    reference_solution=SOLUTION,
)


def failed_python(text: str, last: int, done: float, index: int = 0) -> LineLabels:
    ids = (*encode(text), EOS)
    verdict = Verdict(status=Status.WRONG_ANSWER, tests_passed=0, tests_total=1)
    made = Response(
        problem_id="py", index=index, checkpoint="one", token_ids=ids, text=text, finished=True, verdict=verdict
    )
    lines = code_lines(text)
    ends = tuple(line.end - 1 for line in lines)
    labels = tuple(1.0 if number <= last else -1.0 for number in range(1, len(lines) + 1))
    return LineLabels(
        response=made, line_ends=ends, labels=labels, last_solvable=last, strategy="splice", probes=(),
        completions=0, tokens=0, executions=1, done=done,
    )  # fmt: skip


def test_no_twin_starts_over() -> None:
    """Nothing of the program is done, though a line is good: the ending of that length is a whole program."""
    text = "def solve(x):\n    out = []\n    x = x - 1\n    return x\n"
    assert Runs().grade([("".join(text.splitlines(True)[:2]) + SOLUTION, PYTHON.tests)])[0].passed
    with pytest.raises(UserError, match="none of 1 failed responses has one"):
        twins([failed_python(text, 2, 0.0)], [PYTHON], sandbox=Runs())
    # Where no line is good, the whole program is what mends it; what goes on does not define it again.
    made = twins([failed_python(text, 0, 0.0)], [PYTHON], sandbox=Runs())
    assert of_kind(made, "/mended")[0].response.text == SOLUTION
    assert all(twin.response.text.count("def solve") == 1 for twin in made)


def test_blank_lines_at_the_end_of_what_is_good_do_not_count() -> None:
    text = SOLUTION + "\n\n1 / 0\n"
    (mended,) = twins([failed_python(text, 7, 1.0)], [replace(PYTHON, reference_solution=SOLUTION)], sandbox=Runs())
    assert (mended.last_solvable, mended.joined) == (5, (5, 1.0))
    (example,) = build_examples([mended], PrmSettings(target="progress"))
    assert example.targets[-1] == 1.0


def test_continued_twins_parse() -> None:
    text = "def solve(x):\n    x = x + 1\n    for _ in range(2):\n        x = x * 3\n    x = x + 5\n    return x\n"
    labels = [failed_python(text, 2, 0.4, index) for index in range(20)]
    made = of_kind(twins(labels, [PYTHON], sandbox=Runs()), "/continued")
    assert len(made) > 2
    for twin in made:
        ast.parse(twin.response.text)
        assert twin.labels[:3] == (1.0, 1.0, -1.0)
