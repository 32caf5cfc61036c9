"""`psgpo eval` without the command line: load a benchmark, draw or read samples, grade them, write the summary."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psgpo
from psgpo.errors import UserError
from psgpo.evaluation.draw import DRAWN, DrawSettings, LoadedModel, draw_samples
from psgpo.evaluation.grade import StreamGrader, grade_samples
from psgpo.evaluation.grade_summary import summarise_grades
from psgpo.evaluation.samples import Sample, TaskIds, read_samples
from psgpo.execution import Limits, Sandbox
from psgpo.job import check_job, only_process
from psgpo.jsonl import write_json
from psgpo.labeling.identity import spec_folder
from psgpo.problems.benchmarks import BENCHMARKS, load_benchmark
from psgpo.problems.programs import chat_prompt, completion_prompt, program_of
from psgpo.records import Problem

Json = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total)."""


TEST_TIMEOUTS = {
    "humaneval": 5.0,
    "humanevalplus": 10.0,
    "mbpp": 5.0,
    "mbpp-sanitized": 5.0,
    "mbppplus": 10.0,
    "livecodebench": 6.0,
}
"""Usual limits of one test, seconds: an endless loop shall not take the time of all tests; see docs/eval.md."""
OTHER_LIMITS = Limits(timeout=10.0, memory_mb=512)


