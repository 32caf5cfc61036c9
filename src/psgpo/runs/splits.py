"""Problems that are not made but given: files of one's own and public benchmarks, and what is trained and tested on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psgpo.config import BenchmarkSource, JsonlSource, Recipe, SftSettings, TaskRange
from psgpo.errors import UserError
from psgpo.evaluation.sets import EvalSet, load_sets
from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl
from psgpo.problems import load_problems_jsonl
from psgpo.problems.benchmarks import Evaluate, load_benchmark
from psgpo.problems.programs import plain_prompt
from psgpo.records import Problem

_BY_REFERENCE = ("humanevalplus", "mbppplus")
"""Benchmarks whose expected values are made by running reference solutions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """Problems of public benchmarks, by what they are for."""

    splits: dict[str, list[Problem]]
    """sft, train, label, test (all test sets together) and, where the recipe names it, plus."""
    tests: dict[str, EvalSet]


def refuse_without_references(problems: Sequence[Problem], name: str, settings: SftSettings) -> None:
    """
    Raises:
        UserError: `settings` want to fine-tune and no problem has a solution; `name` says whose they are.
    """
    if settings.examples and not any(problem.reference_solution for problem in problems):
        raise UserError(
            f"{name}: no problem has a reference_solution to fine-tune on; add some or set sft.examples = 0"
        )


def load_splits(source: JsonlSource) -> dict[str, list[Problem]]:
    """Problems of `train`, `label`, `test` and, where there is one, `validation`.

    Raises:
        UserError: a file is missing or malformed, or a test problem is trained on.
    """
    files = {"train": source.train, "label": source.label or source.train, "test": source.test}
    if source.validation is not None:
        files["validation"] = source.validation
    loaded = {split: load_problems_jsonl(path) for split, path in files.items()}
    _refuse_overlap(loaded, files)
    return loaded


def load_tasks(recipe: Recipe) -> Tasks:
    """The problems of a recipe on public benchmarks, each with its plain text as prompt.

    Raises:
        UserError: a benchmark cannot be had, a range is empty, two test sets share a problem, or a test problem is
            trained on and the recipe does not say that this shall be reported.
    """
    source = recipe.problems
    assert isinstance(source, BenchmarkSource)
    sft = source.sft or source.train
    label = source.label or (sft if recipe.labels.source == "mutation" else source.train)
    wanted = {"sft": sft, "train": source.train, "label": label}
    if source.plus is not None:
        wanted["plus"] = TaskRange(benchmark=source.plus, ids=label.ids)
    ranges = [*wanted.values(), *source.test.values()]
    if any(tasks.benchmark in _BY_REFERENCE for tasks in ranges):
        allow = recipe.sandbox.allow_unconfined
        with Sandbox(timeout=60.0, memory_mb=1024, allow_unconfined=allow) as references:
            return _tasks(recipe, wanted, references.evaluate_many)
    return _tasks(recipe, wanted, None)


def refuse_new_training(recipe: Recipe) -> None:
    """Look at a run on public benchmarks that has its problems, before a recipe with PRMs goes on with it.

    A run without PRMs trains on nothing that is labelled, so its test sets count those problems as clean.

    Raises:
        UserError: that would no longer be true.
    """
    source = recipe.problems
    if not isinstance(source, BenchmarkSource) or not recipe.prm or not _receipt(recipe, "problems").is_file():
        return
    folder = recipe.out / "problems"
    labelled, tested = (list(read_jsonl(folder / f"{split}.jsonl", _names)) for split in ("label", "test"))
    spoilt = _among(tested, labelled)
    for name, test in load_sets(folder).items():
        new = spoilt & test.part("clean")
        if not new:
            continue
        said = f"{recipe.out}: {len(new)} of {len(test.problems)} problems of problems.test.{name} ({min(new)})"
        if source.test_trained == "refuse":
            raise UserError(
                f"{said} are labelled, so the PRM that is added would be trained on them; give another out folder "
                "(--set out=...) and there other problems.label, or problems.test_trained = 'report'"
            )
        receipts = [_receipt(recipe, "problems"), *sorted((recipe.out / "stages").glob("evaluate-*.json"))]
        raise UserError(
            f"{said} count as clean, and the PRM that is added is trained on them; have them counted again (nothing "
            f"is drawn anew): {shlex.join(['rm', *map(str, receipts)])}, and run the recipe again"
        )


