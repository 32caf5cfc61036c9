"""`psgpo rerank samples`: choose among responses that are there.

out/
  job.json              digests of samples and problems, and the limits of programs
  scores/NAME.jsonl     what a model said, kept as it comes; NAME.job.json: which model
  outputs.jsonl         what programs returned, kept as it comes
  summary.json          `data`, `methods` (see `curves.measure`), `majority` (why it is left out, or null)
  curves.csv            method, n, tokens, value, low, high
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psgpo.errors import UserError
from psgpo.evaluation.grade import tests_digest
from psgpo.execution import Sandbox
from psgpo.job import check_job
from psgpo.jsonl import write_json
from psgpo.prm.evaluation.journal import digest
from psgpo.records import Problem
from psgpo.rerank.budgets import BEST_OF_N
from psgpo.rerank.curves import LIKELIHOOD, MAJORITY, ORACLE, RANDOM, Drawn, expected_tokens, fewest_of, measure
from psgpo.rerank.evaluated import load_evaluation
from psgpo.rerank.outputs import Evaluator, votes_of, why_no_majority
from psgpo.rerank.samples import SampleSet, load_samples, name_of
from psgpo.rerank.scores import AGGREGATES, Columns, likelihood_columns, open_readers, prm_columns

Json = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""(what, done, total)."""
Named = Sequence[tuple[str, Path]]
"""Models and what the tables call them."""
METHODS = (RANDOM, ORACLE, MAJORITY, *LIKELIHOOD, BEST_OF_N, "beam", "rejection")
"""What the tables of both commands call by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankRequest:
    """What chooses among which responses."""

    samples: Path
    """A file of `load_samples`, or a folder of `load_evaluation`."""
    problems_file: Path
    problems: Mapping[str, Problem]
    """By id, those of the file."""
    out: Path
    prms: Named = ()
    orms: Named = ()
    policy: Path | None = None
    """Folder of the policy that wrote the responses; None for no likelihood."""
    majority: bool = True
    timeout: float = 2.0
    """Wall seconds of a program for all inputs."""
    memory_mb: int = 256
    """Address space of a program, MiB."""
    workers: int = 1
    """Programs side by side."""
    resamples: int = 2000
    """Of problems, behind the intervals."""
    seed: int = 0
    """Of the resamples."""
    device: str = "cpu"


def run_rerank(
    request: RerankRequest,
    *,
    progress: Progress = lambda what, done, total: None,
    sandbox: Callable[[], AbstractContextManager[Evaluator]] | None = None,
) -> Json:
    """Score, let outputs vote, measure, write `summary.json` and `curves.csv`; the same call again goes on.

    Args:
        sandbox: opens what runs programs; None: a `Sandbox` with the request's limits.

    Raises:
        UserError: samples of other problems, too few of them, a folder that is no such model, or `out` holds another
            job.
    """
    load = load_evaluation if request.samples.is_dir() else load_samples
    samples = load(request.samples, request.problems, request.problems_file)
    _refuse_missing_ids(request, samples)
    fewest_of({name: len(group) for name, group in samples.responses.items()})
    readers = open_readers(request.prms, request.orms, request.device)
    check_job(request.out / "job.json", _job(request, samples))
    columns: Columns = {}
    responses = samples.flat()
    for reader in (*readers[0], *readers[1]):
        columns |= prm_columns(reader, responses, request.problems, request.out, progress=_named(progress, reader.name))
    if request.policy is not None:
        columns |= likelihood_columns(
            request.policy,
            responses,
            request.out,
            device=request.device,
            progress=_named(progress, "likelihood"),
            fingerprint_of_ids=samples.tokenizer,
        )
    votes, why_not = _votes(request, samples, progress, sandbox)
    drawn = {
        problem: Drawn(
            passed=np.array([float(r.verdict.passed) for r in group]),
            tokens=np.array([float(samples.drawn.get(name_of(r), len(r.token_ids))) for r in group]),
            scores={method: np.array([column[name_of(r)] for r in group]) for method, column in columns.items()},
            votes=None if votes is None else votes[problem],
        )
        for problem, group in samples.responses.items()
    }
    methods = measure(drawn, orms=[name for name, _ in request.orms], resamples=request.resamples, seed=request.seed)
    summary = {
        "samples": str(request.samples),
        "data": _data(samples, drawn),
        "models": {name: str(folder) for name, folder in (*request.prms, *request.orms)}
        | ({} if request.policy is None else {"likelihood": str(request.policy)}),
        "majority": why_not,
        "methods": methods,
    }
    write_json(request.out / "summary.json", summary)
    write_curves(request.out / "curves.csv", methods, ("n", "tokens"))
    return summary


def write_curves(path: Path, methods: Json, columns: Sequence[str]) -> None:
    """One row per method and point of its curve: `columns`, then value, low, high."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["method", *columns, "value", "low", "high"])
        for method, found in methods.items():
            for point in found["curve"]:
                writer.writerow([method, *(point[column] for column in (*columns, "value", "low", "high"))])


