"""A linear PRM on hashed n-grams: learns from text in seconds, without a tokenizer, and is a baseline to beat.

    s(problem, prefix) = Σ over features f of (problem, prefix) of w[hash(f)],   P(good) = σ(s)

The features are those of `psgpo.prm.ngram_features`: n-grams of the prefix's last line, its names replaced by what they
are so far, and how it goes with the task and with the lines above.

Trained by AdaGrad on the log loss. On disk: `weights.npy` (float32, one per bucket) and `psgpo_prm.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.lines import code_lines
from psgpo.prm.calibrate import probabilities, sigmoid
from psgpo.prm.ngram_features import BUCKETS, features
from psgpo.prm.record import ScorerRecord, needs_orm
from psgpo.prm.texts import TextExample

WEIGHTS = "weights.npy"


def train_ngrams(
    train: Sequence[TextExample],
    choosing: Sequence[TextExample],
    *,
    epochs: int,
    rate: float,
    seed: int,
    batch_size: int = 32,
    patience: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float32], list[dict[str, float]]]:
    """(weights (BUCKETS,) of the epoch with the least log loss on `choosing`, log loss and accuracy of every epoch).

    Args:
        rate: of AdaGrad. Weights of examples count as they are.
        patience: stop after so many epochs without a smaller log loss on `choosing`; 0: never.
        progress: called with (epochs done, all epochs).
    """
    rows = [features(e.prompt, e.prefix.split("\n")) for e in train]
    chosen = [features(e.prompt, e.prefix.split("\n")) for e in choosing]
    target_N, weight_N = np.array([e.target for e in train]), np.array([e.weight for e in train])
    truth_N = np.array([e.target for e in choosing])
    weights, squares = np.zeros(BUCKETS), np.full(BUCKETS, 1e-10)
    rng = np.random.default_rng(seed)
    history: list[dict[str, float]] = []
    batches = max(1, len(rows) // batch_size)
    best, kept = weights.astype(np.float32), 0
    for epoch in range(1, epochs + 1):
        for batch in np.array_split(rng.permutation(len(rows)), batches):
            flat = np.concatenate([rows[i] for i in batch])
            owner = np.repeat(np.arange(len(batch)), [len(rows[i]) for i in batch])
            score = np.bincount(owner, weights=weights[flat], minlength=len(batch))
            error = weight_N[batch] * (sigmoid(score) - target_N[batch]) / len(batch)
            touched, place = np.unique(flat, return_inverse=True)
            gradient = np.bincount(place.reshape(-1), weights=error[owner])
            squares[touched] += gradient**2
            weights[touched] -= rate * gradient / np.sqrt(squares[touched])
        score = np.array([weights[row].sum() for row in chosen])
        loss = float(np.mean(np.logaddexp(0.0, score) - truth_N * score))
        if not history or loss < history[kept]["held_out_loss"]:
            best, kept = weights.astype(np.float32), epoch - 1
        history.append(
            {
                "epoch": epoch,
                "step": epoch * batches,
                "held_out_loss": loss,
                "held_out_accuracy": float(np.mean((score > 0) == (truth_N > 0.5))),
            }
        )
        if progress:
            progress(epoch, epochs)
        if patience and epoch - 1 - kept >= patience:
            break
    return best, history


class NgramScorer:
    """`TextScorer` of an n-gram folder."""

    def __init__(self, folder: Path, record: ScorerRecord) -> None:
        self.record = record
        self._name = str(folder)
        try:
            self._weights = np.load(folder / WEIGHTS, allow_pickle=False).astype(np.float64)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no usable {WEIGHTS} ({error}); train the PRM again") from None
        if self._weights.shape != (BUCKETS,):
            raise UserError(f"{folder}: {WEIGHTS} has shape {self._weights.shape}, not ({BUCKETS},); train it again")

    @property
    def threshold(self) -> float:
        return self.record.threshold

    def readable(self, problem: str, code: str) -> bool:
        return True

    def score_lines(self, problem: str, code: str) -> NDArray[np.float64]:
        lines = [line.text for line in code_lines(code)]
        rows = (features(problem, lines[:m]) for m in range(1, len(lines) + 1))
        return np.array([self._weights[row].sum() for row in rows], dtype=np.float64)

    def score_many(self, pairs: Sequence[tuple[str, str]]) -> list[NDArray[np.float64]]:
        return [self.score_lines(problem, code) for problem, code in pairs]

    def score_prefixes(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        rows = (features(problem, [line.text for line in code_lines(code)]) for problem, code in pairs)
        return np.array([self._weights[row].sum() for row in rows], dtype=np.float64)

    def probabilities(self, problem: str, code: str) -> NDArray[np.float64]:
        return probabilities(self.score_lines(problem, code), self.record.calibration, self.record.target)

    def score_program(self, problem: str, code: str) -> float:
        needs_orm(self.record, self._name)
        lines = [line.text for line in code_lines(code)]
        return float(self._weights[features(problem, lines)].sum()) if lines else float("nan")
