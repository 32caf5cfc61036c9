"""`psgpo prm train`: from label files to a calibrated PRM or ORM of any kind, measured on problems of its own.

Problems fall into three parts by a hash of their id, as in a run: those trained on, those that choose the epoch and fit
the calibration, and those that only measure (`holdout`, the same that `psgpo prm eval --held-out` keeps).
"""

# N examples

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.jsonl import finite, read_jsonl, write_json, write_jsonl
from psgpo.labeling.identity import refuse_other_tokenizer
from psgpo.lines import code_lines
from psgpo.models import load_tokenizer
from psgpo.prm.calibrate import fit_calibration, probabilities
from psgpo.prm.card import ngram_card
from psgpo.prm.data import Item, PrmExample, build_examples, is_held_out
from psgpo.prm.encoder_train import train_encoder
from psgpo.prm.measure import calibration as calibration_error
from psgpo.prm.measure import classification
from psgpo.prm.ngrams import WEIGHTS, train_ngrams
from psgpo.prm.programs import Encoder, PromptShape, line_examples, program_examples
from psgpo.prm.record import ScorerRecord
from psgpo.prm.scorers import TextScorer, open_scorer
from psgpo.prm.texts import TextExample, TextProgram, both_classes, load_text_programs, recognised, text_examples
from psgpo.prm.train import train_prm
from psgpo.records import LineLabels

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PrmJob:
    """What to train."""

    data: tuple[Path, ...]
    """labels.jsonl or programs.jsonl, or folders with one."""
    out: Path
    record: ScorerRecord
    """Kind, scope, target and template; calibration, threshold and context are filled in."""
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
            f"{len({item.problem_id for item in items})} problems give examples {sizes}; label more problems, or "
            "change --holdout and --choosing"
        )
    return parts


def build_prm(job: PrmJob, progress: Progress | None = None) -> dict[str, Any]:
    """Train, calibrate and measure; write `model/`, `metrics.jsonl` and `measure.json` into `job.out`.

    Returns:
        What `measure.json` holds.

    Raises:
        UserError: data, model or settings do not fit together.
    """
    programs = [program for path in job.data for program in load_text_programs(path, job.prompts)]
    parts = split_three(programs, job)
    train, choose, measured = (text_examples(part, job.record.scope) for part in parts)
    for name, part in (("train on", train), ("choose by", choose), ("measure", measured)):
        both_classes(part, f"{', '.join(map(str, job.data))}: problems to {name}")
    if job.record.kind == "causal":
        _train_causal(job, progress)
    elif job.record.kind == "encoder":
        assert job.init is not None
        train_encoder(
            job.init, train, choose, job.settings, job.record, job.out,
            seed=job.seed, device=job.device, progress=progress,
        )  # fmt: skip
    else:
        _train_ngrams(job, train, choose)
    folder = job.out / "model"
    if job.calibration is not None:
        scorer = open_scorer(folder, device=job.device)
        fitted = fit_calibration(job.calibration, *scored_lines(scorer, parts[1]))
        scorer.record.calibrated(fitted).save(folder)
    found = measure_programs(open_scorer(folder, device=job.device), parts[2])
    found["examples"] = {"train": len(train), "choose": len(choose), "measured": len(measured)}
    write_json(job.out / "measure.json", found)
    return found


def measure_programs(scorer: TextScorer, programs: Sequence[TextProgram]) -> dict[str, Any]:
    """Measures of `scored_lines`, the share of the larger class, and calibration before and after fitting."""
    scores_N, good_N = scored_lines(scorer, programs)
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


def scored_lines(scorer: TextScorer, programs: Sequence[TextProgram]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(score, is good) of every labelled line, or of every program for an ORM; the same text of a problem once.

    A causal model scores all lines of a program in one pass, the others each distinct prefix.
    """
    scope = scorer.record.scope
    examples = text_examples(programs, scope)
    good_N = np.array([e.target > 0.5 for e in examples])
    if scope == "program" or scorer.record.kind != "causal":
        return np.array(scorer.score_prefixes([(e.prompt, e.prefix) for e in examples])), good_N
    found: dict[tuple[str, str], float] = {}
    missing = {(e.problem_id, e.prefix) for e in examples}
    chosen: list[tuple[TextProgram, list[str]]] = []
    for program in programs:
        lines = [line.text for line in code_lines(program.code)]
        prefixes = ["\n".join(lines[:m]) for m in range(1, len(lines) + 1)]
        new = missing.intersection((program.problem_id, prefix) for prefix in prefixes)
        if new:
            missing -= new
            chosen.append((program, prefixes))
    rows = scorer.score_many([(program.prompt, program.code) for program, _ in chosen])
    for (program, prefixes), row in zip(chosen, rows, strict=True):
        for prefix, score in zip(prefixes, row, strict=True):
            found.setdefault((program.problem_id, prefix), float(score))
    return np.array([found[e.problem_id, e.prefix] for e in examples]), good_N


def _train_causal(job: PrmJob, progress: Progress | None) -> None:
    assert job.init is not None
    tokenizer = load_tokenizer(job.init)
    encoder = Encoder(
        tokenizer, PromptShape(template=job.record.prompt_template, max_tokens=job.record.max_prompt_tokens)
    )
    examples: list[PrmExample] = []
    for path in job.data:
        file = path / "programs.jsonl" if path.is_dir() else path
        if recognised(file) == "labels" and job.record.scope == "line":
            labels = list(read_jsonl(file, LineLabels.from_json))
            refuse_other_tokenizer(labels, tokenizer, str(file))
            examples += build_examples(labels, job.settings)
            continue
        programs = load_text_programs(path, job.prompts)
        if job.record.scope == "line":
            examples += line_examples(encoder, programs)
        else:
            examples += program_examples(encoder, ((program, program.passed) for program in programs))
    train, choose, _ = split_three(examples, job)
    train_prm(
        job.init, train, choose, job.settings, job.out,
        record=job.record, seed=job.seed, device=job.device, progress=progress,
    )  # fmt: skip


def _train_ngrams(job: PrmJob, train: Sequence[TextExample], choose: Sequence[TextExample]) -> None:
    settings = job.settings
    bad, good = both_classes(train, "examples to train on")
    factors = ((bad + good) / (2 * bad), (bad + good) / (2 * good)) if settings.class_weights == "balanced" else (1, 1)
    smooth = settings.label_smoothing
    changed = [
        TextExample(
            problem_id=e.problem_id,
            prompt=e.prompt,
            prefix=e.prefix,
            target=(1 - smooth) * e.target + smooth / 2,
            weight=e.weight * factors[e.target > 0.5],
        )
        for e in train
    ]
    weights, history = train_ngrams(changed, choose, epochs=settings.epochs, rate=settings.learning_rate, seed=job.seed)
    folder = job.out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / WEIGHTS, weights)
    write_jsonl(job.out / "metrics.jsonl", history)
    digest = hashlib.blake2b(repr([*train, *choose]).encode(), digest_size=8).hexdigest()
    described = {"settings": settings.model_dump(mode="json"), "seed": job.seed, "examples": digest}
    kept = min(history, key=lambda row: row["held_out_loss"])
    (folder / "README.md").write_text(ngram_card(kept, described, job.record), encoding="utf-8")
    job.record.save(folder)
