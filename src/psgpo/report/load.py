"""A run directory as frozen records. A file that is not there yet is None or empty, never an error.

A file that is there but broken raises `UserError` with file and line: a report must not be built on half a file.
The layout is the one in docs/architecture.md, "Run directory".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.config import Recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.evaluation.sets import EvalSet, load_sets
from psgpo.job import undo_command
from psgpo.jsonl import read_jsonl
from psgpo.records import LineLabels

Json = dict[str, Any]
Array = NDArray[np.float64]
Key = tuple[str, int, str]
"""(problem id, index, checkpoint): names one response of the labelling stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What one finished stage took."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    """NaN when the stage did not measure it."""
    taken_from: str = ""
    """The run whose outputs were taken over; what it took was spent there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One judged response to a test problem."""

    problem_id: str
    index: int
    passed: bool
    greedy: bool
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """How one policy did on the test problems."""

    policy: str
    summary: Json
    samples: tuple[Sample, ...]

    def outcomes(self) -> dict[str, list[bool]]:
        """Per problem, whether each sampled (not greedy) response passed; problems in the order of their ids."""
        outcomes: dict[str, list[bool]] = {}
        for sample in self.samples:
            if not sample.greedy:
                outcomes.setdefault(sample.problem_id, []).append(sample.passed)
        return dict(sorted(outcomes.items()))

    def tokens(self) -> dict[str, list[int]]:
        """Per problem, the lengths of its sampled responses."""
        tokens: dict[str, list[int]] = {}
        for sample in self.samples:
            if not sample.greedy:
                tokens.setdefault(sample.problem_id, []).append(sample.tokens)
        return tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Exact:
    """Exact labels of one response, from the embedded benchmark's oracle."""

    last_on_track: int
    """m*: leading lines after which the canonical remainder still passes."""
    lines: int
    progress: tuple[float, ...]
    """Per line, the fraction of the operations done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrmRun:
    """One trained PRM: what was measured on held-out responses."""

    name: str
    measure: Json | None
    """Measures by what the labels are: `search` (responses or mutants, as the run has them) and `exact`."""
    metrics: dict[str, Array]
    scores: dict[Key, tuple[float, ...]]
    """Per held-out response, one score per line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Everything the report reads from one run directory."""

    path: Path
    recipe: Recipe
    manifest: Json
    """Empty when the run has not written it."""
    stages: dict[str, Stage]
    strength: Json | None
    """Mutant survival of the hidden tests."""
    prompts: dict[str, str]
    """Of every problem, by id."""
    difficulty: dict[str, int]
    """Of every problem that has one: for the embedded benchmark the number of operations."""
    test_problems: dict[str, str]
    """Digest of prompt and tests of every test problem, by id; empty while they are not made."""
    sft: dict[str, Array]
    """Metric columns over steps; empty when there are none, as in `rl`."""
    rl: dict[str, dict[str, Array]]
    labels: tuple[LineLabels, ...]
    exact: dict[Key, Exact]
    label_summary: Json | None
    mutant_summary: Json | None
    """Of `psgpo.mutation`, where labels come from mutants."""
    tests: dict[str, EvalSet]
    """Empty where the test problems are one set and nothing was trained on it."""
    prm: dict[str, PrmRun]
    """Only those that have a measurement or scores."""
    evaluations: dict[str, Evaluation]
    """In the order sft, then the recipe's arms."""

    @property
    def policies(self) -> tuple[str, ...]:
        """Every policy the recipe asks for, evaluated or not."""
        return ("sft", *self.recipe.arms)

    def steps(self, arm: str) -> int:
        """How many RL steps of an arm there are."""
        return len(self.rl[arm].get("step", ()))

    def trained(self, arm: str) -> bool:
        """Whether an arm's training has come to its end: a stage that is still running has written some steps too."""
        return f"rl-{arm}" in self.stages and self.steps(arm) == self.recipe.rl_of(arm).steps


def load_run(path: Path | str) -> Run:
    """Read one run directory.

    Raises:
        UserError: no such directory, no recipe in it, or a file in it is broken.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such run directory; `psgpo run RECIPE` makes one")
    table = _read_json(path, "recipe.json", advice="put a copy of it back, or make the run anew in another folder")
    if table is None:
        raise UserError(
            f"{path / 'recipe.json'}: missing, so this is not a run directory; `psgpo run RECIPE` makes one"
        )
    recipe = parse_recipe(table, origin=str(path / "recipe.json"), recorded=True)
    stages = {p.stem: _stage(path, p.stem) for p in sorted((path / "stages").glob("*.json"))}
    problems = _problems(path / "problems")
    tests = load_sets(path / "problems")
    test_ids = [name for test in tests.values() for name in test.problems]
    test_ids = test_ids or [name for name, problem in problems.items() if problem.tests]
    policies = ("sft", *recipe.arms)
    evaluations = {name: _evaluation(path, name) for name in policies}
    prms = {name: _prm(path, name) for name in recipe.prm}
    return Run(
        path=path,
        recipe=recipe,
        manifest=_read_json(path, "manifest.json") or {},
        stages=stages,
        strength=_read_json(path, "problems/strength.json", "problems"),
        prompts={name: problem.prompt for name, problem in problems.items()},
        difficulty={name: problem.difficulty for name, problem in problems.items() if problem.difficulty is not None},
        test_problems={name: problems[name].digest for name in test_ids if name in problems},
        sft=_columns(path / "sft" / "metrics.jsonl"),
        rl={arm: _columns(path / "rl" / arm / "metrics.jsonl") for arm in recipe.arms},
        labels=tuple(_read_lines(path / "labels" / "labels.jsonl", LineLabels.from_json)),
        exact=dict(_read_lines(path / "labels" / "exact.jsonl", _exact)),
        label_summary=_read_json(path, "labels/summary.json", "labels"),
        mutant_summary=_read_json(path, "mutants/summary.json", "mutants"),
        tests=tests,
        prm={name: prm for name, prm in prms.items() if prm is not None},
        evaluations={name: evaluation for name, evaluation in evaluations.items() if evaluation is not None},
    )


def response_key(label: LineLabels) -> Key:
    """The key under which a labelled response's exact labels and PRM scores are found."""
    return (label.response.problem_id, label.response.index, label.response.checkpoint)


