"""Grading a file of samples: every verdict on disk as it comes, nothing graded twice. No torch.

`out/job.json` is what was asked for. `out/results.jsonl`, one row per sample, in the order in which verdicts come while
the command runs and in the order of the samples file when it has ended:

    task_id, index        the task, and which of its samples this is (from 0, in the order of the file)
    sample_id             the file's own name of the sample, when it has one
    status                see docs/sandbox.md; only PASSED is a success
    tests_passed, tests_total
    base_status           humanevalplus, mbppplus: the status by the original benchmark's tests alone; absent where the
                          task does not tell which those are (rows of the Hub)
    first_failing         index of the first test that did not hold; null when all held or none ran
    seconds, cpu_seconds  wall time of grading, CPU time of the program's process
    mode                  how the tests reached the program: calls, asserts, asserts+objects, stdio
    detail                one line for people
    confinement           rung of the hardening ladder that was in force
    sha256                of the program that ran and of the tests: how a later run knows the row is still true

Equal programs of one task are graded once and share the verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from psgpo.errors import UserError
from psgpo.evaluation.samples import Sample
from psgpo.execution import SandboxError
from psgpo.execution.encoding import check_tests
from psgpo.jsonl import JsonlAppender, read_jsonl, write_jsonl
from psgpo.records import Problem, Status, Tests, Verdict

Json = dict[str, Any]
ProgramOf = Callable[[Problem, Sample], str]
"""The whole program of a sample."""
_VERDICT_KEYS = (
    "status",
    "tests_passed",
    "tests_total",
    "first_failing",
    "seconds",
    "cpu_seconds",
    "mode",
    "detail",
    "confinement",
)


class StreamGrader(Protocol):
    """The part of `psgpo.execution.Sandbox` that is needed here."""

    def grade_iter(self, items: Iterable[tuple[str, Tests]], /) -> Iterator[tuple[int, Verdict]]:
        """(index of the item, verdict), as they come; closing the iterator cancels the rest."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One program to run, and the samples it is the answer of."""

    program: str
    tests: Tests
    base_tests: int | None
    """How many of the tests, from the first, are those of the original benchmark (HumanEval+, MBPP+); None or 0: the
    task does not tell."""
    samples: list[Sample] = field(default_factory=list)


def grade_samples(
    samples: Sequence[Sample],
    problems: Mapping[str, Problem],
    grader: StreamGrader,
    out: Path,
    *,
    program_of: ProgramOf,
    progress: Callable[[int, int], None] | None = None,
) -> list[Json]:
    """Grade what `out/results.jsonl` does not hold yet; returns all rows in the order of `samples`.

    Args:
        problems: by id; every sample's task is among them.
        progress: called with (samples graded, samples in all).

    Raises:
        UserError: the file holds a row of a sample that is no longer what it was.
        SandboxError: the grader itself failed; the rows of what it graded before are on disk.
    """
    path = out / "results.jsonl"
    jobs = _jobs(samples, problems, program_of)
    rows = _kept_rows(path, jobs)
    with JsonlAppender(path) as stream:
        _share_verdicts(jobs, rows, stream)
        total = len(samples)
        if progress:
            progress(len(rows), total)
        pending = {key: job for key, job in jobs.items() if any(_place(sample) not in rows for sample in job.samples)}
        keys = list(pending)
        _check_tests({sample.task_id for job in pending.values() for sample in job.samples}, problems)
        with closing(_verdicts(grader, pending.values())) as verdicts:
            for number, verdict in verdicts:
                job = pending[keys[number]]
                _refuse_infrastructure(job, verdict)
                fields = _verdict_fields(verdict, job.base_tests)
                new = [_row(sample, keys[number], fields) for sample in job.samples]
                stream.append(*new)
                rows |= {_place(row): row for row in new}
                if progress:
                    progress(len(rows), total)
    if missing := [sample for sample in samples if _place(sample) not in rows]:
        raise SandboxError(f"{missing[0].origin}: the grader gave no verdict for this sample; run `psgpo doctor`")
    ordered = [rows[_place(sample)] for sample in samples]
    write_jsonl(path, ordered)
    return ordered


def tests_digest(tests: Tests) -> str:
    """SHA-256 of the tests' content."""
    return hashlib.sha256(json.dumps(tests.to_json(), sort_keys=True).encode()).hexdigest()


def program_digest(problem_id: str, tests: str, program: str) -> str:
    """SHA-256 of a program and of the tests that judge it: `sha256` of its row.

    Args:
        tests: `tests_digest` of the problem.
    """
    content = f"{problem_id}\n{tests}\n".encode() + program.encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()


def _verdicts(grader: StreamGrader, jobs: Iterable[_Job]) -> Generator[tuple[int, Verdict], None, None]:
    """A generator whatever the grader returns, so that it can be closed."""
    yield from grader.grade_iter((job.program, job.tests) for job in jobs)


