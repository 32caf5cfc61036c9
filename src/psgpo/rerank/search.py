"""`psgpo rerank search`: strategies of equal budgets side by side, on the same problems, with the same policy and PRM.

out/
  job.json              what was asked for; STRATEGY.job.json: the strategy's own settings
  STRATEGY.jsonl        a row per problem, whole chunks at a time: `problem_id`, `spent` tokens, `drawn` rows, `scored`
                        prefixes, `unread`: `programs` and `prefixes` that are too long for the PRM, `candidates`:
                        `tokens` spent when the program was finished, `scores` by aggregate (`psgpo.rerank.scores`),
                        NaN where it was not read, mean `logprob` per token at temperature 1, `response` with its
                        verdict, `finished` by the model, with the fence that closes its code or with its function
  outputs.jsonl         see `psgpo.rerank.outputs`; of the candidates of best-of-n
  scores/NAME.jsonl     what an ORM said of them, kept as it comes; NAME.job.json: which ORM
  summary.json          `data`, `methods`: curves over budgets, differences at the largest; `majority`: why it is left
                        out, or null
  curves.csv            method, tokens, value, low, high

A curve says what could be chosen from what was finished when B tokens were spent. Best-of-n and rejection draw one row
at a time, so theirs are runs of all smaller budgets. Beam shares what is left among its rows: below the full budget its
curve is how this run went, not what a run of that budget gives. random, likelihood-mean, majority, ORMs and oracle
choose among the programs of best-of-n.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from psgpo.chats import answers_in_chat
from psgpo.errors import UserError
from psgpo.evaluation.draw import pose
from psgpo.evaluation.grade import tests_digest
from psgpo.execution import Sandbox
from psgpo.job import check_job
from psgpo.jsonl import JsonlAppender, read_jsonl, write_json, write_jsonl
from psgpo.labeling.collect import Grader, grade_programs
from psgpo.labeling.identity import folder_digest, folder_fingerprint
from psgpo.lines import TokenText, code_lines, extract_code
from psgpo.prm.evaluation.journal import check_model, digest
from psgpo.prm.evaluation.readers import PrmReader
from psgpo.prm.scorers import TextScorer, open_scorer
from psgpo.problems.programs import end_of_answer
from psgpo.records import Problem, Response
from psgpo.rerank.budgets import BEST_OF_N, measure_search
from psgpo.rerank.drive import Driver, Player, ReadablePrefixes, stops_at_lines
from psgpo.rerank.outputs import Evaluator, votes_of, why_no_majority
from psgpo.rerank.run import Progress, write_curves
from psgpo.rerank.samples import name_of
from psgpo.rerank.scores import AGGREGATES, aggregates, log_likelihoods, prm_columns
from psgpo.rerank.strategies import Attempt, Ids, Row, Strategy, beam, best_of_n, rejection
from psgpo.sampling import HFSampler, open_sampler
from psgpo.sampling.sampler import context_of

Json = dict[str, Any]
STRATEGIES = ("beam", "rejection")
"""Beside best-of-n, which is always measured."""
UNREAD = {"programs": 0, "prefixes": 0}
CHUNK = 64
"""Problems side by side, and between two writes. The same ones always stand together: a resumed search is the same."""


class SearchSandbox(Grader, Evaluator, Protocol):
    """What is needed of `psgpo.execution.Sandbox`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """What decides which programs are found."""

    budget: int
    """Sampled tokens for a problem."""
    max_new_tokens: int = 256
    """Longest response, tokens."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    width: int = 4
    """beam: prefixes kept."""
    expansions: int = 4
    """beam: next lines of each."""
    delta: float = 0.5
    """rejection: a line is written again when its score is so much below the highest before it."""
    tries: int = 4
    """rejection: times before a new program is begun."""

    def check(self) -> None:
        """
        Raises:
            UserError: a setting makes no sense.
        """
        if min(self.budget, self.max_new_tokens, self.width, self.expansions) < 1 or self.tries < 0 or self.delta < 0:
            raise UserError(
                "rerank search: --budget, --max-new-tokens, --width and --expansions must be at least 1, --tries and "
                "--delta at least 0"
            )
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise UserError("rerank search: needs --temperature above 0 and 0 < --top-p <= 1; a greedy policy repeats")
        if self.budget < self.width * self.expansions:
            raise UserError(
                f"rerank search: --budget {self.budget} is less than one token for each of the {self.width} x "
                f"{self.expansions} first lines of the beam; raise it"
            )

    def strategy(self, name: str) -> tuple[Strategy, Json]:
        """(the strategy, its own settings)."""
        if name == "beam":
            own: Json = {"width": self.width, "expansions": self.expansions}
            return functools.partial(beam, **own), own
        if name == "rejection":
            own = {"delta": self.delta, "tries": self.tries}
            return functools.partial(rejection, **own), own
        assert name == BEST_OF_N
        return best_of_n, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """Who writes and who reads."""

    sampler: HFSampler
    tokenizer: Any
    scorer: TextScorer
    prompt_ids: Callable[[Problem], tuple[int, ...]]
    """What the policy reads."""
    fences: bool
    """It answers in a chat: its code stands in a fenced block, more often than not."""
    identity: Json
    """Changes when policy or PRM do."""


def open_models(policy: str, prm: Path, *, template: str | None, batch_size: int, device: str) -> Models:
    """
    Args:
        policy: FOLDER or hf:FOLDER.
        template: see `psgpo.evaluation.draw.pose`; None: the PRM's own, which is how the labelled responses were
            sampled.

    Raises:
        UserError: one of them is unusable, or the policy is no model of this process.
    """
    folder = Path(policy.removeprefix("hf:"))
    if not folder.is_dir():
        raise UserError(
            f"--policy {policy}: no such folder; search takes FOLDER or hf:FOLDER, because the end of a line must end "
            "the completion, which servers and vLLM are not asked for here"
        )
    scorer = open_scorer(prm, device=device)
    if scorer.record.scope == "program":
        raise UserError(f"--prm {prm}: an ORM, which was never taught to read prefixes; search needs a PRM")
    sampler, tokenizer = open_sampler(f"hf:{folder}", device=device, batch_size=batch_size)
    assert isinstance(sampler, HFSampler)
    used = scorer.record.prompt_template if template is None else template
    return Models(
        sampler=sampler,
        tokenizer=tokenizer,
        scorer=scorer,
        prompt_ids=pose(used, tokenizer, option="--template"),
        fences=used == "chat" or answers_in_chat(tokenizer, used),
        identity={"policy": folder_fingerprint(folder), "prm": folder_digest(prm), "template": used},
    )


def run_search(
    problems: Sequence[Problem],
    models: Models,
    settings: SearchSettings,
    out: Path,
    *,
    strategies: Sequence[str] = STRATEGIES,
    limits: Mapping[str, Any],
    orms: Sequence[PrmReader] = (),
    resamples: int = 2000,
    choose: str = "min",
    progress: Progress = lambda what, done, total: None,
    sandbox: Callable[[], AbstractContextManager[SearchSandbox]] | None = None,
) -> Json:
    """Search with best-of-n and the strategies, judge what they found, write the summary; the same call goes on.

    Args:
        limits: of the sandbox: timeout, memory_mb, workers, and test_timeout where a test has a limit of its own.
        orms: further judges of the programs of best-of-n; one more may be given when the call goes on.
        choose: the aggregate of line scores by which the PRM chooses among finished programs.
        sandbox: opens what judges programs; None: a `Sandbox` with the limits.

    Raises:
        UserError: a setting makes no sense, a prompt leaves no room, or `out` holds another job.
    """
    settings.check()
    check_model(out / "job.json", _job(problems, models, settings, limits), "prm")
    by_id = {problem.id: problem for problem in problems}
    with sandbox() if sandbox is not None else Sandbox(**limits) as judge:
        rows = {}
        for name in (BEST_OF_N, *strategies):
            report = functools.partial(progress, name)
            rows[name] = _searched(name, problems, models, settings, out, judge, report)
        pool = {row["problem_id"]: [c["response"] for c in row["candidates"]] for row in rows[BEST_OF_N]}
        votes, why_not = None, why_no_majority(problems)
        if why_not is None:
            votes = votes_of(pool, by_id, judge, out / "outputs.jsonl", progress=functools.partial(progress, "outputs"))
    judged = _by_orms(orms, pool, by_id, out, progress)
    methods = measure_search(
        rows, votes, settings.budget, choose, judged=judged, resamples=resamples, seed=settings.seed
    )
    summary = {
        "data": {
            "problems": len(problems),
            "budget": settings.budget,
            "settings": asdict(settings),
            "choose": choose,
            "cost": {name: _cost(found) for name, found in rows.items()},
            "unread": {name: _unread(found) for name, found in rows.items()},
        },
        "majority": why_not,
        "methods": methods,
    }
    write_json(out / "summary.json", summary)
    write_curves(out / "curves.csv", methods, ("tokens",))
    return summary


def _by_orms(
    orms: Sequence[PrmReader],
    pool: Mapping[str, Sequence[Response]],
    problems: Mapping[str, Problem],
    out: Path,
    progress: Progress,
) -> dict[str, dict[str, list[float]]]:
    """Scores of the pool by ORM and problem."""
    responses = {name_of(response): response for group in pool.values() for response in group}
    found: dict[str, dict[str, list[float]]] = {}
    for reader in orms:
        report = functools.partial(progress, reader.name)
        column = prm_columns(reader, responses, problems, out, progress=report)[reader.name]
        found[reader.name] = {name: [column[name_of(response)] for response in group] for name, group in pool.items()}
    return found


def _cost(rows: Sequence[Json]) -> Json:
    """Means over problems."""
    return {
        "tokens": float(np.mean([row["spent"] for row in rows])),
        "programs": float(np.mean([len(row["candidates"]) for row in rows])),
        "scored": float(np.mean([row["scored"] for row in rows])),
    }


def _unread(rows: Sequence[Json]) -> Json:
    """Sums over problems."""
    return {what: sum(row["unread"][what] for row in rows) for what in UNREAD}


def _searched(
    name: str,
    problems: Sequence[Problem],
    models: Models,
    settings: SearchSettings,
    out: Path,
    judge: Grader,
    progress: Callable[[int, int], None],
) -> list[Json]:
    """The rows of one strategy, in the order of the problems; those on disk are not made again."""
    strategy, own = settings.strategy(name)
    path = out / f"{name}.jsonl"
    check_job(out / f"{name}.job.json", own)
    chunks = [problems[start : start + CHUNK] for start in range(0, len(problems), CHUNK)]
    with JsonlAppender(path) as appender:
        known = {row["problem_id"]: row for row in read_jsonl(path, _row)}
        for number, chunk in enumerate(chunks):
            if not all(problem.id in known for problem in chunk):
                new = _chunk(name, strategy, chunk, models, settings, judge)
                appender.append(*(_written(row) for row in new))
                known |= {row["problem_id"]: row for row in new}
            progress(min((number + 1) * CHUNK, len(problems)), len(problems))
    rows = [known[problem.id] for problem in problems]
    write_jsonl(path, map(_written, rows))  # a chunk that was cut off is here once, not twice
    return rows


def _chunk(
    name: str,
    strategy: Strategy,
    problems: Sequence[Problem],
    models: Models,
    settings: SearchSettings,
    judge: Grader,
) -> list[Json]:
    text, context = TokenText(models.tokenizer), context_of(models.sampler)
    attempts, players = [], []
    for problem in problems:
        prompt_ids = models.prompt_ids(problem)
        room = settings.max_new_tokens if context is None else min(settings.max_new_tokens, context - len(prompt_ids))
        if room < 1:
            raise UserError(f"problem {problem.id}: its prompt has {len(prompt_ids)} tokens, the context {context}")
        stops = models.sampler.stop_ids
        attempts.append(
            Attempt(
                budget=settings.budget,
                max_new_tokens=room,
                text=text,
                stops=stops,
                fences=models.fences,
                ends_at=functools.partial(end_of_answer, problem, talks=models.fences),
            )
        )
        asking = strategy(attempts[-1])
        players.append(Player(problem_id=problem.id, prompt=problem.prompt, prompt_ids=prompt_ids, asking=asking))
    Driver(
        sampler=models.sampler,
        line_sampler=stops_at_lines(models.sampler, models.tokenizer),
        scorer=ReadablePrefixes(models.scorer),
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=settings.seed,
    ).run(players)
    return _judged(name, players, attempts, problems, models, settings, judge)


def _judged(
    name: str,
    players: Sequence[Player],
    attempts: Sequence[Attempt],
    problems: Sequence[Problem],
    models: Models,
    settings: SearchSettings,
    judge: Grader,
) -> list[Json]:
    """What each attempt found, with verdicts: the rows of the strategy's file."""
    text = TokenText(models.tokenizer)
    found = [(n, candidate) for n, attempt in enumerate(attempts) for candidate in attempt.candidates]
    texts = [text.decode(candidate.row.ids) for _, candidate in found]
    programs = [(extract_code(written), problems[n]) for written, (n, _) in zip(texts, found, strict=True)]
    rows: list[Json] = [
        {
            "problem_id": problem.id,
            "spent": attempt.spent,
            "drawn": attempt.drawn,
            "scored": len(attempt.scores) - attempt.unread,
            "unread": UNREAD | {"prefixes": attempt.unread},
            "candidates": [],
        }
        for problem, attempt in zip(problems, attempts, strict=True)
    ]
    scores = _aggregates([(problems[n].prompt, written) for written, (n, _) in zip(texts, found, strict=True)], models)
    logprobs = _mean_logprobs([(players[n].prompt_ids, candidate.row) for n, candidate in found], models, settings)
    verdicts = grade_programs(judge, programs)
    for written, (n, candidate), read, logprob, verdict in zip(texts, found, scores, logprobs, verdicts, strict=True):
        response = Response(
            problem_id=problems[n].id,
            index=len(rows[n]["candidates"]),
            checkpoint=name,
            token_ids=candidate.row.ids,
            text=written,
            finished=candidate.row.finished,
            verdict=verdict,
            prompt_ids=players[n].prompt_ids,
        )
        rows[n]["unread"]["programs"] += read is None
        rows[n]["candidates"].append(
            {
                "tokens": candidate.tokens,
                "scores": dict.fromkeys(AGGREGATES, np.nan) if read is None else read,
                "logprob": logprob,
                "response": response,
            }
        )
    return rows


