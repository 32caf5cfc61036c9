"""Twins: labelled programs made of a failed response and a right ending, for a PRM to learn from. Ours.

A PRM sees each mistake in the few programs where the policy made it, and learns the rest of the program with it. Of
every failed response with m* from `splice`, two more programs are made; both are run:

    mended      its good lines and the ending that completes them. It has to pass: every line is good, it is all done
    continued   its lines up to one behind m*, drawn at random, and an ending from there on, as if what is wrong had
                been right. It has to fail: lines are good up to m*, and nothing is done after it

No policy draws anything: about two programs are judged for a failed response, where its label took dozens. The
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
from psgpo.labeling.suffixes import DEFINITION, ENDLESS, Reader
from psgpo.lines import CodeLine, TokenText, code_lines, extract_code, line_end_tokens
from psgpo.records import LineLabels, Problem, Response, Verdict
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # transformers takes a second to load, and a name is all that is needed here
    from transformers import PreTrainedTokenizerBase

MENDED, CONTINUED = "mended", "continued"
GROUP = 256
"""Failed responses whose twins are judged together."""
DRAWS = 8
"""How often a continued twin is drawn, at most, until it parses."""
PER_RESPONSE = 1.4
"""Twins for a response that is trained on, about; for estimates of cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """A program made of a failed response."""

    of: LineLabels
    kind: str
    """`MENDED` or `CONTINUED`."""
    program: str
    """Ends with a newline."""
    verdict: Verdict


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
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> list[LineLabels]:
    """The twins of all failed responses, labelled; programs of a problem that are equal, or a response, once.

    Their token ids are the tokenizer's of the program, and the checkpoint of a response is followed by `/mended` or
    `/continued` in theirs. What is drawn depends on `seed`, the response, and the programs of its problem that pass.

    Args:
        labels: by `splice` with reference solutions; responses without `done` have no twins.
        problems: those of the labels, with their reference solutions.
        sandbox: judges as many programs as there are twins, and a few more.
        max_tokens: longer twins are left out, as a policy would not have written them; None: none.

    Raises:
        UserError: none of the failed responses has a twin; the grader itself failed.
    """
    by_id = {problem.id: problem for problem in problems}
    pools = {name: _Pool.of(by_id[name], members) for name, members in _by_problem(labels).items()}
    failed = [label for label in labels if not label.response.verdict.passed]
    known = [label for label in failed if label.done is not None and not label.guessed and label.line_ends]
    text = TokenText(tokenizer)
    found: dict[tuple[str, str], LineLabels] = {}
    for start in range(0, len(known), GROUP):
        group = known[start : start + GROUP]
        for twin in _judged(group, pools, seed, sandbox):
            name = twin.of.response.problem_id
            if twin.program in pools[name].responses:
                continue
            made = _labelled(twin, tokenizer, text)
            if made is None or (max_tokens is not None and len(made.response.token_ids) > max_tokens):
                continue
            before = found.get((name, twin.program))
            if before is None or made.last_solvable > before.last_solvable:  # of two labels the one that proves more
                found[name, twin.program] = made
        if progress is not None:
            progress(start + len(group), len(known))
    if failed and not found:
        raise UserError(
            f"twins: none of {len(failed)} failed responses has one; they are made from labels by strategy = 'splice' "
            "with references = true, of programs that are joined by lines and that the policy's tokenizer gives back "
            "as they were (docs/labels.md)"
        )
    return list(found.values())


def _by_problem(labels: Sequence[LineLabels]) -> dict[str, list[Response]]:
    groups: dict[str, list[Response]] = {}
    for label in labels:
        groups.setdefault(label.response.problem_id, []).append(label.response)
    return groups


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pool:
    """The programs that splicing joined with: the reference solution, and responses that pass."""

    problem: Problem
    programs: list[tuple[CodeLine, ...]]
    reader: Reader
    responses: frozenset[str]
    """What the policy wrote itself."""

    @classmethod
    def of(cls, problem: Problem, responses: Sequence[Response]) -> _Pool:
        passing = [extract_code(response.text) for response in responses if response.verdict.passed]
        texts = dict.fromkeys([problem.reference_solution, *passing] if problem.reference_solution else passing)
        return cls(
            problem=problem,
            programs=[code_lines(text) for text in texts],
            reader=Reader.of(problem, texts),
            responses=frozenset(_program(code_lines(response.text)) for response in responses),
        )

    def endings(self, label: LineLabels) -> list[tuple[str, ...]]:
        """Distinct endings of the length that the label knows.

        Behind a first line of the response none of them defines anything again: that would be to start over.
        """
        assert label.done is not None
        left = round((1 - label.done) * min((_code_count(program) for program in self.programs), default=0))
        endings = dict.fromkeys(_last_lines(program, left) for program in self.programs)
        return [ending for ending in endings if not label.last_solvable or ending == _behind_definitions(ending)]