def _check_tests(task_ids: Iterable[str], problems: Mapping[str, Problem]) -> None:
    for task_id in sorted(task_ids):
        try:
            check_tests(problems[task_id].tests)
        except UserError as error:
            raise UserError(f"problem {task_id}: {error}") from None


def _jobs(samples: Sequence[Sample], problems: Mapping[str, Problem], program_of: ProgramOf) -> dict[str, _Job]:
    """What has to run, by the hash of program and tests, in the order of the samples."""
    digests: dict[str, str] = {}
    jobs: dict[str, _Job] = {}
    for sample in samples:
        problem = problems[sample.task_id]
        if problem.id not in digests:
            digests[problem.id] = tests_digest(problem.tests)
        program = program_of(problem, sample)
        key = program_digest(problem.id, digests[problem.id], program)
        job = _Job(program=program, tests=problem.tests, base_tests=problem.metadata.get("base_tests"))
        jobs.setdefault(key, job).samples.append(sample)
    return jobs


def _kept_rows(path: Path, jobs: Mapping[str, _Job]) -> dict[tuple[str, int], Json]:
    """Rows of an earlier run. A sample that has changed since is refused: its row would be about another program."""
    if not path.is_file():
        return {}
    now = {_place(sample): (key, sample) for key, job in jobs.items() for sample in job.samples}
    rows: dict[tuple[str, int], Json] = {}
    for row in read_jsonl(path, _checked_row, torn_tail_ok=True):
        place = _place(row)
        if place not in now:
            raise UserError(
                f"{path}: sample {row['index']} of {row['task_id']} was graded, and the samples hold it no more; "
                f"choose another --out, or delete {path.parent}"
            )
        key, sample = now[place]
        if row["sha256"] != key:
            raise UserError(
                f"{sample.origin}: not the program (or not the tests) that was graded as sample {row['index']} of "
                f"{row['task_id']} in {path}; choose another --out, or delete {path.parent}"
            )
        if not jobs[key].base_tests:  # graded before it was known that no test at all is no pass
            row.pop("base_status", None)
        rows[place] = row
    return rows


def _checked_row(row: Json) -> Json:
    if not isinstance(row["task_id"], str) or not isinstance(row["index"], int) or not isinstance(row["sha256"], str):
        raise ValueError("no row of psgpo eval; delete this line")
    missing = [key for key in _VERDICT_KEYS if key not in row]
    if missing:
        raise KeyError(missing[0])
    Status(row["status"])
    return row


def _share_verdicts(jobs: Mapping[str, _Job], rows: dict[tuple[str, int], Json], stream: JsonlAppender) -> None:
    """Give samples that are new in the file the verdict of an equal program that is known already."""
    for key, job in jobs.items():
        known = next((rows[_place(sample)] for sample in job.samples if _place(sample) in rows), None)
        if known is None:
            continue
        fields = {name: known[name] for name in (*_VERDICT_KEYS, "base_status") if name in known}
        new = [_row(sample, key, fields) for sample in job.samples if _place(sample) not in rows]
        stream.append(*new)
        rows |= {_place(row): row for row in new}


def _refuse_infrastructure(job: _Job, verdict: Verdict) -> None:
    if verdict.status is Status.INFRASTRUCTURE:
        raise SandboxError(
            f"{job.samples[0].origin}: could not be judged ({verdict.detail or 'no detail'}); run `psgpo doctor`, then "
            "the same command again: what is graded is kept"
        )


def _place(item: Sample | Json) -> tuple[str, int]:
    return (item.task_id, item.index) if isinstance(item, Sample) else (item["task_id"], item["index"])


def _row(sample: Sample, key: str, fields: Json) -> Json:
    named = {} if sample.sample_id is None else {"sample_id": sample.sample_id}
    return {"task_id": sample.task_id, "index": sample.index, **named, **fields, "sha256": key}


def _verdict_fields(verdict: Verdict, base_tests: int | None) -> Json:
    base = {}
    if base_tests:
        failed = (outcome for outcome in verdict.outcomes[:base_tests] if outcome is not Status.PASSED)
        base = {"base_status": next(failed, Status.PASSED if verdict.outcomes else verdict.status).value}
    return {
        "status": verdict.status.value,
        "tests_passed": verdict.tests_passed,
        "tests_total": verdict.tests_total,
        "first_failing": verdict.first_failing,
        "seconds": round(verdict.wall_seconds, 4),
        "cpu_seconds": round(verdict.cpu_seconds, 4),
        "mode": verdict.mode,
        # The text of an exception is the program's own; what UTF-8 cannot hold must not stop the writer.
        "detail": verdict.detail.encode("utf-8", "replace").decode(),
        "confinement": verdict.confinement,
        **base,
    }
