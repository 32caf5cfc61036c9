"""The benchmarks by name, and `load_benchmark`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.problems import load_problems_jsonl
from psgpo.problems.benchmarks import evalplus
from psgpo.problems.benchmarks.filters import Filters
from psgpo.problems.benchmarks.hub import HubSource, hub_rows
from psgpo.problems.benchmarks.humaneval import convert_humaneval
from psgpo.problems.benchmarks.livecodebench import convert_livecodebench
from psgpo.problems.benchmarks.mbpp import convert_mbpp, convert_sanitized
from psgpo.problems.benchmarks.reading import kind_of, read_rows
from psgpo.problems.benchmarks.references import Evaluate
from psgpo.problems.benchmarks.rows import Row, converting
from psgpo.records import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One benchmark that `load_benchmark` knows."""

    name: str
    title: str
    prefix: str
    """What stands before the number in a task id, `/` included; empty where ids have no common form."""
    file_hint: str
    """The file to get, for messages."""
    convert: Callable[[Iterable[Row], Evaluate | None], Iterator[Problem]]
    hub: HubSource
    filters: frozenset[str] = frozenset()
    timeout: float = 10.0
    """Wall seconds for all tests of a program that are enough for every reference solution on a slow machine."""
    memory_mb: int = 512
    """Address space that is enough for every reference solution, MiB."""

    def canonical_id(self, raw: Any) -> str:
        """The benchmark's own id of a task: `Mbpp/2` for 2, "2", "mbpp/2" and "Mbpp/2".

        What cannot be understood comes back as text, so that it can be reported as unknown.
        """
        text = str(raw).strip()
        if not self.prefix:
            return text
        match = re.fullmatch(rf"(?:{re.escape(self.prefix)})?0*(\d+)", text, re.IGNORECASE)
        return f"{self.prefix}{match.group(1)}" if match else text


