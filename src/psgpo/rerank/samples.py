"""Responses with verdicts from disk, checked against the problems that they answer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.records import AssertTests, CallTests, Problem, Response, Status, Tests

SHOWN_MISSING = 5
"""Problems that an error names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSet:
    """What is chosen from."""

    responses: Mapping[str, Sequence[Response]]
    """Problem id to its sampled responses, in the order of the problems; every problem has some."""
    drawn: Mapping[str, int] = field(default_factory=dict)
    """Sampled tokens of a response, by its name, where `token_ids` may hold fewer."""
    tokenizer: str = ""
    """Fingerprint of the tokenizer of the ids, where it was recorded; else they have to decode to the texts."""

    def flat(self) -> dict[str, Response]:
        """Every response by its name."""
        return {name_of(response): response for group in self.responses.values() for response in group}


def name_of(response: Response) -> str:
    """Unique within a file."""
    return f"{response.problem_id}#{response.checkpoint}#{response.index}"


def load_samples(path: Path, problems: Mapping[str, Problem], problems_file: Path) -> SampleSet:
    """The sampled (not greedy) responses of `samples.jsonl`, as evaluations of runs write it.

    Raises:
        UserError: the file is missing, malformed or empty, is of an evaluation that has not come to its end, holds a
            response twice, or answers other problems, or not all of them.
    """
    _refuse_unfinished(path)
    groups: dict[str, list[Response]] = {}
    seen: set[str] = set()

    def parse(row: dict[str, Any]) -> Response | None:
        if "verdict" not in row or "token_ids" not in row:
            raise ValueError(
                "no response with token ids and a verdict; give evaluation/<policy>/samples.jsonl of a run, or the "
                "folder of psgpo eval --model"
            )
        if row.get("greedy"):
            return None
        known = Response.__dataclass_fields__
        response = Response.from_json({key: value for key, value in row.items() if key in known})
        _check(response, problems, problems_file)
        if name_of(response) in seen:
            raise ValueError(
                f"response {response.index} of {response.problem_id} ({response.checkpoint}) is here twice"
            )
        seen.add(name_of(response))
        return response

    for response in read_jsonl(path, parse):
        if response is not None:
            groups.setdefault(response.problem_id, []).append(response)
    if not groups:
        raise UserError(f"{path}: holds no sampled response; give a file of samples, not of greedy answers alone")
    refuse_missing(path, groups, problems, problems_file)
    return SampleSet(responses={name: groups[name] for name in problems})


def refuse_missing(
    path: Path, groups: Mapping[str, Sequence[Response]], problems: Mapping[str, Problem], problems_file: Path
) -> None:
    """
    Raises:
        UserError: there are problems without a response.
    """
    missing = [name for name in problems if name not in groups]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of the {len(problems)} problems in {problems_file} have no sampled response "
            f"({', '.join(missing[:SHOWN_MISSING])}); give samples of all, or leave these out of --problems (another "
            "file, or the filters of the evaluation)"
        )


def _refuse_unfinished(path: Path) -> None:
    """An evaluation appends to its samples as it goes and writes `summary.json` last."""
    folder = path.absolute().parent
    run = folder.parent.parent
    of_run = folder.parent.name == "evaluation" and (run / "recipe.json").is_file()
    if of_run and path.is_file() and not (folder / "summary.json").is_file():
        go_on = ["psgpo", "run", str(run / "recipe.json"), "--set", f"out={run}", "--until", f"evaluate-{folder.name}"]
        raise UserError(
            f"{path}: the evaluation of {folder.name} has not come to its end, so these are some of its samples; run: "
            f"{shlex.join(go_on)}"
        )


def _check(response: Response, problems: Mapping[str, Problem], problems_file: Path) -> None:
    other = f"these samples are of other problems than {problems_file}; give the file they were drawn for as --problems"
    problem = problems.get(response.problem_id)
    if problem is None:
        raise ValueError(f"problem {response.problem_id!r} is unknown: {other}")
    tests, total = tests_of(problem.tests), response.verdict.tests_total
    if total != tests:
        raise ValueError(f"judged by {total} tests, and problem {problem.id} has {tests}: {other}")
    if response.verdict.status is Status.INFRASTRUCTURE:
        raise ValueError(f"response {response.index} of {problem.id} was never judged; evaluate it again")


def tests_of(tests: Tests) -> int:
    """How many tests a verdict counts."""
    if isinstance(tests, CallTests):
        return len(tests.calls)
    return len(tests.checks) if isinstance(tests, AssertTests) else len(tests.cases)
