"""`psgpo mutate`: problems in, labelled programs out. Resumable: the journal gets one line per problem, in order.

The folder:

    job.json         what was asked; another job is refused
    journal.jsonl    one line per problem: its reference, its tests, every proposal and what came of it
    programs.jsonl   one line per labelled program (`labelled.LabelledProgram`)
    orm.jsonl        one line per whole program: prompt, code, label
    summary.json     counts

The last three follow from the journal alone, whatever the number of workers and however often the run was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from psgpo.errors import UserError
from psgpo.job import check_job
from psgpo.jsonl import JsonlAppender, read_jsonl, write_json, write_jsonl
from psgpo.mutation.candidates import Teacher
from psgpo.mutation.examples import line_examples
from psgpo.mutation.labelled import AFTER, After, LabelledProgram, line_labels, text_lines
from psgpo.mutation.strengthen import Grader
from psgpo.mutation.summary import summarise
from psgpo.mutation.verify import NEGATIVE, POSITIVE, TIMEOUT, judge_batch
from psgpo.problems.programs import plain_prompt
from psgpo.records import Json, Problem

BATCH = 16
"""Problems judged together."""
FORMAT = 2
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What decides the proposals and their judgement."""

    seed: int = 0
    generated: int = 200
    """Inputs made for each problem, on top of known ones."""
    timeout: float = 2.0
    """Seconds for one stage of tests of one program."""
    memory_mb: int = 512

    def __post_init__(self) -> None:
        if self.generated < 0:
            raise UserError(f"generated inputs: {self.generated} is negative; give 0 for none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelling:
    """How labels follow from verdicts. Another choice needs no new run: the same command writes the files anew."""

    after: After = "unlabelled"
    """Label of lines after a planted bug, see `psgpo.mutation.labelled`."""
    timeouts: str = "drop"
    """`drop` programs that ran out of time, or count them as `negative`."""
    survivors: str = "positive"
    """Planted bugs that pass every test: `positive`, as the paper has it, or `drop`."""

    def __post_init__(self) -> None:
        for name, allowed in (("after", AFTER), ("timeouts", ("drop", NEGATIVE)), ("survivors", (POSITIVE, "drop"))):
            if getattr(self, name) not in allowed:
                raise UserError(f"--{name} {getattr(self, name)!r}: choose one of {', '.join(allowed)}")


def run_mutation(
    problems: Sequence[Problem],
    teachers: Sequence[Teacher],
    grader: Grader,
    out: Path,
    *,
    plus: Mapping[str, Problem] | None = None,
    settings: Settings | None = None,
    labelling: Labelling | None = None,
    progress: Progress = lambda done, total: None,
) -> Json:
    """Make everything in `out` and return the summary. Goes on where an earlier run stopped.

    Raises:
        UserError: no problem has a reference solution; `out` holds another job; no reference passes its tests.
    """
    settings, labelling, plus = settings or Settings(), labelling or Labelling(), plus or {}
    if not any(problem.reference_solution for problem in problems):
        raise UserError(
            "none of the problems has a reference solution, and mutants are made from those; give problems with "
            "'reference_solution', or label responses of a model instead (psgpo labels make)"
        )
    check_job(out / "job.json", _job(problems, teachers, plus, settings))
    journal = out / "journal.jsonl"
    with JsonlAppender(journal) as appender:
        done = [record["problem_id"] for record in read_jsonl(journal, dict)]
        if done != [problem.id for problem in problems[: len(done)]]:
            raise UserError(f"{journal}: does not belong to these problems; delete {out} or choose another --out")
        progress(len(done), len(problems))
        for start in range(len(done), len(problems), BATCH):
            batch = problems[start : start + BATCH]
            works = judge_batch(
                batch,
                teachers,
                grader,
                plus=plus,
                generated=settings.generated,
                seed=settings.seed,
                timeout=settings.timeout,
            )
            appender.append(*(work.to_json(plain_prompt(work.problem)) for work in works))
            progress(start + len(batch), len(problems))
    return export(out, labelling)


def export(out: Path, labelling: Labelling) -> Json:
    """Write programs, whole-program labels and summary from the journal.

    Raises:
        UserError: there is no journal, or every problem was skipped.
    """
    records = list(read_jsonl(out / "journal.jsonl", dict))
    programs = [program for record in records for program in labelled_programs(record, labelling)]
    if not programs:
        reasons = [f"{record['problem_id']}: {record['skipped']}" for record in records if record["skipped"]]
        raise UserError(f"{out}: every problem was skipped; the first: {reasons[0] if reasons else 'none'}")
    write_jsonl(out / "programs.jsonl", (program.to_json() for program in programs))
    write_jsonl(out / "orm.jsonl", (_whole(program) for program in programs))
    summary = summarise(records, programs, line_examples(programs)) | {"labelling": asdict(labelling)}
    write_json(out / "summary.json", summary)
    return summary


def labelled_programs(record: Mapping[str, object], labelling: Labelling) -> Iterator[LabelledProgram]:
    """The labelled programs of one line of the journal, its reference first."""
    if record["skipped"]:
        return
    reference = str(record["reference"])
    given = record["given_lines"]
    common = {"problem_id": str(record["problem_id"]), "prompt": str(record["prompt"])}
    assert isinstance(given, int)
    yield LabelledProgram(
        **common,
        id=f"{common['problem_id']}#reference",
        code=reference,
        lines=tuple(text_lines(reference)),
        labels=tuple(line_labels(reference, mutated_line=None, passed=True, after=labelling.after, given_lines=given)),
        mutated_line=None,
        reference_line=None,
        in_place=False,
        family="reference",
        kind="reference",
        operator="reference",
        teacher="reference",
        verdict="pass",
        status="PASSED",
        decided_by="",
    )
    old = text_lines(reference)
    candidates = record["candidates"]
    assert isinstance(candidates, list)
    for number, entry in enumerate(candidates):
        if not _is_wanted(entry, labelling):
            continue
        passed, code, mutated = entry["outcome"] == POSITIVE, entry["code"], entry["mutated_line"]
        labels = line_labels(code, mutated_line=mutated, passed=passed, after=labelling.after, given_lines=given)
        yield LabelledProgram(
            **common,
            id=f"{common['problem_id']}#{number}",
            code=code,
            lines=tuple(text_lines(code)),
            labels=tuple(labels),
            mutated_line=mutated,
            reference_line=old[mutated - 1] if mutated <= len(old) else None,
            in_place=entry["in_place"],
            family=entry["family"],
            kind=entry["kind"],
            operator=entry["operator"],
            teacher=entry["teacher"],
            verdict="pass" if passed else "fail",
            status=entry["status"],
            decided_by=entry["decided_by"],
        )


def _is_wanted(entry: Mapping[str, object], labelling: Labelling) -> bool:
    if entry["outcome"] == POSITIVE:
        return entry["family"] != "bug" or labelling.survivors == POSITIVE
    if entry["outcome"] == TIMEOUT:
        return labelling.timeouts == NEGATIVE
    return entry["outcome"] == NEGATIVE


def _whole(program: LabelledProgram) -> Json:
    label = 1 if program.verdict == "pass" else -1
    kept = ("id", "problem_id", "prompt", "code", "family", "kind", "operator", "teacher", "status")
    return {name: getattr(program, name) for name in kept} | {"label": label}


def _job(
    problems: Sequence[Problem], teachers: Sequence[Teacher], plus: Mapping[str, Problem], settings: Settings
) -> Json:
    from hashlib import sha256

    def digest(items: Sequence[Problem]) -> str:
        return sha256("\n".join(json.dumps(item.to_json(), sort_keys=True) for item in items).encode()).hexdigest()[:16]

    return {
        "format": FORMAT,
        "problems": {"count": len(problems), "digest": digest(problems)},
        "plus": {"count": len(plus), "digest": digest(list(plus.values()))},
        "teachers": {teacher.name: teacher.settings() for teacher in teachers},
        "settings": asdict(settings),
    }