def _has_prms(run: Path) -> bool:
    """Whether the run's own recipe, which keeps what other recipes added, has PRMs."""
    file = run / "recipe.json"
    return file.is_file() and bool(json.loads(file.read_text(encoding="utf-8")).get("prm"))


def _receipt(recipe: Recipe, stage: str) -> Path:
    return recipe.out / "stages" / f"{stage}.json"


def trained_on(tested: Sequence[Problem], trained: Iterable[Problem]) -> frozenset[str]:
    """Ids of the tested problems that are among the trained ones, by id or by the same prompt."""
    return _among([(p.id, p.prompt) for p in tested], [(p.id, p.prompt) for p in trained])


def _among(tested: Iterable[tuple[str, str]], trained: Iterable[tuple[str, str]]) -> frozenset[str]:
    """`trained_on` of (id, prompt)."""
    seen = {pair for name, prompt in trained for pair in (("id", name), ("prompt", prompt))}
    return frozenset(name for name, prompt in tested if ("id", name) in seen or ("prompt", prompt) in seen)


def _names(record: dict[str, Any]) -> tuple[str, str]:
    return record["id"], record["prompt"]


def _tasks(recipe: Recipe, wanted: dict[str, TaskRange], evaluate: Evaluate | None) -> Tasks:
    source = recipe.problems
    assert isinstance(source, BenchmarkSource)
    splits = {name: _loaded(source, tasks, evaluate) for name, tasks in wanted.items()}
    tested = {name: _loaded(source, tasks, evaluate) for name, tasks in source.test.items()}
    # Without examples SFT learns nothing, and nothing but a PRM learns from labels: one of this recipe, or of another
    # that the run was made with too.
    learned = {"train": True, "sft": recipe.sft.examples > 0, "label": bool(recipe.prm) or _has_prms(recipe.out)}
    trained = [problem for name, there in learned.items() if there for problem in splits[name]]
    tests = {
        name: EvalSet(problems=tuple(problem.id for problem in problems), trained_on=trained_on(problems, trained))
        for name, problems in tested.items()
    }
    _refuse_shared(tests)
    for name, test in tests.items():
        if test.trained_on and source.test_trained == "refuse":
            raise UserError(
                f"problems.test.{name}: {len(test.trained_on)} of {len(test.problems)} problems are trained on too "
                f"({min(test.trained_on)}); test on others, or set problems.test_trained = 'report' to have every "
                "number twice, with and without them"
            )
    return Tasks(splits=splits | {"test": [p for problems in tested.values() for p in problems]}, tests=tests)


def _loaded(source: BenchmarkSource, tasks: TaskRange, evaluate: Evaluate | None) -> list[Problem]:
    name = tasks.benchmark
    problems = load_benchmark(
        name, source.data.get(name), evaluate=evaluate, ids=tasks.ids, data_key=f"problems.data.{name}"
    )
    return [replace(problem, prompt=plain_prompt(problem)) for problem in problems]


def _refuse_shared(tests: dict[str, EvalSet]) -> None:
    """Raise `UserError` when two test sets have a problem in common: its responses would count in both."""
    owner: dict[str, str] = {}
    for name, test in tests.items():
        for problem in test.problems:
            if owner.setdefault(problem, name) != name:
                raise UserError(
                    f"problems.test: {problem} is in {owner[problem]!r} and in {name!r}; give each problem to one set"
                )


def _refuse_overlap(problems: dict[str, list[Problem]], files: dict[str, Path]) -> None:
    """Raise `UserError` when a test problem is also trained on."""
    for key in ("id", "prompt"):
        tested = {getattr(problem, key) for problem in problems["test"]}
        for split in ("train", "label"):
            both = tested & {getattr(problem, key) for problem in problems[split]}
            if both:
                raise UserError(
                    f"{files['test']}: {len(both)} problem(s) are in {files[split]} too (same {key}: "
                    f"{min(both)[:60]!r}); test on problems that nothing is trained on"
                )