def _aggregates(pairs: Sequence[tuple[str, str]], models: Models) -> list[dict[str, float] | None]:
    """Of each (problem, whole program), read as `psgpo rerank samples` reads it; equal ones once, so that they tie.
    None of one that the PRM cannot read."""
    known = [pair for pair in dict.fromkeys(pairs) if models.scorer.readable(*pair)]
    found = {
        pair: aggregates(scores, [line.neutral for line in code_lines(pair[1])], models.scorer.record)
        for pair, scores in zip(known, models.scorer.score_many(known), strict=True)
    }
    return [found.get(pair) for pair in pairs]


def _mean_logprobs(rows: Sequence[tuple[Ids, Row]], models: Models, settings: SearchSettings) -> list[float]:
    """log p per token at temperature 1 of rows behind their prompts: what was drawn at another one is read again."""
    if settings.temperature == 1:
        return [float(np.mean(row.logprobs)) for _, row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][1].ids))  # rows of a forward pass are padded
    read = log_likelihoods(models.sampler.model, [(rows[i][0], rows[i][1].ids) for i in order])
    found = dict(zip(order, read, strict=True))
    return [found[i] / len(row.ids) for i, (_, row) in enumerate(rows)]


def _written(row: Json) -> Json:
    candidates = [c | {"response": c["response"].to_json()} for c in row["candidates"]]
    return row | {"candidates": candidates}


def _row(row: Json) -> Json:
    """The inverse; a score that was NaN comes back as None."""
    candidates = []
    for candidate in row["candidates"]:
        scores = {kind: np.nan if score is None else score for kind, score in candidate["scores"].items()}
        candidates.append(candidate | {"response": Response.from_json(candidate["response"]), "scores": scores})
    return row | {"candidates": candidates}


def _job(problems: Sequence[Problem], models: Models, settings: SearchSettings, limits: Mapping[str, Any]) -> Json:
    shared = ("budget", "max_new_tokens", "temperature", "top_p", "seed")
    return {
        **models.identity,
        "reading": "whole programs",  # earlier versions wrote other scores, and no such key: their rows do not mix
        **({"ends": "fence or function"} if any(problem.starter_code for problem in problems) else {}),  # nor these
        "problems": digest([(problem.id, problem.prompt, tests_digest(problem.tests)) for problem in problems]),
        **{name: value for name, value in asdict(settings).items() if name in shared},
        **{name: value for name, value in limits.items() if name != "workers"},
    }
