"""Twins: labelled programs made of a failed response and a right ending, for a PRM to learn from. Ours.

A PRM sees each mistake in the few programs where the policy made it, and learns the rest of the program with it. Of
every failed response with m* from `splice`, two more programs are made; both are run:

    mended      its good lines and the ending that completes them. It has to pass: every line is good, it is all done
    continued   its lines up to one behind m*, drawn at random, and an ending from there on, as if what is wrong had
                been right. It has to fail: lines are good up to m*, and nothing is done after it

No policy draws anything: about three programs are judged for a failed response, where its label took dozens. The
ending is found again by `LineLabels.done`, which says how long it is; where no ending of that length completes the
good lines, there is no twin. Label files do not hold the programs that proved them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from psgpo.errors import UserError
from psgpo.labeling.collect import Grader, Progress, grade_programs
from psgpo.labeling.search import line_labels
from psgpo.lines import CodeLine, TokenText, code_lines, extract_code, line_end_tokens
from psgpo.records import LineLabels, Problem, Response, Verdict
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # transformers takes a second to load, and a name is all that is needed here
    from transformers import PreTrainedTokenizerBase

MENDED, CONTINUED = "mended", "continued"
GROUP = 256
"""Failed responses whose twins are judged together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """A program made of a failed response."""

    of: LineLabels
    kind: str
    """`MENDED` or `CONTINUED`."""
    program: str
    """Ends with a newline."""
    kept: int
    """How many of its first lines are the response's."""


def response_behind(response: Response) -> tuple[str, int, str]:
    """(problem id, index, checkpoint) of the response that a twin was made of."""
    return response.problem_id, response.index, response.checkpoint.rpartition("/")[0]


def make_twins(
    labels: Sequence[LineLabels],
    problems: Iterable[Problem],
    *,
    tokenizer: PreTrainedTokenizerBase,
    sandbox: Grader,
    seed: int,
    progress: Progress | None = None,
) -> list[LineLabels]:
    """The twins of all failed responses, labelled, in the order of the responses; equal programs of a problem once.

    Their token ids are the tokenizer's of the program, and the checkpoint of a response is followed by `/mended` or
    `/continued` in theirs. What is drawn depends on `seed` and the response alone.

    Args:
        labels: by `splice` with reference solutions; responses without `done` have no twins.
        problems: those of the labels, with their reference solutions.
        sandbox: judges as many programs as there are twins, and a few more.

    Raises:
        UserError: none of the failed responses has a twin; the tokenizer does not give a program back; the grader
            itself failed.
    """
    by_id = {problem.id: problem for problem in problems}
    pools = _pools(labels, by_id)
    failed = [label for label in labels if not label.response.verdict.passed]
    known = [label for label in failed if label.done is not None and not label.guessed and label.line_ends]
    text = TokenText(tokenizer)
    found: dict[tuple[str, str], LineLabels] = {}
    for start in range(0, len(known), GROUP):
        group = known[start : start + GROUP]
        endings = _endings(group, pools, by_id, sandbox)
        twins = [
            twin
            for label, ending in zip(group, endings, strict=True)
            if ending is not None
            for twin in _twins_of(label, ending, seed)
        ]
        verdicts = grade_programs(sandbox, [(twin.program, by_id[twin.of.response.problem_id]) for twin in twins])
        for twin, verdict in zip(twins, verdicts, strict=True):
            if verdict.passed == (twin.kind == MENDED):
                key = (twin.of.response.problem_id, twin.program)
                found.setdefault(key, _labelled(twin, verdict, tokenizer, text))
        if progress is not None:
            progress(start + len(group), len(known))
    if failed and not found:
        raise UserError(
            f"twins: none of {len(failed)} failed responses has a known ending; they are made from labels by "
            "strategy = 'splice' with references = true, of programs that are joined by lines (docs/labels.md)"
        )
    return list(found.values())


def _pools(labels: Sequence[LineLabels], problems: Mapping[str, Problem]) -> dict[str, list[list[CodeLine]]]:
    """Per problem the programs that splicing joined with: the reference solution, and responses that pass."""
    texts: dict[str, dict[str, None]] = {}
    for label in labels:
        problem = problems[label.response.problem_id]
        pool = texts.setdefault(problem.id, {})
        if problem.reference_solution:
            pool.setdefault(problem.reference_solution)
        if label.response.verdict.passed:
            pool.setdefault(extract_code(label.response.text))
    return {name: [list(code_lines(text)) for text in pool] for name, pool in texts.items()}