def number(value: Any) -> float:
    """A JSON value as a float; null, absent and anything that is no number are NaN."""
    return float(value) if isinstance(value, int | float) else math.nan


def _read_json(run: Path, name: str, stage: str = "", *, advice: str = "") -> Json | None:
    """One file of a run; None where it is not there.

    Args:
        stage: the stage that wrote it; empty: it comes back by itself, unless there is other `advice`.
    """
    path = run / name
    if not path.is_file():
        return None
    undo = undo_command(run, stage, path) if stage else "delete it"
    advice = advice or f"{undo}, and run the recipe again"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {advice}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}; {advice}")
    return value


def _read_lines(path: Path, parse: Any) -> list[Any]:
    # A stage may be running while the report is built: its last line can be half written.
    return list(read_jsonl(path, parse, torn_tail_ok=True)) if path.is_file() else []


def _columns(path: Path) -> dict[str, Array]:
    rows: list[Json] = _read_lines(path, dict)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.array([number(row.get(name)) for row in rows]) for name in names}


def _stage(run: Path, stage: str) -> Stage:
    record = _read_json(run, f"stages/{stage}.json") or {}
    return Stage(
        name=str(record.get("stage", stage)),
        seconds=number(record.get("seconds")),
        cpu_seconds=number(record.get("cpu_seconds")),
        peak_memory_mb=number(record.get("peak_memory_mb")),
        taken_from=str(record.get("taken_from") or ""),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """Of a problem, what the report needs. Tests and references stay on disk."""

    prompt: str
    difficulty: int | None
    digest: str
    tests: bool
    """Whether it is among the test problems of a run that has no test sets."""


def _problems(folder: Path) -> dict[str, _Problem]:
    found: dict[str, _Problem] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for name, problem in _read_lines(path, partial(_problem, tests=path.stem == "test")):
            if name not in found or not found[name].tests:  # what a test problem is, no other split says
                found[name] = problem
    return found


def _problem(record: Mapping[str, Any], *, tests: bool) -> tuple[str, _Problem]:
    judged = json.dumps([record["prompt"], record["tests"]], sort_keys=True)
    return str(record["id"]), _Problem(
        prompt=record["prompt"],
        difficulty=record.get("difficulty"),
        digest=hashlib.sha256(judged.encode()).hexdigest()[:16],
        tests=tests,
    )


def _exact(record: Mapping[str, Any]) -> tuple[Key, Exact]:
    exact = Exact(
        last_on_track=record["last_on_track"], lines=record["lines"], progress=tuple(record.get("progress") or ())
    )
    return _key(record), exact


def _key(record: Mapping[str, Any]) -> Key:
    return (str(record["problem_id"]), int(record["index"]), str(record["checkpoint"]))


def _evaluation(run: Path, policy: str) -> Evaluation | None:
    folder = run / "evaluation" / policy
    summary = _read_json(run, f"evaluation/{policy}/summary.json", f"evaluate-{policy}")
    if summary is None:  # written last: without it the samples may be only some of them
        return None
    return Evaluation(policy=policy, summary=summary, samples=tuple(_read_lines(folder / "samples.jsonl", _sample)))


def _sample(record: Mapping[str, Any]) -> Sample:
    return Sample(
        problem_id=record["problem_id"],
        index=record["index"],
        passed=record["verdict"]["status"] == "PASSED",
        greedy=record["greedy"],
        tokens=len(record["token_ids"]),
    )


def _prm(run: Path, name: str) -> PrmRun | None:
    folder = run / "prm" / name
    measure = _read_json(run, f"prm/{name}/measure.json", f"prm-{name}")
    scores = dict(
        _read_lines(folder / "scores.jsonl", lambda record: (_key(record), tuple(number(s) for s in record["scores"])))
    )
    if measure is None and not scores:
        return None
    if measure is not None and "search" not in measure:  # of a PRM that reads text
        error = measure["calibration"]
        measure = {"search": measure | {"calibration": error["fitted"] or error["raw"], "by_position": []}}
    return PrmRun(name=name, measure=measure, metrics=_columns(folder / "metrics.jsonl"), scores=scores)
