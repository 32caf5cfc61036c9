"""Grading a file of samples with a scripted grader: resuming, refusing, sharing verdicts, order."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psgpo.errors import UserError
from psgpo.evaluation.grade import grade_samples
from psgpo.evaluation.grade_summary import summarise_grades
from psgpo.evaluation.samples import Sample
from psgpo.execution import SandboxError
from psgpo.job import check_job, only_process
from psgpo.records import AssertTests, Call, CallTests, Problem, Status, Tests, Verdict


def problem(name: str, expected: int = 1) -> Problem:
    return Problem(
        id=name, prompt="", tests=CallTests(function="f", calls=(Call(args=(), expected=expected),)), starter_code="# "
    )


PROBLEMS = {name: problem(name) for name in ("a", "b", "c")}


class ScriptedGrader:
    """Passes programs that contain "good"; gives verdicts back to front, `ahead` at a time; dies after `dies_after`."""

    def __init__(self, ahead: int = 1, dies_after: int | None = None) -> None:
        self.ahead = ahead
        self.dies_after = dies_after
        self.ran: list[str] = []
        self.closed = False

    def grade_iter(self, items: Iterable[tuple[str, Tests]], /) -> Iterator[tuple[int, Verdict]]:
        try:
            source = enumerate(items)
            while group := list(itertools.islice(source, self.ahead)):
                for index, (program, _) in reversed(group):
                    if self.dies_after is not None and len(self.ran) >= self.dies_after:
                        raise SandboxError("the grader broke twice: no more processes")
                    self.ran.append(program)
                    yield index, self.verdict(program)
        finally:
            self.closed = True

    def verdict(self, program: str) -> Verdict:
        if "broken" in program:
            return Verdict(status=Status.INFRASTRUCTURE, tests_passed=0, tests_total=1, detail="fork failed")
        passed = "good" in program
        status = Status.PASSED if passed else Status.WRONG_ANSWER
        detail = "" if passed else "said \ud800"
        return Verdict(
            status=status, tests_passed=int(passed), tests_total=1, mode="calls", detail=detail, confinement="full"
        )


def samples(text: str) -> list[Sample]:
    """`a:good a:bad b:good` as samples."""
    counts: dict[str, int] = {}
    made = []
    for number, word in enumerate(text.split(), start=1):
        task, _, program = word.partition(":")
        index = counts.get(task, 0)
        counts[task] = index + 1
        made.append(Sample(task_id=task, index=index, form="completion", text=program, origin=f"s.jsonl:{number}"))
    return made


def grade(text: str, out: Path, grader: ScriptedGrader | None = None, **changes: Any) -> list[dict[str, Any]]:
    problems = changes.pop("problems", PROBLEMS)
    return grade_samples(
        samples(text),
        problems,
        grader or ScriptedGrader(),
        out,
        program_of=lambda problem, sample: problem.starter_code + sample.text,
        **changes,
    )


def on_disk(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_rows_in_the_order_of_the_samples_for_any_number_of_workers(tmp_path: Path) -> None:
    text = "a:good1 b:bad c:good2 a:bad2 a:good3 b:good4"
    files = set()
    for ahead in (1, 2, 5):
        rows = grade(text, tmp_path / str(ahead), ScriptedGrader(ahead))
        assert [(row["task_id"], row["index"]) for row in rows] == [
            ("a", 0), ("b", 0), ("c", 0), ("a", 1), ("a", 2), ("b", 1),
        ]  # fmt: skip
        assert [row["status"] == "PASSED" for row in rows] == [True, False, True, False, True, True]
        assert on_disk(tmp_path / str(ahead)) == rows
        files.add((tmp_path / str(ahead) / "results.jsonl").read_bytes())
    assert len(files) == 1


def test_equal_programs_of_a_task_run_once_and_those_of_two_tasks_twice(tmp_path: Path) -> None:
    grader = ScriptedGrader()
    rows = grade("a:good a:good b:good a:good", tmp_path, grader)
    assert grader.ran == ["# good", "# good"]
    assert [row["status"] for row in rows] == ["PASSED"] * 4


def test_a_broken_grader_keeps_what_was_graded_and_the_next_run_goes_on(tmp_path: Path) -> None:
    text = "a:good1 a:bad1 b:good2 c:bad2"
    first = ScriptedGrader(dies_after=2)
    with pytest.raises(SandboxError, match="broke twice"):
        grade(text, tmp_path, first)
    assert first.closed
    assert [row["index"] for row in on_disk(tmp_path)] == [0, 1]
    second = ScriptedGrader()
    seen: list[tuple[int, int]] = []
    rows = grade(text, tmp_path, second, progress=lambda *at: seen.append(at))
    assert second.ran == ["# good2", "# bad2"]
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert rows == grade(text, tmp_path / "whole")
    third = ScriptedGrader()
    assert grade(text, tmp_path, third) == rows
    assert third.ran == []


def test_a_torn_last_row_is_graded_again(tmp_path: Path) -> None:
    rows = grade("a:good a:bad", tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    grader = ScriptedGrader()
    assert grade("a:good a:bad", tmp_path, grader) == rows
    assert grader.ran == ["# bad"]


def test_a_longer_file_goes_on_and_a_copy_of_a_graded_program_is_not_run(tmp_path: Path) -> None:
    grade("a:good a:bad", tmp_path)
    grader = ScriptedGrader()
    rows = grade("a:good b:good a:bad a:good", tmp_path, grader)
    assert grader.ran == ["# good"]  # that of b
    assert [row["status"] for row in rows] == ["PASSED", "PASSED", "WRONG_ANSWER", "PASSED"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:good a:changed", r"s\.jsonl:2: not the program .* graded as sample 1 of a"),
        ("a:good", "sample 1 of a was graded, and the samples hold it no more"),
        ("a:bad a:good", r"s\.jsonl:1: not the program"),
    ],
)
def test_a_changed_file_is_refused_and_the_rows_stay(text: str, words: str, tmp_path: Path) -> None:
    rows = grade("a:good a:bad", tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        grade(text, tmp_path)
    assert "choose another --out" in str(caught.value)
    assert on_disk(tmp_path) == rows


def test_changed_tests_are_refused(tmp_path: Path) -> None:
    grade("a:good", tmp_path)
    with pytest.raises(UserError, match="or not the tests"):
        grade("a:good", tmp_path, problems={"a": problem("a", expected=2)})


@pytest.mark.parametrize("line", ['{"task_id":"a"}', "nonsense", '{"task_id":"a","index":0,"sha256":"x"}'])
def test_a_damaged_results_file_names_the_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"results\.jsonl:1: "):
        grade("a:good", tmp_path)


def test_an_infrastructure_verdict_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"s\.jsonl:2: could not be judged \(fork failed\)"):
        grade("a:good a:broken b:good", tmp_path)
    assert [row["status"] for row in on_disk(tmp_path)] == ["PASSED"]


def test_a_grader_that_says_nothing_is_no_pass(tmp_path: Path) -> None:
    class Silent(ScriptedGrader):
        def grade_iter(self, items: Iterable[tuple[str, Tests]], /) -> Iterator[tuple[int, Verdict]]:
            return iter(())

    with pytest.raises(SandboxError, match="no verdict"):
        grade("a:good", tmp_path, Silent())


def test_the_original_tests_of_a_plus_benchmark_have_a_status_of_their_own(tmp_path: Path) -> None:
    class Halves(ScriptedGrader):
        def verdict(self, program: str) -> Verdict:
            wrong, right = Status.WRONG_ANSWER, Status.PASSED
            outcomes = (right, right, wrong) if "base" in program else (right, Status.TIMEOUT, Status.TIMEOUT)
            return Verdict(status=wrong, tests_passed=1, tests_total=3, outcomes=outcomes)

    plus = dataclasses.replace(problem("a"), metadata={"base_tests": 2})
    rows = grade("a:base a:none", tmp_path, Halves(), problems={"a": plus})
    assert [(row["status"], row["base_status"]) for row in rows] == [
        ("WRONG_ANSWER", "PASSED"),
        ("WRONG_ANSWER", "TIMEOUT"),
    ]
    # A copy of a graded program gets both.
    rows = grade("a:base a:none a:base", tmp_path, ScriptedGrader(), problems={"a": plus})
    assert rows[2]["base_status"] == "PASSED"
    summary = summarise_grades(rows, ["a"])
    assert (summary["pass_at_k"][0]["value"], summary["base_pass_at_k"][0]["value"]) == (0.0, pytest.approx(2 / 3))
    assert "base_pass_at_k" not in summarise_grades(rows_of(a="1"), ["a"])


def test_without_original_tests_nothing_passes_them(tmp_path: Path) -> None:
    """Rows of the Hub do not tell which tests are the original ones."""
    plus = {"a": dataclasses.replace(problem("a"), metadata={"base_tests": 0})}
    rows = grade("a:bad a:good", tmp_path, problems=plus)
    assert [(row["status"], "base_status" in row) for row in rows] == [("WRONG_ANSWER", False), ("PASSED", False)]
    assert "base_pass_at_k" not in summarise_grades(rows, ["a"])
    # Results of a version that counted no test as a pass lose it.
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row | {"base_status": "PASSED"}) + "\n" for row in rows))
    assert grade("a:bad a:good a:bad", tmp_path, problems=plus) == [*rows, rows[0] | {"index": 2}]


def rows_of(**results: str) -> list[dict[str, Any]]:
    """`a="10"`: task a, first sample passed, second not. Every program has 4 tests; a wrong one passes 1."""
    return [
        {
            "task_id": task,
            "index": index,
            "status": "PASSED" if passed == "1" else "WRONG_ANSWER",
            "tests_passed": 4 if passed == "1" else 1,
            "tests_total": 4,
            "mode": "calls",
            "confinement": "full",
        }
        for task, word in results.items()
        for index, passed in enumerate(word)
    ]


def test_the_summary_by_hand() -> None:
    summary = summarise_grades(rows_of(a="10", b="00", c="11", d="10"), ["a", "b", "c", "d"])
    one, two = summary["pass_at_k"]
    assert (one["k"], one["value"], one["count"]) == (1, 0.5, 4)  # (1/2 + 0 + 1 + 1/2) / 4
    assert (two["k"], two["value"]) == (2, 0.75)  # all but b
    assert one["low"] < 0.5 < one["high"]
    assert summary["statuses"] == {"PASSED": 4, "WRONG_ANSWER": 4}
    assert summary["tests_passed"]["value"] == 0.625  # half 4 of 4, half 1 of 4
    assert summary["coverage"] == {"tasks": 4, "with_samples": 4, "missing": []}


def test_tasks_without_samples_are_named_and_take_no_part() -> None:
    summary = summarise_grades(rows_of(c="1", a="0"), ["a", "b", "c", "d"])
    assert summary["coverage"] == {"tasks": 4, "with_samples": 2, "missing": ["b", "d"]}
    assert summary["pass_at_k"][0]["value"] == 0.5
    assert summary["pass_at_k"][0]["count"] == 2


def test_unequal_numbers_of_samples_make_a_large_k_undefined() -> None:
    summary = summarise_grades(rows_of(a="110", b="0"), ["a", "b"])
    assert [entry["k"] for entry in summary["pass_at_k"]] == [1, 2, 3]
    assert summary["pass_at_k"][0]["value"] == pytest.approx(1 / 3)
    assert [entry["value"] for entry in summary["pass_at_k"][1:]] == [None, None]
    assert [entry["tasks_with_k"] for entry in summary["pass_at_k"]] == [2, 1, 1]
    assert summary["samples"] == {"total": 4, "fewest_per_task": 1, "most_per_task": 3}


def test_another_job_in_the_folder_is_refused_by_key(tmp_path: Path) -> None:
    check_job(tmp_path / "job.json", {"timeout": 3.0, "pair": (1, 2), "benchmark": "x"})
    check_job(tmp_path / "job.json", {"timeout": 3.0, "pair": (1, 2), "benchmark": "x"})
    with pytest.raises(UserError, match=r"another job \(benchmark, timeout differ\)"):
        check_job(tmp_path / "job.json", {"timeout": 4.0, "pair": (1, 2), "benchmark": "y"})
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(UserError, match="not the file that psgpo wrote"):
        check_job(tmp_path / "job.json", {})


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    busy = pytest.raises(UserError, match="another process is writing here")
    with only_process(tmp_path / "out"), busy, only_process(tmp_path / "out"):
        pass
    with only_process(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used as a folder"), only_process(tmp_path / "file"):
        pass


def test_a_command_that_made_nothing_leaves_its_folder_free(tmp_path: Path) -> None:
    """A mistake in the settings, mended, must not be held against the folder."""
    job, results = tmp_path / "job.json", tmp_path / "results.jsonl"
    check_job(job, {"timeout": 3.0}, results=results)
    check_job(job, {"timeout": 4.0}, results=results)
    results.write_text("")
    check_job(job, {"timeout": 5.0}, results=results)
    results.write_text("{}\n")
    with pytest.raises(UserError, match="timeout differ"):
        check_job(job, {"timeout": 6.0}, results=results)


def test_tests_that_cannot_be_run_name_their_problem(tmp_path: Path) -> None:
    broken = Problem(id="a", prompt="", tests=AssertTests(entry_point="f", checks=("assert f(",)))
    with pytest.raises(UserError, match="problem a: tests of 'f', check 0: not valid Python"):
        grade("a:good", tmp_path, problems={"a": broken})
