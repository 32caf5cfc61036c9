"""`psgpo prm train`: from label files to a calibrated PRM or ORM of any kind, measured on problems of its own.

Problems fall into three parts by a hash of their id, as in a run: those trained on, those that choose the epoch and fit
the calibration, and those that only measure (`holdout`, the same that `psgpo prm eval --held-out` keeps).

model/          the PRM with its card
metrics.jsonl   a row per epoch
measure.json    `measure_programs` on the problems that only measure
job.json        what was asked for: another training in the same folder is refused
state.pt        while training lasts: the same command goes on from its last epoch
"""

# N examples

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from psgpo.config import ModelSettings, PrmSettings
from psgpo.errors import UserError
from psgpo.job import check_job
from psgpo.jsonl import finite, read_jsonl, write_json, write_jsonl
from psgpo.labeling.identity import folder_fingerprint, refuse_other_tokenizer, tokenizer_fingerprint
from psgpo.lines import code_lines
from psgpo.models import load_tokenizer
from psgpo.prm.align import code_alone
from psgpo.prm.calibrate import check_lines, even_score, fit_calibration, probabilities
from psgpo.prm.card import ngram_card
from psgpo.prm.data import Item, PrmExample, build_examples, is_held_out
from psgpo.prm.encoder_train import train_encoder
from psgpo.prm.evaluation.programs import counted_lines
from psgpo.prm.measure import calibration as calibration_error
from psgpo.prm.measure import classification
from psgpo.prm.ngrams import WEIGHTS, train_ngrams
from psgpo.prm.programs import Encoder, PromptShape, line_examples, program_examples
from psgpo.prm.record import FILE, ScorerRecord
from psgpo.prm.scorers import TextScorer, open_scorer
from psgpo.prm.texts import (
    TextExample,
    TextProgram,
    both_classes,
    data_file,
    load_text_programs,
    recognised,
    text_examples,
)
from psgpo.prm.train import train_prm
from psgpo.prm.weights import weighed_texts
from psgpo.records import LineLabels

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""(what, done, total)."""
CHUNK = 64
"""Programs between two reports of progress when scoring."""


@dataclass(frozen=True, kw_only=True)
class PrmJob:
    """What to train."""

    data: tuple[Path, ...]
    """labels.jsonl or programs.jsonl, or folders with one."""
    out: Path
    record: ScorerRecord
    """Kind, scope, target and template; calibration and context are filled in."""
    settings: PrmSettings
    init: Path | None
    """Folder of the model to start from; None for n-grams."""
    holdout: float = 0.2
    """Share of the problems that only measure."""
    choosing: float = 0.1
    """Share of the problems that choose the epoch and fit the calibration."""
    calibration: str | None = "temperature"
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Problem id to prompt, for label files."""
    seed: int = 0
    device: str = "cpu"
    compute: ModelSettings = field(default_factory=ModelSettings)
    """How a causal model is trained: precision, adapters, activations computed again."""


def split_three(items: Sequence[Item], job: PrmJob) -> tuple[list[Item], list[Item], list[Item]]:
    """(train, choose, measure) by problem.

    Raises:
        UserError: one part is empty.
    """
    parts: tuple[list[Item], list[Item], list[Item]] = ([], [], [])
    for item in items:
        measured = is_held_out(item.problem_id, job.holdout)
        parts[2 if measured else 1 if is_held_out(item.problem_id, job.holdout + job.choosing) else 0].append(item)
    if not all(parts):
        names = ("train on", "choose by", "measure")
        sizes = ", ".join(f"{len(part)} to {what}" for part, what in zip(parts, names, strict=True))
        raise UserError(
            f"{len({item.problem_id for item in items})} problems give programs {sizes}; label more problems, or "
            "change --holdout and --choosing (of a recipe labels.holdout)"
        )
    return parts


