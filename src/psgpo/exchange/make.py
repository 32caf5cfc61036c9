"""`psgpo labels make` without the command line: line labels for any model and problem set, in a folder of their own.

    job.json         what was asked; another job is refused
    problems.jsonl   the problems, as they were graded
    responses.jsonl  the responses that were labelled, sampled here or given
    refused.jsonl    replies that became no response, and why; only where there are any
    units/           what the search has learned, a journal per unit (`psgpo.labeling.units`)
    labels.jsonl     one `LineLabels` a line
    summary.json     counts, costs and, on the embedded benchmark, agreement with exact labels

`kill -9` at any point costs the batch that was running; the same command goes on and writes the same labels.
"""

from __future__ import annotations

import functools
import gc
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psgpo
from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.evaluation.benchmark import usable_cores
from psgpo.evaluation.draw import pose
from psgpo.execution import Limits, Sandbox
from psgpo.job import check_job, only_process
from psgpo.jsonl import read_jsonl, write_json, write_jsonl
from psgpo.labeling import Labelling, cost_summary, count_labels, cut_at_function_end, sample_responses, write_labels
from psgpo.labeling.engine import Engine, LabelEngine, OpenEngine
from psgpo.labeling.fanout import label_with_workers
from psgpo.labeling.identity import spec_folder, spec_identity, tokenizer_fingerprint
from psgpo.labeling.journal import fingerprint
from psgpo.labeling.on_ray import label_on_ray
from psgpo.labeling.quality import measure_labels
from psgpo.labeling.units import Board, Task, make_units
from psgpo.lines import TokenText
from psgpo.problems import save_problems_jsonl
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.records import LineLabels, Problem, Response

if TYPE_CHECKING:  # torch is loaded only when a model is opened
    from psgpo.sampling import Sampler

REFUSED = "refused.jsonl"
Json = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeRequest:
    """Which responses to label, and how."""

    out: Path
    checkpoints: Mapping[str, str]
    """Name to sampler spec (`psgpo.sampling.open_sampler`), in training order."""
    problems: Sequence[Problem]
    source: str
    """What the problems are, for people."""
    form: str
    """`completion`, `chat`, or a template with `{prompt}`."""
    settings: LabelSettings
    sampling: SamplingSettings
    limits: Limits
    """Of one program."""
    responses: Path | None = None
    """Responses that are sampled already; None to sample `settings.responses_per_problem` per checkpoint."""
    tokenizer: Path | None = None
    """Folder of the tokenizer; None for the one in the first checkpoint's folder."""
    server: Json = field(default_factory=dict)
    """Options of `openai:` samplers: timeout, tries, api_key_env."""
    workers: int = 1
    """Processes that label; the labels do not depend on it."""
    ray: str | None = None
    """Address of a Ray cluster whose workers label; `local` for one on this machine, None for processes."""
    seed: int = 0
    device: str = "cpu"
    cache: Path | None = None
    packages: tuple[str, ...] = ()
    """Installed packages that programs may import."""
    confinement: Json = field(default_factory=dict)
    """`require` and `allow_unconfined` of the sandbox."""


def make_labels(request: MakeRequest, *, progress: Progress = lambda *_: None) -> Json:
    """Do what is missing in `request.out` and return what is written to its summary.json.

    Raises:
        UserError: something given is wrong, or a model or server cannot be used; what is done is kept.
        SandboxError: the grader failed; what is done is kept.
    """
    started, out = time.perf_counter(), request.out
    with only_process(out):
        tokenizer = _tokenizer(request)
        job = _job(request, tokenizer)
        check_job(out / "job.json", job)
        if (out / "summary.json").is_file():
            return dict(json.loads((out / "summary.json").read_text(encoding="utf-8")))
        save_problems_jsonl(out / "problems.jsonl", request.problems)
        engine = _engine(request)
        labelling = _label(request, engine, tokenizer, progress)
        quality = _quality(request, labelling.labels)
        write_labels(out / "labels.jsonl", labelling.labels, tokenizer=tokenizer)
        summary = _summary(request, job, labelling, quality, time.perf_counter() - started)
        write_json(out / "summary.json", summary)
    return summary


