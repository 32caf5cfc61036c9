"""The whole of `psgpo mutate`: files, resume, equal bytes for any number of workers, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mutation_world import COUNT, ROOT, count_even, data_file, largest, problem

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl
from psgpo.mutation import load_line_examples
from psgpo.mutation.catalogue import Catalogue
from psgpo.mutation.labelled import load_programs
from psgpo.mutation.run import Labelling, Settings, run_mutation
from psgpo.mutation.summary import render
from psgpo.problems import save_problems_jsonl
from psgpo.problems.benchmarks import load_benchmark
from psgpo.records import Problem

FILES = ("journal.jsonl", "programs.jsonl", "orm.jsonl", "summary.json", "job.json")


def toys() -> list[Problem]:
    """Forty problems: two batches and a rest."""
    made = []
    for number in range(40):
        code = COUNT.replace("% 2", f"% {number % 5 + 2}")
        check = (
            f"assert count_even([1, 2, 4, 12, 60, 7]) == {sum(n % (number % 5 + 2) == 0 for n in (1, 2, 4, 12, 60, 7))}"
        )
        made.append(problem(code, [check], name=f"toy/{number}"))
    made[3] = problem(None, ["assert f(1) == 1"], name="toy/3")
    made[20] = problem("def f(n):\n    return 2\n", ["assert f(1) == 1"], name="toy/20")
    return made


def run(problems: Sequence[Problem], sandbox: Sandbox, out: Path, **options: Any) -> dict[str, Any]:
    teacher = Catalogue(bugs_per_line=1, refactors_per_line=1)
    settings = options.pop("settings", Settings(generated=5))
    return run_mutation(problems, [teacher], sandbox, out, settings=settings, **options)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("mutate")
    return out, run(toys(), sandbox, out)


def test_labels_follow_from_verdicts(finished: tuple[Path, dict[str, Any]], sandbox: Sandbox) -> None:
    out, summary = finished
    programs = load_programs(out / "programs.jsonl")
    by_id = {task.id: task for task in toys()}
    verdicts = sandbox.grade([(program.code, by_id[program.problem_id].tests) for program in programs])
    for program, verdict in zip(programs, verdicts, strict=True):
        if program.verdict == "pass" or program.decided_by == "tests":
            assert verdict.passed == (program.verdict == "pass")
        assert tuple(program.code.rstrip("\n").split("\n")) == program.lines
        reference = (by_id[program.problem_id].reference_solution or "").split("\n")
        if program.mutated_line is not None:
            assert list(program.lines[: program.mutated_line - 1]) == reference[: program.mutated_line - 1]
            assert program.labels[program.mutated_line - 1] == (1 if program.verdict == "pass" else -1)
            assert set(program.labels[: program.mutated_line - 1]) <= {0, 1}
    whole = list(read_jsonl(out / "orm.jsonl", dict))
    assert [row["label"] for row in whole] == [1 if p.verdict == "pass" else -1 for p in programs]
    assert summary["programs"]["fail"] > 38
    assert summary["lines"]["negative"] == summary["programs"]["fail"]
    assert len({(e.problem_id, e.prefix) for e in load_line_examples(out)}) == len(load_line_examples(out))


def test_problems_that_cannot_be_used_are_named_and_counted(finished: tuple[Path, dict[str, Any]]) -> None:
    _, summary = finished
    skipped = summary["problems"]["skipped"]
    assert set(skipped) == {"toy/3", "toy/20"}
    assert "no reference solution" in skipped["toy/3"]
    assert "WRONG_ANSWER" in skipped["toy/20"]
    assert summary["problems"]["used"] == 38
    text = render(summary)
    assert "skipped toy/20" in text
    assert "38 of 40 problems" in text


def test_counts_add_up(finished: tuple[Path, dict[str, Any]]) -> None:
    _, summary = finished
    total = summary["candidates"]
    assert total == sum(summary["outcomes"].values())
    for table in ("by_kind", "by_operator", "by_teacher"):
        assert total == sum(row["proposed"] for row in summary[table])
        assert all(row["proposed"] == sum(row[o] for o in row if o in summary["outcomes"]) for row in summary[table])
    for counts in summary["false_positives"].values():
        parts = (
            counts["removed_by_plus"]
            + counts["removed_by_generated"]
            + counts["passed_all"]
            + counts["out_of_time_or_memory"]
        )
        assert counts["passed_own_tests"] == parts <= counts["run"]


def test_the_number_of_workers_changes_nothing(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with Sandbox(workers=1, timeout=2.0, memory_mb=256) as alone:
        run(toys(), alone, tmp_path / "one")
    assert contents(tmp_path / "one") == contents(finished[0])


def test_a_run_that_is_cut_off_goes_on_to_the_same_bytes(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, sandbox: Sandbox
) -> None:
    class CutOffError(Exception):
        pass

    def cut(done: int, total: int) -> None:
        if done >= 16:
            raise CutOffError

    out = tmp_path / "cut"
    with pytest.raises(CutOffError):
        run(toys(), sandbox, out, progress=cut)
    journal = out / "journal.jsonl"
    data = journal.read_bytes()
    journal.write_bytes(data[: data.rfind(b"\n", 0, len(data) // 2) + 40])  # a torn line, in the middle of a batch
    run(toys(), sandbox, out)
    names = [name for name in FILES if name != "journal.jsonl"]
    assert all((out / name).read_bytes() == (finished[0] / name).read_bytes() for name in names)
    assert journal.read_bytes() == (finished[0] / "journal.jsonl").read_bytes()


def test_other_labels_need_no_new_run(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    class Idle:
        def grade(self, items: object) -> list[Any]:
            raise AssertionError("nothing may run")

        evaluate_many = grade

    out = tmp_path / "again"
    out.mkdir()
    for name in ("job.json", "journal.jsonl"):
        (out / name).write_bytes((finished[0] / name).read_bytes())
    summary = run(toys(), Idle(), out, labelling=Labelling(after="negative", survivors="drop"))  # type: ignore[arg-type]
    assert summary["lines"]["negative"] == finished[1]["lines"]["negative"]
    assert summary["lines"]["distinct_prefixes"]["negative"] > finished[1]["lines"]["distinct_prefixes"]["negative"]
    assert not any(p.family == "bug" and p.verdict == "pass" for p in load_programs(out / "programs.jsonl"))


def test_another_job_in_the_folder_is_refused(finished: tuple[Path, dict[str, Any]], sandbox: Sandbox) -> None:
    with pytest.raises(UserError, match="settings differ"):
        run(toys(), sandbox, finished[0], settings=Settings(generated=6))
    with pytest.raises(UserError, match="problems differ"):
        run(toys()[:5], sandbox, finished[0])


def test_no_references_at_all_is_an_error(tmp_path: Path, sandbox: Sandbox) -> None:
    with pytest.raises(UserError, match="none of the problems has a reference solution"):
        run([problem(None, ["assert f(1) == 1"])], sandbox, tmp_path / "a")
    with pytest.raises(UserError, match="every problem was skipped; the first: toy/1"):
        run([problem("def f(n): return 0\n", ["assert f(1) == 1"])], sandbox, tmp_path / "b")


def psgpo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "psgpo", "mutate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    file, out = tmp_path / "problems.jsonl", tmp_path / "out"
    save_problems_jsonl(file, [count_even(), largest()])
    done = psgpo("--benchmark", str(file), "--out", str(out), "--generated", "8", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 problems" in done.stdout
    assert "comparison" in done.stdout
    assert json.loads((out / "summary.json").read_text())["lines"]["negative"] > 10
    again = psgpo("--benchmark", str(file), "--out", str(out), "--generated", "8", "--workers", "2")
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "FILE", "--after", "maybe"], "--after 'maybe'"),
        (["--benchmark", "none.jsonl"], "no such file"),
        (["--benchmark", "FILE", "--no-catalogue"], "leaves no teacher"),
        (["--benchmark", "FILE", "--server", "http://localhost:9/v1"], "--model"),
        (["--benchmark", "FILE", "--server", "localhost:9", "--model", "m"], "not an http address"),
        (["--benchmark", "FILE", "--server", "http://x/v1", "--model", "m", "--bug-prompt", "FILE"], "lacks {code}"),
    ],
)
def test_mistakes_cost_one_line_and_exit_status_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    save_problems_jsonl(file, [largest()])
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    done = psgpo(*given, "--out", str(tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_mbpp(tmp_path: Path, sandbox: Sandbox) -> None:
    """Twelve real problems, the extended tests of MBPP+ among them."""
    file, plus_file = data_file("mbpp.jsonl.gz"), data_file("mbppplus.jsonl.gz")
    problems = load_benchmark("mbpp", file, split="train", limit=12)
    with Sandbox(workers=2, timeout=60.0, memory_mb=512) as references:
        plus = load_benchmark("mbppplus", plus_file, evaluate=references.evaluate_many, split="train", limit=6)
    summary = run(problems, sandbox, tmp_path, plus={task.id: task for task in plus}, settings=Settings(generated=10))
    assert summary["problems"]["used"] == 12
    assert summary["problems"]["with_plus_tests"] >= 3
    assert summary["lines"]["negative"] > 40
    refactors = summary["false_positives"]["refactor"]
    assert refactors["passed_own_tests"] > 30
    assert refactors["removed_by_generated"] == 0