def _endings(
    labels: Sequence[LineLabels],
    pools: Mapping[str, list[list[CodeLine]]],
    problems: Mapping[str, Problem],
    sandbox: Grader,
) -> list[list[str] | None]:
    """The ending that completes each response's good lines: the first of its length in the pool that passes."""
    items: list[tuple[int, list[str]]] = []
    for number, label in enumerate(labels):
        pool = pools[label.response.problem_id]
        assert label.done is not None
        left = round((1 - label.done) * min((_code_count(program) for program in pool), default=0))
        endings = dict.fromkeys(tuple(_last_lines(program, left)) for program in pool)
        items += [(number, list(ending)) for ending in endings]
    programs = [
        (_joined(label := labels[number], label.last_solvable, ending), problems[label.response.problem_id])
        for number, ending in items
    ]
    verdicts = grade_programs(sandbox, programs)
    found: list[list[str] | None] = [None] * len(labels)
    for (number, ending), verdict in zip(items, verdicts, strict=True):
        if verdict.passed and found[number] is None:
            found[number] = ending
    return found


def _code_count(lines: Sequence[CodeLine]) -> int:
    return sum(not line.neutral for line in lines)


def _last_lines(lines: Sequence[CodeLine], count: int) -> list[str]:
    """The end of a program that holds so many code lines, from a code line on."""
    code = [number for number, line in enumerate(lines) if not line.neutral]
    return [line.text for line in lines[code[len(code) - count] :]] if 0 < count <= len(code) else []


def _joined(label: LineLabels, kept: int, ending: Sequence[str]) -> str:
    lines = [line.text for line in code_lines(label.response.text)[:kept]]
    return "".join(f"{line}\n" for line in (*lines, *ending))


def _twins_of(label: LineLabels, ending: Sequence[str], seed: int) -> list[Twin]:
    """The mended one, and a continued one where there is a wrong line to go on from."""
    last = label.last_solvable
    found = [Twin(of=label, kind=MENDED, program=_joined(label, last, ending), kept=last)]
    lines = code_lines(label.response.text)
    wrong = [number for number, line in enumerate(lines, start=1) if number > last and not line.neutral]
    if wrong and ending:
        response = label.response
        rng = np.random.default_rng(derive_seed(seed, "twin", response.problem_id, response.index, response.checkpoint))
        kept = wrong[int(rng.integers(len(wrong)))]
        # The lines that are wrong stand for some of the ending: from none of it to as many.
        skipped = min(len(ending) - 1, int(rng.integers(kept - last + 1)))
        found.append(Twin(of=label, kind=CONTINUED, program=_joined(label, kept, ending[skipped:]), kept=kept))
    return found


def _labelled(twin: Twin, verdict: Verdict, tokenizer: PreTrainedTokenizerBase, text: TokenText) -> LineLabels:
    """A twin's labels. Nothing stands in them that was not known of the response or found out by running the twin."""
    response = twin.of.response
    ids = tuple(tokenizer(twin.program, add_special_tokens=False)["input_ids"])
    ids = (*ids, int(tokenizer.eos_token_id))
    back, char_ends = text.decode_with_ends(ids)
    if back != twin.program:
        raise UserError(
            f"twins: the tokenizer does not give a program for problem {response.problem_id} back as it was; leave "
            "prm twins out"
        )
    lines = code_lines(twin.program)
    last = len(lines) if twin.kind == MENDED else twin.of.last_solvable
    return replace(
        twin.of,
        response=replace(
            response,
            checkpoint=f"{response.checkpoint}/{twin.kind}",
            token_ids=ids,
            text=twin.program,
            finished=True,
            verdict=verdict,
        ),
        line_ends=line_end_tokens(char_ends, lines),
        labels=line_labels(last, [line.neutral for line in lines]),
        last_solvable=last,
        strategy="twin",
        probes=(),
        completions=0,
        tokens=0,
        executions=1,
        done=1.0 if twin.kind == MENDED else twin.of.done,
    )
