"""Evaluating a policy: sample, judge, summarise.

`out_dir/samples.jsonl`, one row per response, appended as it goes: `Response.to_json()` plus

    greedy         true for the one greedy response of a problem (its index is 0 too)
    difficulty     Problem.difficulty
    lines          code lines, neutral ones included
    comment_lines  neutral lines among them (comment, blank, docstring)

`out_dir/job.json`: what was asked for, with fingerprints of the policy's folder (`model`) and of the problems' prompts
and tests (`tasks`); samples of another job are refused. `out_dir/summary.json`, written last:

    policy, checkpoint    folder of the policy; name written into the responses
    problems, samples     how many problems; responses drawn per problem, n
    seed, temperature, top_p, max_new_tokens
    pass_at_1             estimate: mean over problems of c/n
    pass_at_k             list of {"k", estimate} for k = 1..n
    greedy                estimate of the greedy pass rate; null when not asked for
    by_difficulty         list of {"difficulty", "pass_at_1": estimate, "pass_at_n": estimate}
    by_tokens             list of {"from" (excluded), "to", "responses", "share", "pass_rate": estimate}, length of the
                          response in tokens; empty buckets are left out
    mean_tokens, mean_lines, comment_ratio      estimates over the n sampled responses; comment_ratio = neutral lines /
                                                lines
    finished              share of sampled responses that ended by themselves
    statuses              {status: count} of the sampled responses
    seconds, drawn        wall time of the call that finished, and how many responses that call drew

Where the problems are test sets with names (`psgpo.evaluation.sets`), there is no number over all of them: `problems`,
`samples` and everything from `pass_at_1` to `statuses` stand inside of

    tests                 {name of the set: {"trained_on": count, "all": {...}, "clean": {...} or null}}

An *estimate* is {"value", "low", "high", "count"}: 95 % percentile bootstrap over problems, `count` problems. It covers
the choice of problems and the sampling, not the training seed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from psgpo.config import EvaluationSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.evaluation.grade import tests_digest
from psgpo.evaluation.sets import EvalSet
from psgpo.evaluation.summary import summarise, summarise_tests
from psgpo.job import check_job
from psgpo.jsonl import JsonlAppender, read_jsonl, write_json, write_jsonl
from psgpo.labeling.collect import Grader, sample_responses
from psgpo.labeling.identity import folder_fingerprint
from psgpo.lines import code_lines
from psgpo.records import Problem, Response
from psgpo.sampling import Sampler, open_sampler

Json = dict[str, Any]


def evaluate_policy(
    policy_dir: Path | str,
    problems: Sequence[Problem],
    sandbox: Grader,
    settings: EvaluationSettings,
    sampling: SamplingSettings,
    out_dir: Path | str,
    *,
    prompt_template: str,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    open_policy: Callable[[], AbstractContextManager[tuple[Sampler, PreTrainedTokenizerBase]]] | None = None,
    tests: Mapping[str, EvalSet] | None = None,
) -> Json:
    """Draw `settings.samples` responses per problem (and a greedy one), judge them, write and return the summary.

    An interrupted evaluation goes on: problems whose responses are all in `samples.jsonl` are not drawn again. The
    random numbers of a response depend on seed, policy name (the name of `out_dir`), problem and index alone.

    Args:
        policy_dir: a folder with a causal language model or an encoder–decoder, and its tokenizer.
        sampling: top_p, max_new_tokens and batch_size; the temperature is `settings.temperature`.
        progress: called with (responses judged, responses in all).
        open_policy: opens what draws, with its tokenizer, where something is to be drawn; None: a `HFSampler` of the
            folder, on `device`.
        tests: the test sets that the problems are; None or empty: they are one, and nothing was trained on it.

    Raises:
        UserError: no problems, two problems with one id, a broken policy folder, or samples of another evaluation.
    """
    started = time.perf_counter()
    out = Path(out_dir)
    drawn_settings = sampling.model_copy(update={"temperature": settings.temperature})
    job, samples = _job(policy_dir, problems, settings, drawn_settings, prompt_template, seed), out / "samples.jsonl"
    check_job(out / "job.json", job, results=samples, later=("model", "tasks"))
    rows = _kept_rows(samples, problems, settings)
    total = len(problems) * (settings.samples + settings.greedy)
    drawn = total - len(rows)
    if drawn:
        opened = open_policy() if open_policy else nullcontext(_own_sampler(policy_dir, sampling, device))
        given: Json = {"sandbox": sandbox, "checkpoint": out.name, "seed": seed, "prompt_template": prompt_template}
        with opened as (sampler, tokenizer), JsonlAppender(samples) as stream:
            draw = functools.partial(sample_responses, sampler, tokenizer, **given)
            for new in _missing_rows(draw, problems, rows, settings, drawn_settings):
                stream.append(*new)
                rows += new
                if progress:
                    progress(len(rows), total)
    options = {"resamples": settings.bootstrap, "seed": seed}
    summary = {
        "policy": str(policy_dir),
        "checkpoint": out.name,
        "seed": seed,
        "temperature": settings.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_new_tokens,
        **(summarise_tests(rows, tests, **options) if tests else summarise(rows, **options)),
        "seconds": round(time.perf_counter() - started, 3),
        "drawn": drawn,
    }
    write_json(out / "summary.json", summary)
    return summary


def _own_sampler(
    policy_dir: Path | str, sampling: SamplingSettings, device: str
) -> tuple[Sampler, PreTrainedTokenizerBase]:
    return open_sampler(f"hf:{policy_dir}", device=device, batch_size=sampling.batch_size)


def _missing_rows(
    draw: Callable[..., list[Response]],
    problems: Sequence[Problem],
    rows: Sequence[Json],
    settings: EvaluationSettings,
    sampling: SamplingSettings,
) -> Iterator[list[Json]]:
    """Rows still to be drawn, whole problems at a time, as many as keep the sampler's batches full."""
    done = {(row["problem_id"], row["greedy"]) for row in rows}
    difficulty = {problem.id: problem.difficulty for problem in problems}
    for greedy in (False, True) if settings.greedy else (False,):
        count = 1 if greedy else settings.samples
        missing = [problem for problem in problems if (problem.id, greedy) not in done]
        size = max(1, 4 * sampling.batch_size // count)
        for start in range(0, len(missing), size):
            responses = draw(
                problems=missing[start : start + size],
                responses_per_problem=count,
                settings=sampling,
                greedy=greedy,
            )
            yield [sample_row(response, difficulty[response.problem_id], greedy=greedy) for response in responses]


def sample_row(response: Response, difficulty: int | None, *, greedy: bool) -> Json:
    """One row of `samples.jsonl`."""
    lines = code_lines(response.text)
    counts = {"lines": len(lines), "comment_lines": sum(line.neutral for line in lines)}
    return response.to_json() | {"greedy": greedy, "difficulty": difficulty} | counts


def _job(
    policy_dir: Path | str,
    problems: Sequence[Problem],
    settings: EvaluationSettings,
    sampling: SamplingSettings,
    prompt_template: str,
    seed: int,
) -> Json:
    """What decides the samples. The number of resamples and the batch size do not."""
    ids = [problem.id for problem in problems]
    if not ids:
        raise UserError("evaluation: no problems given; give at least one")
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise UserError(f"evaluation: two problems have the id {twice!r}; make ids unique")
    return {
        "samples": settings.samples,
        "greedy": settings.greedy,
        "temperature": settings.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_new_tokens,
        "prompt_template": prompt_template,
        "seed": seed,
        "problems": sorted(ids),
        "model": folder_fingerprint(Path(policy_dir)),
        "tasks": _digest(problems),
    }


def _digest(problems: Sequence[Problem]) -> str:
    """SHA-256 of ids, prompts and tests, in whatever order: ids of generated problems repeat from seed to seed."""
    tasks = sorted([problem.id, problem.prompt, tests_digest(problem.tests)] for problem in problems)
    return hashlib.sha256(json.dumps(tasks).encode()).hexdigest()


def _kept_rows(path: Path, problems: Sequence[Problem], settings: EvaluationSettings) -> list[Json]:
    """Rows of an interrupted evaluation that count: of problems whose responses are all there. The rest is cut."""
    if not path.is_file():
        return []
    rows = list(read_jsonl(path, dict, torn_tail_ok=True))
    count = Counter((row["problem_id"], row["greedy"]) for row in rows)
    kept = [
        row for row in rows if count[row["problem_id"], row["greedy"]] == (1 if row["greedy"] else settings.samples)
    ]
    if len(kept) < len(rows) or not path.read_bytes().endswith(b"\n"):
        write_jsonl(path, kept)
    return kept
