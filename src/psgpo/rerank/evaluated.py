"""What `psgpo eval --model` drew and graded, as responses to choose from. No torch.

Its folder holds the answers (samples.jsonl, see `psgpo.evaluation.draw`) apart from the verdicts (results.jsonl). Each
row of verdicts carries the hash of the program and tests that it is about, so that nothing else is chosen by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psgpo.errors import UserError
from psgpo.evaluation.grade import program_digest, tests_digest
from psgpo.jsonl import read_jsonl
from psgpo.lines import extract_code
from psgpo.problems.programs import answered_code, judged_program, program_of
from psgpo.records import Problem, Response, Status, Verdict
from psgpo.rerank.samples import SampleSet, name_of, refuse_missing

Json = dict[str, Any]
CHECKPOINT = "eval"
"""Name of the policy, of which the rows say nothing."""


def load_evaluation(folder: Path, problems: Mapping[str, Problem], problems_file: Path) -> SampleSet:
    """The samples of `psgpo eval --model --out folder` with their verdicts.

    A response is read (by PRMs, by the majority) as the model wrote it. Where evaluation graded another part of it
    than its first fenced block, which is where a response's code is elsewhere, that part alone is the response; a part
    with a fence of its own, as in a docstring, in a fence that it does not close.

    Raises:
        UserError: no such folder, an evaluation that is not finished, other problems or tests than it was graded on,
            or more of them, or a program that no fence can hold.
    """
    reader = _Reader(problems, problems_file, _verdicts(folder))
    groups: dict[str, list[Response]] = {}
    for response in read_jsonl(folder / "samples.jsonl", reader.response):
        groups.setdefault(response.problem_id, []).append(response)
    if not groups:
        raise UserError(f"{folder / 'samples.jsonl'}: holds no sample; run psgpo eval --model again")
    refuse_missing(folder / "samples.jsonl", groups, problems, problems_file)
    return SampleSet(
        responses={name: groups[name] for name in problems},
        drawn=reader.drawn,
        tokenizer=reader.tokenizer,
    )


def _verdicts(folder: Path) -> dict[tuple[str, int], Json]:
    """Rows of results.jsonl by task and index."""
    if not (folder / "samples.jsonl").is_file():
        raise UserError(
            f"{folder}: holds no samples.jsonl; give the folder of psgpo eval --model, which draws its samples, or "
            "the samples.jsonl of a run"
        )
    if not (folder / "results.jsonl").is_file():
        raise UserError(
            f"{folder}: its samples are not graded yet; run the same psgpo eval again, or of a run give samples.jsonl "
            "itself"
        )
    return {(row["task_id"], row["index"]): row for row in read_jsonl(folder / "results.jsonl", _place)}


def _place(row: Json) -> Json:
    if not {"task_id", "index", "sha256"} <= row.keys():
        raise ValueError("no row of psgpo eval; delete this line and run the same psgpo eval again")
    return row


class _Reader:
    """Rows of samples to responses."""

    def __init__(
        self, problems: Mapping[str, Problem], problems_file: Path, verdicts: Mapping[tuple[str, int], Json]
    ) -> None:
        self.drawn: dict[str, int] = {}
        self.tokenizer = ""
        self._problems, self._file, self._verdicts = problems, problems_file, verdicts
        self._counts: Counter[str] = Counter()
        self._tests: dict[str, str] = {}

    def response(self, row: Json) -> Response:
        """
        Raises:
            ValueError, KeyError: no row of `psgpo eval --model`, or not what was graded.
        """
        name = row["task_id"]
        index, self._counts[name] = self._counts[name], self._counts[name] + 1
        problem = self._problems.get(name)
        if problem is None:
            raise ValueError(
                f"task {name!r} is unknown: these samples are of other problems than {self._file}; give the benchmark, "
                "data file and filters of the evaluation"
            )
        graded = self._verdicts.get((name, index))
        if graded is None:
            raise ValueError(f"sample {index} of {name} has no verdict yet; run the same psgpo eval again")
        answer = {form: row[form] for form in ("completion", "solution") if row.get(form) is not None}
        program = program_of(problem, **answer)
        if problem.id not in self._tests:
            self._tests[problem.id] = tests_digest(problem.tests)
        if program_digest(problem.id, self._tests[problem.id], program) != graded["sha256"]:
            raise ValueError(
                f"sample {index} of {name} was graded as another program, or by other tests than {self._file} has; "
                "give the benchmark and data file of the evaluation"
            )
        (text,) = answer.values()
        if judged_program(problem, extract_code(text)) != program:
            text = _read_as(answered_code(problem, **answer), f"sample {index} of {name}")
        self._same_tokenizer(row)
        response = Response(
            problem_id=name,
            index=index,
            checkpoint=CHECKPOINT,
            token_ids=tuple(row.get("token_ids", ())),
            text=text,
            finished=row["finished"],
            verdict=_verdict(graded),
            prompt_ids=tuple(row.get("prompt_ids", ())),
        )
        self.drawn[name_of(response)] = row["tokens"]
        return response

    def _same_tokenizer(self, row: Json) -> None:
        found = row.get("tokenizer", "")
        if found and self.tokenizer not in ("", found):
            raise ValueError("token ids of another tokenizer than on the lines before; delete the folder and draw anew")
        self.tokenizer = self.tokenizer or found


def _read_as(code: str, sample: str) -> str:
    """A response whose code is `code`: itself, unless it has a fence of its own, as in a docstring; then fenced anew.

    Raises:
        ValueError: lines of it close either kind of fence.
    """
    if extract_code(code) == code:
        return code
    ended = code if code.endswith("\n") else f"{code}\n"
    for fence in ("~~~", "```"):
        text = f"{fence}python\n{ended}{fence}\n"
        if extract_code(text) == ended:
            return text
    raise ValueError(
        f"{sample}: its program holds lines of ``` and of ~~~, so no fenced block can hold it and another program than "
        "the graded one would be read; delete the rows of this task and leave it out of --problems"
    )


def _verdict(row: Json) -> Verdict:
    return Verdict(
        status=Status(row["status"]),
        tests_passed=row["tests_passed"],
        tests_total=row["tests_total"],
        first_failing=row["first_failing"],
        mode=row["mode"],
        detail=row["detail"],
        cpu_seconds=row["cpu_seconds"],
        wall_seconds=row["seconds"],
        confinement=row["confinement"],
    )