def named_models(given: Sequence[str], option: str) -> list[tuple[str, Path]]:
    """NAME=FOLDER or FOLDER, whose name is that of the folder, or of the one above `model`.

    Raises:
        UserError: no such folder, or no name of a file.

    >>> named_models(["mine=."], "--prm")
    [('mine', PosixPath('.'))]
    """
    found = []
    for text in given:
        name, equals, rest = text.partition("=")
        folder = Path(rest if equals else text)
        if not folder.is_dir():
            raise UserError(
                f"{option} {text}: no such folder; give FOLDER or NAME=FOLDER of a model that psgpo trained"
            )
        if not equals:
            whole = folder.resolve()
            name = whole.parent.name if whole.name == "model" else whole.name
        if not name or not all(letter.isalnum() or letter in "-_." for letter in name):
            raise UserError(f"{option} {text}: {name!r} is no name; letters, digits, '-', '_' and '.' make one")
        found.append((name, folder))
    return found


def refuse_repeated_names(prms: Named, orms: Named) -> None:
    """Two files of scores, or two columns, of one name would be one.

    Raises:
        UserError: a model's name is that of another, or makes a column that another model or a method has.
    """
    files, columns = {"likelihood": "the policy"}, dict.fromkeys(METHODS, "a method")
    for option, models, ends in (("--prm", prms, [f"-{kind}" for kind in AGGREGATES]), ("--orm", orms, [""])):
        for name, folder in models:
            for taken, made in ((files, name), *((columns, f"{name}{end}") for end in ends)):
                if made in taken:
                    raise UserError(
                        f"{option} {folder}: the name {made!r} is taken by {taken[made]}; tell models apart with "
                        "NAME=FOLDER"
                    )
                taken[made] = f"{option} {folder}"


def _refuse_missing_ids(request: RerankRequest, samples: SampleSet) -> None:
    """What was sampled has ids, unless an older `psgpo eval` wrote it."""
    without = next((response for response in samples.flat().values() if not response.token_ids), None)
    if request.policy is not None and without is not None:
        raise UserError(
            f"{request.samples}: sample {without.index} of {without.problem_id} has no token ids, which a likelihood "
            "is of: an older psgpo wrote it. Draw into a new folder with psgpo eval --model, or leave out --policy"
        )


def _votes(
    request: RerankRequest,
    samples: SampleSet,
    progress: Progress,
    sandbox: Callable[[], AbstractContextManager[Evaluator]] | None,
) -> tuple[dict[str, list[int | None]] | None, str | None]:
    """(votes, None), or (None, why there are none)."""
    if not request.majority:
        return None, "not asked for"
    if (why_not := why_no_majority([request.problems[name] for name in samples.responses])) is not None:
        return None, why_not
    limits: Json = {"timeout": request.timeout, "memory_mb": request.memory_mb, "workers": request.workers}
    with sandbox() if sandbox is not None else Sandbox(**limits) as evaluator:
        path = request.out / "outputs.jsonl"
        report = _named(progress, "outputs")
        return votes_of(samples.responses, request.problems, evaluator, path, progress=report), None


def _job(request: RerankRequest, samples: SampleSet) -> Json:
    responses = samples.flat().items()
    chosen = [request.problems[name] for name in samples.responses]
    return {
        "samples": digest([(name, r.text, r.token_ids, r.verdict.passed) for name, r in responses]),
        "problems": digest([(problem.id, problem.prompt, tests_digest(problem.tests)) for problem in chosen]),
        "timeout": request.timeout,
        "memory_mb": request.memory_mb,
    }


def _data(samples: SampleSet, drawn: Mapping[str, Drawn]) -> Json:
    counts = {problem: len(group) for problem, group in samples.responses.items()}
    return {
        "problems": len(counts),
        "responses": sum(counts.values()),
        "fewest": min(counts.values()),
        "fewest_of": min(counts, key=counts.__getitem__),
        "most": max(counts.values()),
        "tokens_per_response": expected_tokens(drawn, 1),
    }


def _named(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