_MBPP_HUB = "google-research-datasets/mbpp"
_LIVECODEBENCH_HUB = "hf://datasets/livecodebench/code_generation_lite/*.jsonl"
_ALL = (
    Benchmark(
        name="humaneval",
        title="HumanEval",
        prefix="HumanEval/",
        file_hint="HumanEval.jsonl.gz of github.com/openai/human-eval",
        convert=convert_humaneval,
        hub=HubSource(path="openai/openai_humaneval", options={"split": "test"}),
    ),
    Benchmark(
        name="humanevalplus",
        title="HumanEval+",
        prefix="HumanEval/",
        file_hint="HumanEvalPlus.jsonl.gz of github.com/evalplus/humanevalplus_release",
        convert=evalplus.convert_humanevalplus,
        hub=HubSource(path="evalplus/humanevalplus", options={"split": "test"}, convert=evalplus.from_hub),
        timeout=60.0,
    ),
    Benchmark(
        name="mbpp",
        title="MBPP",
        prefix="Mbpp/",
        file_hint="mbpp.jsonl of github.com/google-research/google-research/tree/master/mbpp",
        convert=convert_mbpp,
        hub=HubSource(path=_MBPP_HUB, options={"name": "full"}),
        filters=frozenset({"split"}),
    ),
    Benchmark(
        name="mbpp-sanitized",
        title="MBPP sanitized",
        prefix="Mbpp/",
        file_hint="sanitized-mbpp.json of github.com/google-research/google-research/tree/master/mbpp",
        convert=convert_sanitized,
        hub=HubSource(path=_MBPP_HUB, options={"name": "sanitized"}),
        filters=frozenset({"split"}),
    ),
    Benchmark(
        name="mbppplus",
        title="MBPP+",
        prefix="Mbpp/",
        file_hint="MbppPlus.jsonl.gz of github.com/evalplus/mbppplus_release",
        convert=evalplus.convert_mbppplus,
        hub=HubSource(path="evalplus/mbppplus", options={"split": "test"}, convert=evalplus.from_hub),
        timeout=60.0,
        filters=frozenset({"split"}),
    ),
    Benchmark(
        name="livecodebench",
        title="LiveCodeBench",
        prefix="",
        file_hint="a test*.jsonl of huggingface.co/datasets/livecodebench/code_generation_lite",
        convert=convert_livecodebench,
        hub=HubSource(path="json", options={"data_files": _LIVECODEBENCH_HUB, "split": "train"}),
        filters=frozenset({"platform", "difficulty", "since", "until"}),
        timeout=60.0,
        memory_mb=1024,
    ),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def load_benchmark(
    name: str,
    data: Path | str | None = None,
    *,
    evaluate: Evaluate | None = None,
    split: str | None = None,
    platform: str | None = None,
    difficulty: str | None = None,
    since: str | None = None,
    until: str | None = None,
    ids: tuple[int, int] | None = None,
    limit: int | None = None,
    data_key: str = "--data",
) -> list[Problem]:
    """The problems of a benchmark, in the order of its file.

    Args:
        name: a key of `BENCHMARKS`, or the path of a JSON Lines file of problems (`load_problems_jsonl`).
        data: the benchmark's data file; None asks the Hugging Face Hub.
        evaluate: runs reference solutions, see `Sandbox.evaluate_many`; HumanEval+ and MBPP+ need it.
        split: prompt, test, validation or train; MBPP, and files of problems that name a split.
        platform: leetcode, codeforces or atcoder; LiveCodeBench only, like the next three.
        difficulty: easy, medium or hard.
        since: first contest date, YYYY-MM-DD.
        until: last contest date, YYYY-MM-DD, included.
        ids: first and last number of the tasks' ids, both included; not LiveCodeBench.
        limit: at most so many problems, the first that pass the filters.
        data_key: what the user sets to name `data`, for messages.

    Raises:
        UserError: an unknown name; a file that is missing, damaged or of another benchmark (with its line); a filter
            that does not apply or leaves nothing; a reference solution that fails.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}: needs to be 1 or more")
    filters = Filters(split=split, platform=platform, difficulty=difficulty, since=since, until=until, ids=ids)
    if name in BENCHMARKS:
        benchmark, path = BENCHMARKS[name], None if data is None else Path(data)
        filters.check(name, benchmark.filters | ({"ids"} if benchmark.prefix else frozenset()))
        rows = _wanted_rows(benchmark, path, filters, limit, data_key)
        return list(benchmark.convert(rows, evaluate))
    return _problems_of_file(name, data, filters)[:limit]


def _wanted_rows(
    benchmark: Benchmark, path: Path | None, filters: Filters, limit: int | None, data_key: str
) -> Iterator[Row]:
    """Rows that pass the filters; what is filtered out is never converted."""
    advice = f"get {benchmark.file_hint} and give it with {data_key}"
    rows = _file_rows(benchmark, path) if path else hub_rows(benchmark.name, benchmark.hub, advice)
    seen: set[str] = set()

    def passing() -> Iterator[Row]:
        for place, row in rows:
            task = benchmark.canonical_id(row.get("task_id", row.get("question_id", f"row {len(seen)}")))
            if task in seen:
                raise UserError(f"{place}: the task {task} was on an earlier line too; remove one of them")
            seen.add(task)
            if converting((place, row), filters.keep):
                yield place, row

    empty = True
    for row in islice(passing(), limit):
        empty = False
        yield row
    if empty:
        raise UserError(
            f"{path or benchmark.hub.name}: none of its {len(seen)} problems has {filters}; widen the filters"
        )


def _file_rows(benchmark: Benchmark, path: Path) -> Iterator[Row]:
    for place, row in read_rows(path):
        kind = kind_of(row)
        if kind is not None and kind != benchmark.name:
            advice = f"use {kind}" if kind in BENCHMARKS else f"get {benchmark.file_hint}"
            raise UserError(f"{place}: this looks like a file of {kind}, not of {benchmark.name}; {advice}")
        yield place, row


def _problems_of_file(name: str, data: Path | str | None, filters: Filters) -> list[Problem]:
    path = Path(name)
    if not path.is_file():
        looks_like_path = path.suffix or path.parent != Path(".")
        what = "no such file" if looks_like_path else "unknown benchmark"
        raise UserError(f"{name}: {what}; known: {', '.join(BENCHMARKS)}, or the path of a JSON Lines file of problems")
    if data is not None:
        raise UserError(f"{name}: is a file of problems already; leave out --data {data}")
    wrong = {key: value for key, value in filters.given().items() if key != "split"}
    if wrong:
        raise UserError(f"{', '.join(wrong)}: a file of problems can be filtered by split only")
    _, first = next(read_rows(path))
    kind = kind_of(first)
    if kind is not None and kind != "psgpo problems":
        advice = f"use --benchmark {kind} --data {path}" if kind in BENCHMARKS else "give the benchmark's name"
        raise UserError(f"{path}: this looks like a file of {kind}, not of problems; {advice}")
    problems = load_problems_jsonl(path)
    if filters.split is None:
        return problems
    kept = [problem for problem in problems if problem.split == filters.split]
    if not kept:
        splits = ", ".join(sorted({problem.split for problem in problems} - {""})) or "none"
        raise UserError(f"{path}: no problem has split={filters.split}; splits there: {splits}")
    return kept