def limits_of(
    benchmark: str, *, timeout: float | None = None, test_timeout: float | None = None, memory_mb: int | None = None
) -> Limits:
    """The benchmark's usual limits, but for those that are given."""
    known = BENCHMARKS.get(benchmark)
    usual = OTHER_LIMITS
    if known is not None:
        usual = Limits(timeout=known.timeout, test_timeout=TEST_TIMEOUTS.get(benchmark), memory_mb=known.memory_mb)
    return Limits(
        timeout=usual.timeout if timeout is None else timeout,
        test_timeout=usual.test_timeout if test_timeout is None else test_timeout,
        memory_mb=usual.memory_mb if memory_mb is None else memory_mb,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalRequest:
    """What to grade samples on, and how."""

    benchmark: str
    """A name of `BENCHMARKS`, or the path of a JSON Lines file of problems."""
    out: Path
    limits: Limits
    data: Path | None = None
    """The benchmark's own file; None to fetch it."""
    filters: Json = field(default_factory=dict)
    """Arguments of `load_benchmark` that choose a part: split, platform, difficulty, since, until, limit."""
    workers: int = 1
    cache: Path | None = None
    """File of the verdict cache."""
    confinement: Json = field(default_factory=dict)
    """`require` and `allow_unconfined` of the sandbox."""
    packages: tuple[str, ...] = ()
    """Installed packages that programs may import, such as numpy."""


class BenchmarkSandbox(StreamGrader, Protocol):
    """What evaluation needs of `psgpo.execution.Sandbox`."""

    def evaluate_many(self, items: Any, /) -> Any:
        """Reference outputs of the benchmarks that store none."""
        ...


def run_eval(
    request: EvalRequest,
    source: Path | tuple[LoadedModel, DrawSettings],
    *,
    progress: Progress | None = None,
    sandbox: AbstractContextManager[BenchmarkSandbox] | None = None,
) -> Json:
    """Grade a file of samples, or those of a model, and return what is written to `out/summary.json`.

    Args:
        source: samples, or a model and how to draw from it; drawn samples are in `out/samples.jsonl`.
        sandbox: grades instead of a `Sandbox` made for the request.

    Raises:
        UserError: something given is wrong.
        SandboxError: the grader failed; what is graded is kept.
    """
    started = time.perf_counter()
    report = progress or (lambda *_: None)
    with only_process(request.out):
        results = request.out / "results.jsonl"
        check_job(request.out / "job.json", _job(request), results=results, remedy=partial(_grade_again, request))
        with sandbox or _sandbox(request) as grader:
            problems = load_benchmark(request.benchmark, request.data, evaluate=grader.evaluate_many, **request.filters)
            path = source if isinstance(source, Path) else _draw(request, problems, source, report)
            samples, left_out = read_samples(path, _task_ids(request, problems))
            rows = grade_samples(
                samples,
                {problem.id: problem for problem in problems},
                grader,
                request.out,
                program_of=_program,
                progress=lambda done, total: report("grading", done, total),
            )
        summary = {
            "benchmark": request.benchmark,
            "data": None if request.data is None else str(request.data),
            "filters": request.filters,
            "samples_file": str(path),
            "sampling": None if isinstance(source, Path) else {"model": source[0].spec, **asdict(source[1])},
            "samples_left_out": left_out,
            **summarise_grades(rows, [problem.id for problem in problems]),
            "limits": asdict(request.limits),
            "packages": list(request.packages),
            "versions": _versions(),
            "run": {"workers": request.workers, "seconds": round(time.perf_counter() - started, 3)},
        }
        write_json(request.out / "summary.json", summary)
    return summary


def _job(request: EvalRequest) -> Json:
    """What decides the verdicts, beside programs and tests, which every row of results.jsonl carries the hash of."""
    known = request.benchmark in BENCHMARKS
    return {
        "benchmark": request.benchmark if known else Path(request.benchmark).name,
        "filters": request.filters,
        **asdict(request.limits),
        "packages": list(request.packages),
        **_versions(),
    }


def _grade_again(request: EvalRequest, changed: Collection[str]) -> str:
    """How to grade the samples that were drawn in this folder by other limits, without drawing them again."""
    samples = request.out / DRAWN
    same = {"benchmark", "filters"}.isdisjoint(changed)
    if not (same and samples.is_file()):
        return ""
    words = ["psgpo", "eval", str(samples), "--benchmark", request.benchmark]
    words += ["--data", str(request.data)] if request.data is not None else []
    return (
        f"{samples} holds the samples that were drawn; grade them again in another folder, with the same options but "
        f"those of drawing: {shlex.join(words)} --out OTHER"
    )


def _versions() -> Json:
    return {"psgpo": psgpo.__version__, "python": platform.python_version()}


def _sandbox(request: EvalRequest) -> Sandbox:
    return Sandbox(
        workers=request.workers,
        cache=request.cache,
        packages=request.packages,
        **asdict(request.limits),
        **request.confinement,
    )


def _task_ids(request: EvalRequest, problems: list[Problem]) -> TaskIds:
    benchmark = BENCHMARKS.get(request.benchmark)
    return TaskIds(
        benchmark=request.benchmark,
        known={problem.id: None for problem in problems},
        canonical=str if benchmark is None else benchmark.canonical_id,
        filtered=bool(request.filters),
    )


def _program(problem: Problem, sample: Sample) -> str:
    if sample.form == "completion":
        return program_of(problem, completion=sample.text)
    return program_of(problem, solution=sample.text)


def _draw(
    request: EvalRequest, problems: list[Problem], source: tuple[LoadedModel, DrawSettings], report: Progress
) -> Path:
    model, settings = source
    return draw_samples(
        model,
        problems,
        settings,
        request.out,
        prompt_of=chat_prompt if settings.prompt == "chat" else completion_prompt,
        benchmark=request.benchmark,
        progress=lambda done, total: report("sampling", done, total),
    )


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_unclear_source(samples: Path | None, model: str | None) -> None:
    """One of the two, and a file that exists: said before anything is loaded."""
    if (samples is None) == (model is None):
        raise UserError("eval: give a file of samples, or --model to draw them; one of the two")
    if samples is not None and not samples.exists():
        raise UserError(f"{samples}: no such file of samples")
    folder = spec_folder(model) if model is not None else None
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; --model takes the local folder of a model, hf:FOLDER, vllm:FOLDER or "
            "openai:URL#MODEL"
        )
