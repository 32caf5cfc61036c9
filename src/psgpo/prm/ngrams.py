"""A linear PRM on hashed n-grams: learns from text in seconds, without a tokenizer, and is a baseline to beat.

    s(problem, prefix) = Σ over features f of (problem, prefix) of w[hash(f)],   P(good) = σ(s)

Features look at the prefix's last line, and at what the names in it have to do with the lines before and with the task:
n-grams of its tokens; of its tokens with each name replaced by where it was last seen; of its shape, each name replaced
by its number in the line; its first token with the line above; words of the task with its signs and numbers.

Trained by AdaGrad on the log loss. On disk: `weights.npy` (float32, one per bucket) and `psgpo_prm.json`.
"""

# F features of one prefix

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psgpo.errors import UserError
from psgpo.lines import code_lines
from psgpo.prm.calibrate import probabilities, sigmoid
from psgpo.prm.record import ScorerRecord, needs_orm
from psgpo.prm.texts import TextExample

WEIGHTS = "weights.npy"
BUCKETS = 2**19
_TOKEN = re.compile(r"\w+|==|!=|<=|>=|//|\*\*|[-+*/%]=|[^\w\s]")
_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "def return if elif else for in while not and or is None True False break continue import from as try except "
        "lambda with yield pass class",
    )
)
_KNOWN = frozenset(
    re.findall(
        r"\w+",
        "max min sum len sorted set range list str int float abs all any map filter zip enumerate dict tuple reversed "
        "print sort append count math re",
    )
)
"""Names that mean the same everywhere, so they stay names."""


def features(problem: str, lines: Sequence[str]) -> NDArray[np.int64]:
    """Buckets of a prefix, each once. Shape: (F,).

    Args:
        lines: of the prefix, the last one being judged.
    """
    above = [_TOKEN.findall(line) for line in lines[:-1]]
    line, words = lines[-1], frozenset(re.findall(r"[a-z]+|\d+", problem.lower()))
    tokens = _TOKEN.findall(line)
    seen: dict[str, list[int]] = {}
    for number, row in enumerate(above):
        for token in row:
            if _is_name(token):
                seen.setdefault(token, []).append(number)
    first = tokens[0] if tokens else ""
    found: set[str] = set()
    places, shape = _abstracted(tokens, seen, len(above), words)
    both = [a + b if b.startswith("v") else a for a, b in zip(places, shape, strict=True)]
    for tag, sequence, sizes in (
        ("a", tokens, (1, 2, 3, 4)),
        ("b", places, (1, 2, 3)),
        ("c", shape, (1, 2, 3, 4, 5, 6)),
        ("m", both, (2, 3, 4)),
    ):
        found |= _ngrams(tag, ["^", *sequence, "$"], sizes)
    found.add("W" + " ".join(shape))
    found |= {f"p{token}|{first}" for token in (above[-1] if above else ())}
    if above:
        step = np.sign(_indent(line) - _indent(lines[-2]))
        found |= {f"h{''.join(above[-1][:1])}|{first}|{step}", f"e{''.join(above[-1][-1:])}|{step}"}
        once = [places for name, places in seen.items() if len(places) == 1 and name not in tokens]
        fresh = sum(places[0] == len(above) - 1 for places in once)
        found |= {f"U{min(4, len(once))}|{first}", f"V{min(4, fresh)}|{first}"}
    telling = {token for token in tokens if not _is_name(token) or token in _KNOWN}
    found |= {f"q{word}|{token}" for word in words for token in telling}
    found |= {f"d{'q' if token in words else ''}{token}" for token in tokens if token.isdigit()}
    found |= {f"r{len(tokens) - len(set(tokens))}", f"n{min(12, len(above))}", f"n{min(12, len(above))}|{first}"}
    return np.array(sorted({zlib.crc32(feature.encode()) % BUCKETS for feature in found}), dtype=np.int64)


def _is_name(token: str) -> bool:
    return token.isidentifier() and token not in _KEYWORDS


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _abstracted(
    tokens: Sequence[str], seen: dict[str, list[int]], above: int, words: frozenset[str]
) -> tuple[list[str], list[str]]:
    """Tokens with names replaced: by where they were last seen (and whether once), and by their number in the line."""
    places: list[str] = []
    shape: list[str] = []
    numbers: dict[str, int] = {}
    for token in tokens:
        if not _is_name(token):
            places.append(token)
            shape.append(token)
            continue
        rows = seen.get(token)
        ago = "new" if rows is None else f"{min(3, above - rows[-1])}{'once' if len(rows) == 1 else ''}"
        known = token if token in _KNOWN else ""
        places.append(f"{known or 'I'}{ago}{'q' if token.lower() in words else ''}")
        shape.append(f"v{known}{numbers.setdefault(token, len(numbers))}")
    return places, shape


def _ngrams(tag: str, sequence: Sequence[str], sizes: Iterable[int]) -> set[str]:
    return {tag + "\x1f".join(sequence[i : i + n]) for n in sizes for i in range(len(sequence) - n + 1)}


def train_ngrams(
    train: Sequence[TextExample],
    choosing: Sequence[TextExample],
    *,
    epochs: int,
    rate: float,
    seed: int,
    batch_size: int = 64,
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
    best, kept = weights.astype(np.float32), 0
    for epoch in range(1, epochs + 1):
        for batch in np.array_split(rng.permutation(len(rows)), max(1, len(rows) // batch_size)):
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
