"""What there is to show: a run directory, the labels of `psgpo labels make`, or a file of samples. No torch.

Only files are read here. Of a run: the labelled responses of the baseline's (or `labels.of`'s) checkpoints and,
where asked for, the evaluation's samples of a policy. A response that the limit leaves out takes its whole problem with
it, so that those shown of one problem are all there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.exchange.steps import problems_beside
from psgpo.inspect_page.completions import Proofs, folder_completions, place_of, run_completions
from psgpo.jsonl import read_jsonl
from psgpo.problems import load_problems_jsonl
from psgpo.records import LineLabels, Problem, Response
from psgpo.report.commands import run_command
from psgpo.report.load import Exact, Run, load_run, response_key
from psgpo.seeds import is_held_out


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One response to show."""

    response: Response
    label: LineLabels | None = None
    exact: Exact | None = None
    greedy: bool = False
    completions: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Probed line to the ids that the first completion that passed added."""
    stored: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """PRM to the scores that the run wrote; NaN where it could not score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What the page is made from."""

    path: Path
    title: str
    run: Run | None
    """None for a file."""
    problems: Mapping[str, Problem]
    """Of the entries, as far as their file is there."""
    entries: tuple[Entry, ...]
    labelled: tuple[int, int]
    """Labelled responses shown, and how many there are."""
    sampled: tuple[int, int]
    """Samples shown, and how many there are of the policies asked for, or in the file."""
    no_exact: str = "the run keeps those of labelled responses; the oracle is asked about the others without --stored"
    """Why a response of the embedded benchmark may have no exact labels, see `psgpo.inspect_page.exact`."""

    @property
    def embedded(self) -> bool:
        """Whether there is an oracle."""
        return self.run is not None and self.run.recipe.problems.kind == "opchain"

    @property
    def tokenizers(self) -> tuple[Path, ...]:
        """Folders that may hold the tokenizer of the responses."""
        if self.run is None:
            return ()
        return (self.run.path / "sft" / "model", *(self.run.path / "prm" / name / "model" for name in self.run.prm))

    def held_out(self, problem_id: str) -> bool | None:
        """Whether no PRM was trained on the problem; None where no run says."""
        if self.run is None:
            return None
        if any(entry.label is None for entry in self.entries if entry.response.problem_id == problem_id):
            return not any(problem_id in test.trained_on for test in self.run.tests.values())
        return is_held_out(problem_id, self.run.recipe.labels.holdout)


def read_source(
    path: Path,
    *,
    policies: Sequence[str] = (),
    problem_ids: Sequence[str] = (),
    limit: int,
    problems: Path | None = None,
) -> Source:
    """Read a run directory, a folder of `psgpo labels make`, or a file of labels or samples.

    Args:
        policies: `sft` or arms whose evaluation samples are shown too; for runs.
        problem_ids: only these problems; empty for all.
        limit: labelled responses, and evaluation samples, at most (but at least one problem's).
        problems: the problems of a file; None for those beside it.

    Raises:
        UserError: nothing to show, a file is missing or broken, or a policy or problem does not exist.
    """
    if (path / "recipe.json").is_file():
        if problems is not None:
            raise UserError(f"--problems {problems}: {path} is a run, which has its own problems; leave --problems out")
        return _of_run(load_run(path), tuple(dict.fromkeys(policies)), problem_ids, limit)
    if policies:
        raise UserError(f"{path}: not a run directory, so it has no evaluation samples; leave --policy out")
    return _of_file(path, problem_ids, limit, problems)


def _of_run(run: Run, policies: Sequence[str], problem_ids: Sequence[str], limit: int) -> Source:
    proofs = run_completions(run.path / "labels", run.labels, run.recipe.labels.shards)
    holdout = run.recipe.labels.holdout
    labelled = [
        Entry(
            response=label.response,
            label=label,
            exact=run.exact.get(response_key(label)),
            completions=proofs.get(place_of(label.response), {}),
            stored={
                name: prm.scores[key] for name, prm in run.prm.items() if (key := response_key(label)) in prm.scores
            },
        )
        for label in run.labels
    ]
    # Those that the PRMs were not trained on come first: there the scores mean something.
    labelled.sort(key=lambda entry: not is_held_out(entry.response.problem_id, holdout))
    sampled = [entry for policy in policies for entry in _samples(run, policy)]
    shown, more = (_whole_problems(_only(items, problem_ids), limit) for items in (labelled, sampled))
    if not shown and not more:
        wanted = " of these problems" if problem_ids else ""
        mutants = run.recipe.labels.source == "mutation"
        advice = "" if mutants or not run.recipe.prm else f", or make labels with: {run_command(run, until='labels')}"
        raise UserError(
            f"{run.path}: no labelled response{wanted} and no such evaluation sample; choose samples with "
            f"--policy{advice}"
        )
    _refuse_unknown(run.path, (*labelled, *sampled), problem_ids)
    files = {file.stem: file for file in sorted((run.path / "problems").glob("*.jsonl"))}
    wanted_ids = {entry.response.problem_id for entry in [*shown, *more]}
    sides = [name for name, entries in (("label", shown), ("test", more)) if entries and name in files]
    return Source(
        path=run.path,
        title=run.recipe.name,
        run=run,
        problems=_read_problems([files[name] for name in sides], wanted_ids),
        entries=(*shown, *more),
        labelled=(len(shown), len(labelled)),
        sampled=(len(more), len(sampled)),
    )


def _samples(run: Run, policy: str) -> list[Entry]:
    if policy not in run.policies:
        raise UserError(f"--policy {policy}: the run {run.path} has no such policy; it has: {', '.join(run.policies)}")
    if policy not in run.evaluations:
        command = run_command(run, until=f"evaluate-{policy}")
        raise UserError(f"--policy {policy}: not evaluated yet; run: {command}")
    return list(read_jsonl(run.path / "evaluation" / policy / "samples.jsonl", _sample))


def _sample(row: dict[str, Any]) -> Entry:
    known = {key: row[key] for key in Response.__dataclass_fields__ if key in row}
    return Entry(response=Response.from_json(known), greedy=bool(row["greedy"]))


def _of_row(row: dict[str, Any]) -> list[Entry]:
    """What a line of a file holds: a label, all that a search found for a problem, or a sample of an evaluation."""
    if "labels" in row:
        label = LineLabels.from_json(row)
        return [Entry(response=label.response, label=label)]
    if "candidates" in row:
        return [Entry(response=Response.from_json(one["response"])) for one in row["candidates"]]
    if "greedy" in row:
        return [_sample(row)]
    raise ValueError(
        "neither a label (labels), nor a sample of an evaluation (greedy), nor what psgpo rerank search found "
        f"(candidates); its keys are: {', '.join(row)}"
    )


def _of_file(path: Path, problem_ids: Sequence[str], limit: int, problems: Path | None) -> Source:
    file = path / "labels.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{path}: neither a run directory (recipe.json) nor labels of psgpo labels make (labels.jsonl), nor a file "
            "of samples; give one"
        )
    entries = [entry for row in read_jsonl(file, _of_row) for entry in row]
    known = {problem.id: problem for problem in load_problems_jsonl(problems or problems_beside(file))}
    labels = [entry.label for entry in entries if entry.label is not None]
    proofs: Proofs = folder_completions(file.parent, labels, known.values()) if labels else {}
    entries = [replace(entry, completions=proofs.get(place_of(entry.response), {})) for entry in entries]
    shown = _whole_problems(_only(entries, problem_ids), limit)
    if not shown:
        raise UserError(f"{file}: holds no response{' to these problems' if problem_ids else ''}; nothing to show")
    _refuse_unknown(file, entries, problem_ids)
    labelled = sum(entry.label is not None for entry in shown)
    return Source(
        path=file,
        title=file.parent.name or str(file),
        run=None,
        problems=known,
        entries=tuple(shown),
        labelled=(labelled, len(labels)),
        sampled=(len(shown) - labelled, len(entries) - len(labels)),
    )


def _read_problems(files: Iterable[Path], wanted: set[str]) -> dict[str, Problem]:
    """Those of the files that are wanted, by id."""
    problems = [problem for file in files for problem in load_problems_jsonl(file)]
    return {problem.id: problem for problem in problems if problem.id in wanted}


def _only(entries: Sequence[Entry], problem_ids: Sequence[str]) -> list[Entry]:
    return [entry for entry in entries if not problem_ids or entry.response.problem_id in problem_ids]


def _refuse_unknown(path: Path, entries: Sequence[Entry], problem_ids: Sequence[str]) -> None:
    known = {entry.response.problem_id for entry in entries}
    if unknown := [name for name in problem_ids if name not in known]:
        raise UserError(f"--problem {unknown[0]}: {path} has no response to this problem that could be shown")


def _whole_problems(entries: Sequence[Entry], limit: int) -> list[Entry]:
    """Entries of the first problems, as many as the limit holds; of a first one that is too large its first ones."""
    by_problem: dict[str, list[Entry]] = {}
    for entry in entries:
        by_problem.setdefault(entry.response.problem_id, []).append(entry)
    shown: list[Entry] = []
    for group in by_problem.values():
        if len(shown) + len(group) > limit:
            return shown or group[:limit]
        shown += group
    return shown
