"""Numbers that rank whole programs: aggregates of a PRM's line scores, an ORM's score, the policy's likelihood.

Only lines that are not neutral count; a comment says nothing. A program without such a line has NaN everywhere.

    last      the PRM's score at the last line; of a `progress` PRM max(0, R_1 .. R_T), the share of the program done
    mean, min of the line scores as `psgpo.prm.scorers.TextScorer` gives them (`progress`: margins)
    product   sum of log P(good) over the lines, P calibrated where the PRM is
"""

# L code lines, T response tokens

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel

from psgpo.errors import UserError
from psgpo.jsonl import JsonlAppender, read_jsonl
from psgpo.labeling.identity import folder_digest, tokenizer_fingerprint
from psgpo.labeling.prefixes import cut_response
from psgpo.labeling.surprise import ROWS, token_surprise
from psgpo.lines import Tokenizer, TokenText, code_lines
from psgpo.models import load_policy
from psgpo.prm.calibrate import probabilities
from psgpo.prm.evaluation.journal import check_model, scored_rows
from psgpo.prm.evaluation.readers import PrmReader
from psgpo.prm.record import ScorerRecord
from psgpo.records import Problem, Response
from psgpo.rerank.curves import LIKELIHOOD

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]
Columns = dict[str, dict[str, float]]
"""Method to response name to score."""
AGGREGATES = ("last", "mean", "min", "product")
LEAST_PROBABILITY = 1e-9
"""A line's P(good) is not taken for smaller: one line must not make all others count for nothing."""


def aggregates(scores: ArrayLike, neutral: Sequence[bool], record: ScorerRecord) -> dict[str, float]:
    """`AGGREGATES` of one program.

    Args:
        scores: of its lines. Shape: (L,).
        neutral: comments, blank lines and docstrings. Shape: (L,).
    """
    all_L = np.asarray(scores, dtype=np.float64)
    code_L = all_L[~np.asarray(neutral, dtype=bool)]
    if not len(code_L):
        return dict.fromkeys(AGGREGATES, float("nan"))
    T = len(all_L)
    last = (float(all_L[-1]) - 0.5) / T + 1 if record.target == "progress" else float(code_L[-1])
    good_L = np.clip(probabilities(code_L, record.calibration, record.target), LEAST_PROBABILITY, 1.0)
    values = (last, float(code_L.mean()), float(code_L.min()), float(np.log(good_L).sum()))
    return dict(zip(AGGREGATES, values, strict=True))


def prm_columns(
    reader: PrmReader,
    responses: Mapping[str, Response],
    problems: Mapping[str, Problem],
    out: Path,
    *,
    progress: Progress,
) -> Columns:
    """Scores of a PRM (`<name>-last` and so on) or an ORM (`<name>`); what was read lies in `out/scores`.

    Raises:
        UserError: `out` holds the scores of another model under this name.
    """
    check_model(out / "scores" / f"{reader.name}.job.json", reader.identity)
    pairs = {name: (problems[r.problem_id].prompt, r.text) for name, r in responses.items()}
    rows = scored_rows(out / "scores" / f"{reader.name}.jsonl", pairs, reader.read, progress=progress)
    record = reader.scorer.record
    if record.scope == "program":
        return {
            reader.name: {name: float(row["score"][-1]) if len(row["score"]) else np.nan for name, row in rows.items()}
        }
    columns: Columns = {f"{reader.name}-{kind}": {} for kind in AGGREGATES}
    for name, row in rows.items():
        neutral = [line.neutral for line in code_lines(responses[name].text)]
        for kind, value in aggregates(row["score"], neutral, record).items():
            columns[f"{reader.name}-{kind}"][name] = value
    return columns


def likelihood_columns(
    folder: Path,
    responses: Mapping[str, Response],
    out: Path,
    *,
    device: str,
    progress: Progress,
    fingerprint_of_ids: str = "",
) -> Columns:
    """Mean and sum of log p of the sampled ids, end-of-sequence token included, at temperature 1.

    Args:
        fingerprint_of_ids: of the tokenizer that the ids belong to; empty: they have to decode to the texts.

    Raises:
        UserError: no usable policy, or its tokenizer is another one than that of the ids.
    """
    check_model(out / "scores" / "likelihood.job.json", {"model": folder_digest(folder)})
    path, names = (
        out / "scores" / "likelihood.jsonl",
        sorted(responses, key=lambda name: len(responses[name].token_ids)),
    )
    with JsonlAppender(path) as appender:
        known = {row["id"]: float(row["sum"]) for row in read_jsonl(path, dict)}
        if set(names) - known.keys():
            model, tokenizer = load_policy(folder, device=device)
            _refuse_other_ids([responses[name] for name in names], tokenizer, fingerprint_of_ids, folder)
            for start in range(0, len(names), ROWS):
                batch = names[start : start + ROWS]
                if all(name in known for name in batch):
                    continue
                pairs = [(responses[name].prompt_ids, responses[name].token_ids) for name in batch]
                # Six digits are kept, so that a value read back is the value that was computed.
                new = [round(value, 6) for value in log_likelihoods(model, pairs)]
                rows = [(name, value) for name, value in zip(batch, new, strict=True) if name not in known]
                known |= dict(rows)
                appender.append(*({"id": name, "sum": value} for name, value in rows))
                progress(min(start + ROWS, len(names)), len(names))
    counts = {name: max(1, len(responses[name].token_ids)) for name in names}
    mean, total = LIKELIHOOD
    return {mean: {name: known[name] / counts[name] for name in names}, total: {name: known[name] for name in names}}


def log_likelihoods(model: PreTrainedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    """log p of each response of (prompt ids, response ids) at temperature 1, `ROWS` in one forward pass, in nats."""
    found: list[float] = []
    for start in range(0, len(pairs), ROWS):
        with torch.inference_mode():
            found += [-sum(row) for row in token_surprise(model, pairs[start : start + ROWS])]
    return found


def _refuse_other_ids(
    responses: Sequence[Response], tokenizer: Tokenizer, fingerprint_of_ids: str, folder: Path
) -> None:
    if fingerprint_of_ids:
        if tokenizer_fingerprint(tokenizer) != fingerprint_of_ids:
            raise UserError(
                f"--policy {folder}: its tokenizer is another one than that of the samples' token ids; give the model "
                "that drew them"
            )
        return
    text = TokenText(tokenizer)
    for response in responses:
        cut_response(response, text)


def open_readers(
    prms: Sequence[tuple[str, Path]], orms: Sequence[tuple[str, Path]], device: str
) -> tuple[list[PrmReader], list[PrmReader]]:
    """(PRMs, ORMs).

    Raises:
        UserError: a folder is no model of its kind.
    """
    readers = [[PrmReader(folder, name, device=device) for name, folder in group] for group in (prms, orms)]
    for (_, folder), reader in zip((*prms, *orms), (*readers[0], *readers[1]), strict=True):
        is_orm, wanted = reader.scorer.record.scope == "program", reader in readers[1]
        if is_orm != wanted:
            what = "an ORM: give it as --orm" if is_orm else "a PRM, which scores lines: give it as --prm"
            raise UserError(f"{folder}: {what}")
    return readers[0], readers[1]