def _tokenizer(request: MakeRequest) -> Any:
    """The tokenizer that all checkpoints share."""
    from psgpo.models import load_tokenizer

    folder = _tokenizer_folder(request)
    tokenizer = load_tokenizer(folder)
    for name, spec in request.checkpoints.items():
        own = spec_folder(spec)
        if own not in (None, folder) and tokenizer_fingerprint(load_tokenizer(own)) != tokenizer_fingerprint(tokenizer):
            raise UserError(
                f"--model {name}={spec}: has another tokenizer than {folder}; checkpoints that complete each other's "
                "prefixes share one: label the models apart"
            )
    return tokenizer


def _tokenizer_folder(request: MakeRequest) -> Path:
    """The folder that was given, or that of the first checkpoint that has one."""
    folders = [request.tokenizer, *map(spec_folder, request.checkpoints.values())]
    known = [folder for folder in folders if folder is not None]
    if not known:
        first = next(iter(request.checkpoints.values()))
        raise UserError(f"--model {first}: a server's tokenizer is not known; give its folder with --tokenizer")
    return known[0]


def _engine(request: MakeRequest) -> Engine:
    return LabelEngine(
        samplers=dict(request.checkpoints),
        tokenizer=str(_tokenizer_folder(request)),
        device=request.device,
        batch_size=request.sampling.batch_size,
        options=request.server,
        sandbox=_sandbox(request),
    )