def _code_count(lines: Sequence[CodeLine]) -> int:
    return sum(not line.neutral for line in lines)


def _last_lines(lines: Sequence[CodeLine], count: int) -> tuple[str, ...]:
    """The end of a program that holds so many code lines, from a code line on."""
    code = [number for number, line in enumerate(lines) if not line.neutral]
    return tuple(line.text for line in lines[code[len(code) - count] :]) if 0 < count <= len(code) else ()


def _behind_definitions(ending: tuple[str, ...]) -> tuple[str, ...]:
    return ending[max((n + 1 for n, line in enumerate(ending) if DEFINITION.match(line)), default=0) :]


def _program(lines: Sequence[CodeLine]) -> str:
    return "".join(f"{line.text}\n" for line in lines)


def _joined(label: LineLabels, kept: int, ending: Sequence[str]) -> str:
    return _program(code_lines(label.response.text)[:kept]) + "".join(f"{line}\n" for line in ending)


def _judged(labels: Sequence[LineLabels], pools: Mapping[str, _Pool], seed: int, sandbox: Grader) -> list[Twin]:
    """The twins that passed or failed as they have to, mended ones first."""

    def grade(items: Sequence[tuple[LineLabels, str]]) -> list[Verdict]:
        return grade_programs(sandbox, [(program, pools[of.response.problem_id].problem) for of, program in items])

    endings = [(label, ending) for label in labels for ending in pools[label.response.problem_id].endings(label)]
    items = [(label, _joined(label, label.last_solvable, ending)) for label, ending in endings]
    mended: list[Twin] = []
    ending_of: list[tuple[LineLabels, tuple[str, ...]]] = []
    for (label, ending), (_, program), verdict in zip(endings, items, grade(items), strict=True):
        if verdict.passed and not (mended and mended[-1].of is label):
            mended.append(Twin(of=label, kind=MENDED, program=program, verdict=verdict))
            ending_of.append((label, ending))
    drawn = [
        (label, going_on)
        for label, ending in ending_of
        if (going_on := _continued(label, ending, pools[label.response.problem_id].reader, seed)) is not None
    ]
    continued = [
        Twin(of=label, kind=CONTINUED, program=program, verdict=verdict)
        for (label, program), verdict in zip(drawn, grade(drawn), strict=True)
        if not verdict.passed and verdict.status not in ENDLESS
    ]
    return mended + continued


def _continued(label: LineLabels, ending: tuple[str, ...], reader: Reader, seed: int) -> str | None:
    """A program that goes on behind a wrong line; None where there is none, or none that parses was drawn."""
    last, response = label.last_solvable, label.response
    lines = code_lines(response.text)
    wrong = [number for number, line in enumerate(lines, start=1) if number > last and not line.neutral]
    ending = _behind_definitions(ending)
    if not wrong or not ending:
        return None
    rng = np.random.default_rng(derive_seed(seed, "twin", response.problem_id, response.index, response.checkpoint))
    for _ in range(DRAWS):
        kept = wrong[int(rng.integers(len(wrong)))]
        # The lines that are wrong stand for some of the ending: from none of it to as many.
        skipped = min(len(ending) - 1, int(rng.integers(kept - last + 1)))
        program = _joined(label, kept, ending[skipped:])
        if reader.readable(program):
            return program
    return None


def _labelled(twin: Twin, tokenizer: PreTrainedTokenizerBase, text: TokenText) -> LineLabels | None:
    """A twin's labels; None where the tokenizer does not give the program back.

    Nothing stands in them that was not known of the response or found out by running the twin.
    """
    ids = (*tokenizer(twin.program, add_special_tokens=False)["input_ids"], int(tokenizer.eos_token_id))
    back, char_ends = text.decode_with_ends(ids)
    if back != twin.program:
        return None
    lines, of, mended = code_lines(twin.program), twin.of, twin.kind == MENDED
    last = len(lines) if mended else of.last_solvable
    assert of.done is not None
    return replace(
        of,
        response=replace(
            of.response,
            checkpoint=f"{of.response.checkpoint}/{twin.kind}",
            token_ids=ids,
            text=twin.program,
            finished=True,
            verdict=twin.verdict,
        ),
        line_ends=line_end_tokens(char_ends, lines),
        labels=line_labels(last, [line.neutral for line in lines]),
        last_solvable=last,
        strategy="twin",
        probes=(),
        completions=0,
        tokens=0,
        executions=1,
        done=1.0 if mended else of.done,
        joined=(min(of.last_solvable, last), of.done) if mended else None,  # blank lines at the end are no lines of it
    )
