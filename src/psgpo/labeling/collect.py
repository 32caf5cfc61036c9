"""Responses of a policy: build the prompt, sample, decode, judge. Used by labelling and by evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from psgpo.config import SamplingSettings
from psgpo.errors import RefusedRowsError, UserError
from psgpo.lines import TokenText, code_lines, extract_code
from psgpo.problems.programs import judged_lines, judged_program
from psgpo.prompts import build_prompt_ids
from psgpo.records import Completion, Problem, Response, Status, Tests, Verdict
from psgpo.seeds import derive_seed

if TYPE_CHECKING:  # the sampler's package loads torch; nothing here needs it
    from psgpo.sampling import Sampler

Progress = Callable[[int, int], None]
"""Called with (done, total) after every batch of a long job."""


class Grader(Protocol):
    """The part of `psgpo.execution.Sandbox` that judging needs."""

    def grade(self, items: Sequence[tuple[str, Tests]], /) -> list[Verdict]: ...


class QueueingGrader(Grader, Protocol):
    """A grader that goes on judging while its caller does something else."""

    def submit(self, program: str, tests: Tests, /) -> Future[Verdict]: ...


def grade_programs(grader: Grader, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
    """Judge programs in order; equal programs of one problem are judged once and share their verdict object.

    What is judged is `judged_program`: behind the problem's starter code or preamble, where it has one.

    Raises:
        UserError: the grader itself failed on a program (INFRASTRUCTURE), which is neither a pass nor a fail.
    """
    unique = _distinct(items)
    return _in_order(items, dict(zip(unique, grader.grade(list(unique.values())), strict=True)))


def submit_programs(grader: QueueingGrader, items: Sequence[tuple[str, Problem]]) -> Callable[[], list[Verdict]]:
    """`grade_programs` in two halves: programs are queued now, the call that is returned waits for their verdicts."""
    futures = {key: grader.submit(*item) for key, item in _distinct(items).items()}
    return lambda: _in_order(items, {key: future.result() for key, future in futures.items()})


_ByProgram = tuple[str, str]
"""Problem id, program."""


def _distinct(items: Sequence[tuple[str, Problem]]) -> dict[_ByProgram, tuple[str, Tests]]:
    unique: dict[_ByProgram, tuple[str, Tests]] = {}
    for program, problem in items:
        unique.setdefault((problem.id, program), (judged_program(problem, program), problem.tests))
    return unique


def _in_order(items: Sequence[tuple[str, Problem]], verdicts: Mapping[_ByProgram, Verdict]) -> list[Verdict]:
    for (problem_id, _), verdict in verdicts.items():
        if verdict.status is Status.INFRASTRUCTURE:
            detail = verdict.detail or "no detail"
            raise UserError(f"problem {problem_id}: a program could not be judged ({detail}); run `psgpo doctor`")
    return [verdicts[problem.id, program] for program, problem in items]


def sample_proved(
    sampler: Sampler, prefixes: Sequence[Sequence[int]], **options: Any
) -> tuple[list[Completion | None], dict[int, str]]:
    """`sampler.sample`, but rows whose ids cannot be proved are None, and their reasons come beside.

    Raises:
        UserError: as `sample`, for every other reason.
    """
    try:
        return list(sampler.sample(prefixes, **options)), {}
    except RefusedRowsError as error:
        if not error.unproved:
            raise
        return error.completions, error.refused


def sample_responses(
    sampler: Sampler,
    tokenizer: Any,
    problems: Sequence[Problem],
    sandbox: Grader,
    *,
    checkpoint: str,
    responses_per_problem: int,
    seed: int,
    prompt_template: str | Callable[[Problem], tuple[int, ...]],
    settings: SamplingSettings,
    greedy: bool = False,
    progress: Progress | None = None,
    refused: Callable[[str, int, str], None] | None = None,
) -> list[Response]:
    """Sample and judge responses, problem by problem, index by index.

    The random numbers of a response depend on (seed, checkpoint, problem, index) alone, so more responses per problem
    extend the earlier ones.

    Args:
        sampler: the policy.
        checkpoint: the policy's name, written into every response.
        responses_per_problem: how many of each.
        prompt_template: see `build_prompt_ids`; or what gives the ids of a problem's prompt.
        settings: temperature, top_p and max_new_tokens; batch_size sets how often `progress` is called.
        greedy: take the likeliest token each time, whatever the temperature.
        progress: called with (responses judged, responses in all).
        refused: called with (problem id, index, reason) of every reply whose ids cannot be proved, which is then left
            out; None ends the sampling there.

    Raises:
        UserError: the sandbox could not judge a program, or the sampler refuses.
    """
    token_text = TokenText(tokenizer)
    if isinstance(prompt_template, str):
        prompts = [build_prompt_ids(tokenizer, prompt_template, problem) for problem in problems]
    else:
        prompts = [prompt_template(problem) for problem in problems]
    rows = [(number, index) for number in range(len(problems)) for index in range(responses_per_problem)]
    responses: list[Response] = []
    chunk = 4 * settings.batch_size
    for start in range(0, len(rows), chunk):
        batch = rows[start : start + chunk]
        prefixes = [prompts[number] for number, _ in batch]
        options: dict[str, Any] = {
            "seeds": [derive_seed(seed, "response", checkpoint, problems[number].id, index) for number, index in batch],
            "temperature": 0.0 if greedy else settings.temperature,
            "top_p": settings.top_p,
            "max_new_tokens": settings.max_new_tokens,
        }
        completions: list[Completion | None]
        if refused is None:
            completions = list(sampler.sample(prefixes, **options))
        else:
            completions, reasons = sample_proved(sampler, prefixes, **options)
            for row, reason in reasons.items():
                refused(problems[batch[row][0]].id, batch[row][1], reason)
        batch = [place for place, completion in zip(batch, completions, strict=True) if completion is not None]
        proved = [completion for completion in completions if completion is not None]
        texts = [token_text.decode(completion.token_ids) for completion in proved]
        programs = [(extract_code(text), problems[number]) for text, (number, _) in zip(texts, batch, strict=True)]
        verdicts = grade_programs(sandbox, programs)
        for (number, index), completion, text, verdict in zip(batch, proved, texts, verdicts, strict=True):
            responses.append(
                Response(
                    problem_id=problems[number].id,
                    index=index,
                    checkpoint=checkpoint,
                    token_ids=tuple(completion.token_ids),
                    text=text,
                    finished=completion.finished,
                    verdict=verdict,
                    prompt_ids=prompts[number],
                )
            )
        if progress is not None:
            progress(min(start + chunk, len(rows)), len(rows))
    return responses


def cut_at_function_end(response: Response, problem: Problem, text: TokenText) -> Response:
    """A response that continues the starter code, without what a base model goes on writing after the function.

    That text is not judged (`judged_lines`), so its lines have no label. The cut falls behind the token that ends the
    last judged line. A response whose ids are those of another text is left to `cut_response`, which names it.
    """
    judged = judged_lines(problem, response.text)
    if not judged or len(judged) == len(code_lines(response.text)):
        return response
    decoded, ends = text.decode_with_ends(response.token_ids)
    if decoded != response.text:
        return response
    kept = next(number for number, at in enumerate(ends, start=1) if at >= judged[-1].end)
    ids = response.token_ids[:kept]
    return replace(response, token_ids=ids, text=text.decode(ids), finished=False)