def build_prm(job: PrmJob, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Train, calibrate and measure; write the files named above into `job.out`.

    The same job again goes on where it stopped, and a finished one is not trained again: it is calibrated and measured,
    so that another calibration of the same model costs no training.

    Returns:
        What `measure.json` holds.

    Raises:
        UserError: data, model or settings do not fit together, or `out` holds another training.
    """
    programs = [program for path in job.data for program in load_text_programs(path, job.prompts)]
    parts = split_three(programs, job)
    train, choose, measured = (text_examples(part, job.record.scope) for part in parts)
    for name, part in (("train on", train), ("choose by", choose), ("measure", measured)):
        both_classes(part, f"{', '.join(map(str, job.data))}: problems to {name}")
    if job.calibration is not None:
        check_lines([e.target > 0.5 for e in choose if e.target != 0.5])
    folder, state = job.out / "model", job.out / "state.pt"
    if not state.is_file() and not folder.is_dir():  # an attempt that failed before its first epoch binds nobody
        (job.out / "job.json").unlink(missing_ok=True)
    check_job(job.out / "job.json", _described(job, programs))
    if state.is_file() or not (folder / FILE).is_file():
        scored = parts[2] if job.calibration is None else [*parts[1], *parts[2]]
        _train(job, train, choose, scored, lambda done, total: progress("training", done, total))
        state.unlink(missing_ok=True)
    scorer = open_scorer(folder, device=job.device)
    fitted, threshold = None, job.record.threshold
    if job.calibration is not None:
        fitted = fit_calibration(job.calibration, *scored_lines(scorer, parts[1], _part(progress, "calibrating")))
        threshold = even_score(fitted)
    scorer.record = scorer.record.calibrated(fitted, threshold)
    scorer.record.save(folder)
    found = measure_programs(scorer, parts[2], _part(progress, "measuring"))
    found["examples"] = {"train": len(train), "choose": len(choose), "measured": len(measured)}
    write_json(job.out / "measure.json", found)
    return found


def measure_programs(
    scorer: TextScorer, programs: Sequence[TextProgram], progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Measures of `scored_lines`, the share of the larger class, and calibration before and after fitting."""
    scores_N, good_N = scored_lines(scorer, programs, progress)
    record = scorer.record
    fitted = None
    if record.calibration is not None:
        fitted = calibration_error(probabilities(scores_N, record.calibration, record.target), good_N)
    found = {
        "problems": len({program.problem_id for program in programs}),
        "lines": classification(good_N, scores_N >= scorer.threshold, scores_N),
        "calibration": {
            "raw": calibration_error(probabilities(scores_N, None, record.target), good_N),
            "fitted": fitted,
        },
    }
    return finite(found)  # type: ignore[no-any-return]


def scored_lines(
    scorer: TextScorer, programs: Sequence[TextProgram], progress: Callable[[int, int], None] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(score, is good) of every labelled line, or of every program for an ORM; the same text of a problem once.

    A causal model scores all lines of a program in one pass, the others each distinct prefix. Labels of 0 and
    probabilities of 1/2 say nothing and are left out.
    """
    scope = scorer.record.scope
    examples = [example for example in text_examples(programs, scope) if example.target != 0.5]
    good_N = np.array([e.target > 0.5 for e in examples])
    if scope == "program" or scorer.record.kind != "causal":
        pairs = [(e.prompt, e.prefix) for e in examples]
        return np.concatenate([scorer.score_prefixes(part) for part in _chunks(pairs, progress)]), good_N
    found: dict[tuple[str, str], float] = {}
    chosen = _programs_of(examples, programs)
    for part in _chunks(chosen, progress):
        rows = scorer.score_many([(program.prompt, program.code) for program, _ in part])
        for (program, prefixes), row in zip(part, rows, strict=True):
            for prefix, score in zip(prefixes, row, strict=True):
                found.setdefault((program.problem_id, prefix), float(score))
    return np.array([found[e.problem_id, e.prefix] for e in examples]), good_N


def _programs_of(
    examples: Sequence[TextExample], programs: Sequence[TextProgram]
) -> list[tuple[TextProgram, list[str]]]:
    """Programs that have all the examples between them, each with all its prefixes."""
    missing = {(e.problem_id, e.prefix) for e in examples}
    chosen: list[tuple[TextProgram, list[str]]] = []
    for program in programs:
        lines = [line.text for line in code_lines(program.code)]
        prefixes = ["\n".join(lines[:m]) for m in range(1, len(lines) + 1)]
        new = missing.intersection((program.problem_id, prefix) for prefix in prefixes)
        if new:
            missing -= new
            chosen.append((program, prefixes))
    return chosen


def _longest_scored(job: PrmJob, encoder: Encoder, programs: Sequence[TextProgram]) -> int:
    """Tokens of the longest text, with its prompt, that a causal model reads when `scored_lines` of these programs.

    Training reads them up to their last label, scoring to their end.
    """
    examples = [example for example in text_examples(programs, job.record.scope) if example.target != 0.5]
    if job.record.scope == "program":
        return max((encoder.tokens(e.prompt, code_alone(e.prefix)) for e in examples), default=0)
    return max((encoder.tokens(p.prompt, p.code) for p, _ in _programs_of(examples, programs)), default=0)


def _train(
    job: PrmJob,
    train: Sequence[TextExample],
    choose: Sequence[TextExample],
    scored: Sequence[TextProgram],
    progress: Callable[[int, int], None],
) -> None:
    """
    Args:
        scored: programs of the parts that calibrate and measure, which the trained model will read.
    """
    if job.record.kind == "ngrams":
        _train_ngrams(job, train, choose, progress)
        return
    assert job.init is not None
    more: dict[str, Any] = {"record": job.record, "seed": job.seed, "device": job.device, "progress": progress}
    if job.record.kind == "encoder":
        train_encoder(job.init, train, choose, job.settings, out_dir=job.out, **more)
    else:
        examples, chosen, _ = split_three(causal_examples(job), job)
        more["longest_scored"] = _longest_scored(job, _encoder(job), scored)
        train_prm(job.init, examples, chosen, job.settings, job.out, compute=job.compute, **more)


def causal_examples(job: PrmJob) -> list[PrmExample]:
    """Token ids with targets: of label files their own ids, of programs those that scoring makes.

    Programs of `psgpo mutate` share most of their lines with their reference: each prefix is trained on once. Responses
    of a policy with another tokenizer are programs too, read as text. Prompts are laid out by the record's template in
    every case, as scoring does.

    Raises:
        UserError: labels that record no tokenizer, and are not of this one.
    """
    encoder = _encoder(job)
    tokenizer = encoder.tokenizer
    examples: list[PrmExample] = []
    for path in map(data_file, job.data):
        if recognised(path) == "labels" and job.record.scope == "line":
            labels = list(read_jsonl(path, LineLabels.from_json))
            if {label.tokenizer for label in labels} <= {"", tokenizer_fingerprint(tokenizer)}:
                refuse_other_tokenizer(labels, tokenizer, str(path))
                made = build_examples(labels, job.settings)
                examples += [replace(e, prompt_ids=encoder.prompt(job.prompts[e.problem_id])) for e in made]
                continue
        programs = load_text_programs(path, job.prompts)
        if job.record.scope == "line":
            once = zip(programs, counted_lines(programs), strict=True)
            examples += line_examples(encoder, [replace(program, labels=labels) for program, labels in once])
        else:
            examples += program_examples(encoder, ((program, program.passed) for program in programs))
    return examples


def _encoder(job: PrmJob) -> Encoder:
    assert job.init is not None
    shape = PromptShape(template=job.record.prompt_template, max_tokens=job.record.max_prompt_tokens)
    return Encoder(load_tokenizer(job.init), shape)


def _train_ngrams(
    job: PrmJob, train: Sequence[TextExample], choose: Sequence[TextExample], progress: Callable[[int, int], None]
) -> None:
    settings = job.settings
    weights, history = train_ngrams(
        weighed_texts(train, settings),
        choose,
        epochs=settings.epochs,
        rate=settings.learning_rate,
        seed=job.seed,
        batch_size=settings.batch_size,
        patience=settings.patience,
        progress=progress,
    )
    folder = job.out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / WEIGHTS, weights)
    write_jsonl(job.out / "metrics.jsonl", history)
    described = {"settings": settings.training(), "seed": job.seed, "train_examples": len(train)}
    kept = min(history, key=lambda row: row["held_out_loss"])
    (folder / "README.md").write_text(ngram_card(kept, described, job.record), encoding="utf-8")
    job.record.save(folder)


def _described(job: PrmJob, programs: Sequence[TextProgram]) -> dict[str, Any]:
    """What decides the weights."""
    record = job.record
    return {
        "kind": record.kind,
        "scope": record.scope,
        "template": record.prompt_template,
        "max_tokens": record.max_tokens,
        "max_prompt_tokens": record.max_prompt_tokens,
        "init": None if job.init is None else folder_fingerprint(job.init),
        "data": hashlib.sha256(repr(programs).encode()).hexdigest()[:16],
        "holdout": job.holdout,
        "choosing": job.choosing,
        "seed": job.seed,
        "compute": job.compute.model_dump(mode="json", exclude_defaults=True),
    } | job.settings.training()


def _part(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)


def _chunks(items: Sequence[T], progress: Callable[[int, int], None] | None) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
        if progress:
            progress(min(start + CHUNK, len(items)), len(items))