def _sandbox(request: MakeRequest) -> Json:
    """Arguments of every worker's sandbox."""
    limits = {"packages": request.packages, **asdict(request.limits), **request.confinement}
    return {"workers": max(1, usable_cores() // request.workers), "cache": request.cache} | limits


def _job(request: MakeRequest, tokenizer: Any) -> Json:
    """What decides the labels."""
    settings = request.settings.model_dump(mode="json", exclude={"shards", "compare_linear", "holdout"})
    return {
        "models": {name: spec_identity(spec) for name, spec in request.checkpoints.items()},
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "problems": {"count": len(request.problems), "digest": fingerprint(p.to_json() for p in request.problems)},
        "responses": None if request.responses is None else fingerprint(read_jsonl(request.responses, dict)),
        "prompt": request.form,
        "labels": settings,
        "sampling": request.sampling.model_dump(mode="json"),
        "seed": request.seed,
        "limits": asdict(request.limits),
        "packages": list(request.packages),
        "psgpo": psgpo.__version__,
    }


def _check_context(request: MakeRequest, samplers: Mapping[str, Sampler], tokenizer: Any) -> None:
    """Refuse prompts that leave no room for `max_new_tokens` before anything is drawn."""
    from psgpo.sampling.sampler import context_of

    ids = pose(request.form, tokenizer)
    lengths = {problem.id: len(ids(problem)) for problem in request.problems}
    longest = max(lengths, key=lambda name: lengths[name])
    for name, sampler in samplers.items():
        context = context_of(sampler)
        room = None if context is None else context - lengths[longest]
        if room is not None and room < request.sampling.max_new_tokens:
            advice = f"give --max-new-tokens {room} or less, or" if room > 0 else "leave such problems out, or give"
            raise UserError(
                f"{longest}: its prompt of {lengths[longest]} tokens and --max-new-tokens "
                f"{request.sampling.max_new_tokens} exceed the context of {name}, {context}; {advice} a model with a "
                "longer one"
            )


def _label(request: MakeRequest, engine: Engine, tokenizer: Any, progress: Progress) -> Labelling:
    """Sample what is missing here, then label: here, in processes or on a cluster; all go on in the same journals."""
    alone = request.workers == 1 and request.ray is None
    path = request.out / "responses.jsonl"

    def labelled(done: int, total: int) -> None:
        progress("labelling", done, total)

    if alone:
        with engine.open() as opened:
            _check_context(request, opened.samplers, tokenizer)
            responses = _responses(request, path, opened, tokenizer, progress)
            return _label_here(request, responses, engine, opened, labelled)
    if not path.is_file():
        _respond(request, engine, tokenizer, path, progress)
        _let_go()
    responses = list(read_jsonl(path, Response.from_json))
    work = (responses, request.problems, engine, request.settings, request.sampling, request.seed, request.out)
    if request.ray is None:
        return label_with_workers(*work, request.workers, labelled)
    address = None if request.ray == "local" else request.ray
    return label_on_ray(*work, request.workers, labelled, address=address)


def _respond(request: MakeRequest, engine: Engine, tokenizer: Any, path: Path, progress: Progress) -> None:
    """Write `responses.jsonl`; with this frame the models go that it opened."""
    with engine.open() as opened:
        _check_context(request, opened.samplers, tokenizer)
        _responses(request, path, opened, tokenizer, progress)


def _let_go() -> None:
    """Give the memory of models that are gone back to the GPU: workers open theirs beside this process."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA was not used


def _label_here(
    request: MakeRequest,
    responses: Sequence[Response],
    engine: Engine,
    opened: OpenEngine,
    progress: Callable[[int, int], None],
) -> Labelling:
    """The units one after the other, as one worker does them."""
    task = Task(settings=request.settings, sampling=request.sampling, seed=request.seed)
    board = Board(make_units(responses, request.problems, engine.names, request.settings), request.out, progress)
    while board.waiting:
        unit = board.take()
        report = functools.partial(board.report, unit)
        board.finish(unit, task.label(unit, opened, board.journal(unit), lambda done, _, report=report: report(done)))
    return board.result()


def _responses(
    request: MakeRequest, path: Path, opened: OpenEngine, tokenizer: Any, progress: Progress
) -> list[Response]:
    """`responses.jsonl`: read again, taken over, or sampled in parts that survive a kill."""
    if not path.is_file():
        if request.responses is not None:
            responses = list(read_jsonl(request.responses, Response.from_json))
            _check_models(request, responses)
            _check_prompts(request, responses, tokenizer)
            text, by_id = TokenText(tokenizer), {problem.id: problem for problem in request.problems}
            responses = [
                cut_at_function_end(r, by_id[r.problem_id], text) if r.problem_id in by_id else r for r in responses
            ]  # a stranger's problem is refused with the labels
        else:
            responses = _sample(request, opened, tokenizer, progress)
        if not responses:
            raise UserError(f"{request.responses}: holds no response")
        write_jsonl(path, (response.to_json() for response in responses))
        shutil.rmtree(request.out / "parts", ignore_errors=True)
    return list(read_jsonl(path, Response.from_json))


def _sample(request: MakeRequest, opened: OpenEngine, tokenizer: Any, progress: Progress) -> list[Response]:
    each = request.settings.responses_per_problem
    problems, batch = list(request.problems), max(1, request.sampling.batch_size // each)
    parts = [(name, start) for name in opened.samplers for start in range(0, len(problems), batch)]
    text, files = TokenText(tokenizer), []
    refused: list[Json] = []
    for number, (name, start) in enumerate(parts):
        progress("sampling", number, len(parts))
        files.append(request.out / "parts" / f"{number}.jsonl")
        refusals = files[-1].with_suffix(".refused.jsonl")  # there before the part is
        if files[-1].is_file():
            refused += read_jsonl(refusals, dict)
            continue
        new: list[Json] = []

        def refuse(problem_id: str, index: int, reason: str, name: str = name, new: list[Json] = new) -> None:
            new.append({"problem_id": problem_id, "checkpoint": name, "index": index, "reason": reason})

        chosen = problems[start : start + batch]
        drawn = sample_responses(
            opened.samplers[name],
            tokenizer,
            chosen,
            opened.sandbox,
            checkpoint=name,
            responses_per_problem=each,
            seed=request.seed,
            prompt_template=pose(request.form, tokenizer),
            settings=request.sampling,
            refused=refuse,
        )
        write_jsonl(refusals, new)
        refused += new
        by_id = {problem.id: problem for problem in chosen}
        write_jsonl(files[-1], (cut_at_function_end(r, by_id[r.problem_id], text).to_json() for r in drawn))
    progress("sampling", len(parts), len(parts))
    responses = [response for file in files for response in read_jsonl(file, Response.from_json)]
    if refused and not responses:
        raise UserError(
            f"none of {len(refused)} replies can be used: {refused[0]['reason']}; look at --tokenizer, or use a server "
            "that returns token ids"
        )
    if refused:
        write_jsonl(request.out / REFUSED, refused)
    return responses


def _check_models(request: MakeRequest, responses: Sequence[Response]) -> None:
    """Refuse to complete responses that this command sampled by another model of the same name."""
    assert request.responses is not None
    record = request.responses.parent / "job.json"
    if not record.is_file():
        return
    wrote = json.loads(record.read_text(encoding="utf-8")).get("models", {})
    for name in {response.checkpoint for response in responses} & wrote.keys() & request.checkpoints.keys():
        given = spec_identity(request.checkpoints[name])
        if given["model"] != wrote[name]["model"]:
            raise UserError(
                f"{request.responses}: the model {name!r} that wrote these responses is another one than "
                f"{request.checkpoints[name]}; give that one, or give this one another name (NAME=SPEC) and "
                "--completer last"
            )


def _check_prompts(request: MakeRequest, responses: Sequence[Response], tokenizer: Any) -> None:
    """Responses that were given answer these problems, in this form."""
    ids, by_id = pose(request.form, tokenizer), {problem.id: problem for problem in request.problems}
    asked: dict[str, tuple[int, ...]] = {}
    for response in responses:
        name = response.problem_id
        if name in by_id and response.prompt_ids != asked.setdefault(name, ids(by_id[name])):
            raise UserError(
                f"{request.responses}: response {response.index} of problem {name} answers another prompt than "
                f"{request.source} has for it; give the problems it was sampled from, the same --prompt and the "
                "model's own tokenizer"
            )


def _quality(request: MakeRequest, labels: Sequence[LineLabels]) -> Json | None:
    """Agreement with exact labels where every problem has an oracle; responses without labels are left out."""
    labels = [label for label in labels if not label.unlabelled]
    by_id = {problem.id: problem for problem in request.problems}
    if not all(problem.source == "opchain" for problem in request.problems):
        return None
    answered = [by_id[label.response.problem_id] for label in labels]
    items = [(problem, label.response.text) for problem, label in zip(answered, labels, strict=True)]
    with Sandbox(**_sandbox(request)) as sandbox:
        exact = [found.last_on_track for found in ExactOracle(sandbox.evaluate_many).label(items)]
    return measure_labels(labels, exact, [problem.difficulty for problem in answered]).to_json()


def _summary(request: MakeRequest, job: Json, labelling: Labelling, quality: Json | None, seconds: float) -> Json:
    by_checkpoint: dict[str, list[bool]] = {}
    for label in labelling.labels:
        by_checkpoint.setdefault(label.response.checkpoint, []).append(label.response.verdict.passed)
    return {
        "problems": request.source,
        "strategy": request.settings.strategy,
        "counts": count_labels(labelling.labels).to_json(),
        "pass_rate": {name: sum(passed) / len(passed) for name, passed in by_checkpoint.items()},
        "cost": cost_summary(labelling.labels, labelling.usage),
        "quality": quality,
        "refused": _refused(request.out, labelling.labels),
        "job": job,
        "seconds": round(seconds, 3),
    }


def _refused(out: Path, labels: Sequence[LineLabels]) -> Json:
    """What could not be labelled because a server returns text, and the reasons, most frequent first."""
    replies = [row["reason"] for row in read_jsonl(out / REFUSED, dict)] if (out / REFUSED).is_file() else []
    searches = [label.unlabelled for label in labels if label.unlabelled]
    reasons = Counter([*replies, *searches])
    return {"replies": len(replies), "responses": len(searches), "reasons": dict(reasons.most_common())}
