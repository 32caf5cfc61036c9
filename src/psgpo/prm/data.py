"""What a PRM is trained and measured on: line labels become regression targets at line-end tokens.

Targets of line m out of T, with m* the last solvable line:

- `sign` (PSGPO, section 4.1): l_m = +1 for m <= m*, -1 after, 0 on neutral lines.
- `progress` (ours, not in the paper): the share of the program that is done and right. Where a label says how much of
  a program its good lines stand for (`LineLabels.done`, found by splicing): that, in equal steps over the code lines
  up to m*. Else min(m, m*) / T.
- `soft` (Math-Shepherd, arXiv 2312.08935, "soft estimation"): the share of the completions of the first m lines that
  passed. Neutral lines weigh nothing; of a response that passes, which is never probed, only the last code line has a
  known rate: 1.

With exact labels of the embedded benchmark m* is the last line on track and the progress is the oracle's own (finished
operations / operations). They are an upper bound for analysis, not part of the method.
"""

# L code lines, T response tokens

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.lines import code_lines
from psgpo.records import LineLabels, Response
from psgpo.seeds import derive_seed, is_held_out

ResponseKey = tuple[str, int, str]
"""(problem id, index, checkpoint): names one response of a run."""


class HasProblem(Protocol):
    """Anything that belongs to a problem."""

    @property
    def problem_id(self) -> str: ...


Item = TypeVar("Item", bound=HasProblem)


class ExactLines(Protocol):
    """What the embedded benchmark's oracle knows about the lines of one response."""

    @property
    def last_on_track(self) -> int:
        """How many leading lines leave the program completable; 0 when the first line is wrong."""

    @property
    def progress(self) -> Sequence[float]:
        """Per line, the share of the operations that are done and right after it, in [0, 1]. Shape: (L,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactRecord:
    """`ExactLines` as read from `labels/exact.jsonl`."""

    last_on_track: int
    progress: tuple[float, ...]


def load_exact(path: Path | str) -> dict[ResponseKey, ExactRecord]:
    """Exact labels of a run, by response; rows hold problem_id, index, checkpoint, last_on_track and progress.

    Raises:
        UserError: the file is missing or a row is malformed (file and line).
    """

    def parse(row: dict[str, Any]) -> tuple[ResponseKey, ExactRecord]:
        key = (str(row["problem_id"]), int(row["index"]), str(row["checkpoint"]))
        return key, ExactRecord(last_on_track=int(row["last_on_track"]), progress=tuple(row["progress"]))

    return dict(read_jsonl(path, parse))


@dataclass(frozen=True, kw_only=True, slots=True)
class PrmExample:
    """One response with a regression target at the end of every line."""

    problem_id: str
    checkpoint: str
    index: int
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The response. Shape: (T,)."""
    line_ends: tuple[int, ...]
    """Per line, index into `token_ids` of the token that ends it. Shape: (L,)."""
    neutral: tuple[bool, ...]
    """Comment, blank and docstring lines. Shape: (L,)."""
    last_solvable: int
    """m*: of the search, or the last line on track of the oracle."""
    targets: tuple[float, ...]
    """Shape: (L,)."""
    weights: tuple[float, ...]
    """1, or 0 for a line that leaves its end token to another line (see `token_weights`). Shape: (L,)."""

    @property
    def key(self) -> ResponseKey:
        """Which response this is."""
        return self.problem_id, self.index, self.checkpoint

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.token_ids)


def response_key(response: Response) -> ResponseKey:
    """Which response this is."""
    return response.problem_id, response.index, response.checkpoint


def build_examples(
    labels: Iterable[LineLabels],
    settings: PrmSettings,
    exact: Mapping[ResponseKey, ExactLines] | None = None,
) -> list[PrmExample]:
    """Regression examples for `settings.target`, one per labelled response that has lines.

    Args:
        labels: labelled responses; their `line_ends` are used whichever truth is asked for.
        exact: the oracle's answer per response. With `settings.labels = "oracle"` it replaces the search's.

    Raises:
        UserError: `settings.labels` is `oracle` and a response has no exact labels.
    """
    examples: list[PrmExample] = []
    for label in labels:
        if not label.line_ends or (label.unlabelled and settings.labels != "oracle"):
            continue
        truth = None
        if settings.labels == "oracle":
            truth = (exact or {}).get(response_key(label.response))
            if truth is None:
                name = "/".join(map(str, response_key(label.response)))
                raise UserError(
                    f"prm labels = 'oracle': no exact labels for response {name}; run the label stage again"
                )
        examples.append(_example(label, settings, truth))
    return examples


def _example(label: LineLabels, settings: PrmSettings, truth: ExactLines | None) -> PrmExample:
    response = label.response
    neutral = tuple(line.neutral for line in code_lines(response.text))
    L = len(label.line_ends)
    assert len(neutral) == L == len(label.labels), "labels and lines of a response disagree"
    last = label.last_solvable if truth is None else truth.last_on_track
    if settings.target == "progress":
        targets = progress_targets(neutral, last, label.done, label.joined) if truth is None else tuple(truth.progress)
    elif settings.target == "soft":
        targets = tuple((value + 1) / 2 for value in (label.labels if truth is None else prefix_signs(L, last)))
    else:
        signs = label.labels if truth is None else prefix_signs(L, last)
        targets = sign_targets(signs, neutral, last, neutral_labels=settings.neutral_labels)
    assert len(targets) == L
    return PrmExample(
        problem_id=response.problem_id,
        checkpoint=response.checkpoint,
        index=response.index,
        prompt_ids=tuple(response.prompt_ids),
        token_ids=tuple(response.token_ids),
        line_ends=tuple(label.line_ends),
        neutral=neutral,
        last_solvable=last,
        targets=tuple(float(value) for value in targets),
        weights=_weights(
            label, neutral, known=truth is not None, target=settings.target, neutral_labels=settings.neutral_labels
        ),
    )


def _weights(
    label: LineLabels, neutral: Sequence[bool], *, known: bool, target: str, neutral_labels: bool
) -> tuple[float, ...]:
    """`token_weights`, but 0 for lines that the search left without a label; for progress then 0 for all lines."""
    weights = token_weights(label.line_ends, neutral)
    if target == "soft":
        return _soft_weights(label, neutral, weights, known=known)
    if known or label.real_valued:
        return weights
    open_lines = _open_lines(label.labels, neutral, neutral_too=not neutral_labels)
    if target == "progress" and any(open_lines):
        # m* of a response that passes is known, whatever its lines are labelled with (`soft`: the last alone).
        return weights if label.response.verdict.passed else (0.0,) * len(weights)
    return tuple(0.0 if is_open else weight for is_open, weight in zip(open_lines, weights, strict=True))


def _open_lines(labels: Sequence[float], neutral: Sequence[bool], *, neutral_too: bool) -> list[bool]:
    """Which lines the search left without a label: code lines; with `neutral_too`, which has them carry the label of
    their prefix, neutral lines behind an open code line too, and those at the top before one.

    >>> _open_lines([0, 1, 0, 0, 0], [True, False, True, False, True], neutral_too=True)
    [False, False, False, True, True]
    """
    found = [not flag and value == 0 for flag, value in zip(neutral, labels, strict=True)]
    if neutral_too:
        code = [m for m, flag in enumerate(neutral) if not flag]
        for m in (m for m, flag in enumerate(neutral) if flag and code):
            found[m] = found[max((c for c in code if c < m), default=code[0])]
    return found


def _soft_weights(
    label: LineLabels, neutral: Sequence[bool], weights: Sequence[float], *, known: bool
) -> tuple[float, ...]:
    """0 on neutral lines, and on those of a passing response but its last code line."""
    code = [m for m, flag in enumerate(neutral) if not flag]
    rated = set(code[-1:] if label.response.verdict.passed and not known else code)
    return tuple(weight if m in rated else 0.0 for m, weight in enumerate(weights))


def sign_targets(
    labels: Sequence[float], neutral: Sequence[bool], last_solvable: int, *, neutral_labels: bool
) -> tuple[float, ...]:
    """l_m per line: the label itself on code lines; on neutral lines 0, or the prefix's ±1 without `neutral_labels`.

    >>> sign_targets([1, 0, -1], [False, True, False], 2, neutral_labels=False)
    (1.0, 1.0, -1.0)
    """
    fill = [0.0 if neutral_labels else 1.0 if m <= last_solvable else -1.0 for m in range(1, len(labels) + 1)]
    return tuple(f if is_neutral else float(label) for label, is_neutral, f in zip(labels, neutral, fill, strict=True))


def first_problems(examples: Sequence[PrmExample], responses: int) -> list[PrmExample]:
    """The examples of so many problems that there are at most `responses`, in the order given; for label budgets.

    Problems come in an order that a hash of their ids makes, so lengths are mixed and a larger budget adds to a smaller
    one. Of the problem that no longer fits the first responses are taken.
    """
    place = {name: derive_seed(0, "label-budget", name) for name in {example.problem_id for example in examples}}
    chosen = sorted(range(len(examples)), key=lambda i: (place[examples[i].problem_id], i))[:responses]
    return [examples[i] for i in sorted(chosen)]


def with_noise(examples: Sequence[PrmExample], settings: PrmSettings, seed: int) -> list[PrmExample]:
    """The examples with wrong labels at a known rate, to learn how good labels must be: `settings.noise` of them, as
    a coin per response decides, get an m* drawn from 0 .. T, each as likely, and the targets that follow from it.

    The right m* may be drawn too, and exact progress becomes that of lines, min(m, m*) / T. Whether a response is among
    them and what is drawn follow from `seed` and its key: a higher rate changes the same responses in the same way, and
    more of them.
    """
    return [_redrawn(e, settings, seed) if _coin(e, seed) < settings.noise else e for e in examples]


def _coin(example: PrmExample, seed: int) -> float:
    return derive_seed(seed, "label-noise", *example.key) / 2**63


def _redrawn(example: PrmExample, settings: PrmSettings, seed: int) -> PrmExample:
    L = len(example.line_ends)
    last = derive_seed(seed, "label-noise-last", *example.key) % (L + 1)
    if settings.target == "progress":
        targets = progress_targets(example.neutral, last)
    else:
        targets = sign_targets(prefix_signs(L, last), example.neutral, last, neutral_labels=settings.neutral_labels)
    weights = token_weights(example.line_ends, example.neutral)
    return replace(example, last_solvable=last, targets=targets, weights=weights)


def prefix_signs(lines: int, last_solvable: int) -> tuple[float, ...]:
    """+1 for m <= m*, -1 after, for m = 1..T.

    >>> prefix_signs(3, 2)
    (1.0, 1.0, -1.0)
    """
    return tuple(1.0 if m <= last_solvable else -1.0 for m in range(1, lines + 1))


def progress_targets(
    neutral: Sequence[bool],
    last_solvable: int,
    done: float | None = None,
    joined: tuple[int, float] | None = None,
) -> tuple[float, ...]:
    """min(m, m*) / T for m = 1..T; with `done`, done · c(min(m, m*)) / c(m*), c counting lines that are not neutral.

    T of a failed response is no measure of the program that was asked for, and neutral lines bring it no further;
    `done` knows both. With `joined` = (n, share) it is `share` at line n, in equal steps before it and after it, so
    that a twin says of its first lines what the response says of them.

    >>> progress_targets([False] * 4, 2)
    (0.25, 0.5, 0.5, 0.5)
    >>> progress_targets([False, True, False, False], 3, 0.5)
    (0.25, 0.25, 0.5, 0.5)
    >>> progress_targets([False] * 4, 4, 1.0, (2, 0.25))
    (0.125, 0.25, 0.625, 1.0)
    """
    if done is None:
        return tuple(min(m, last_solvable) / len(neutral) for m in range(1, len(neutral) + 1))
    code = [0, *itertools.accumulate(int(not flag) for flag in neutral)]  # c(0), c(1), …
    total = code[last_solvable]
    reached = [code[min(m, last_solvable)] for m in range(1, len(neutral) + 1)]
    kept, share = (0, 0.0) if joined is None else (code[joined[0]], joined[1])
    if not kept or kept == total:
        return tuple(done * count / total if total else 0.0 for count in reached)
    rest = (done - share) / (total - kept)
    return tuple(share * count / kept if count <= kept else share + rest * (count - kept) for count in reached)


def token_weights(line_ends: Sequence[int], neutral: Sequence[bool]) -> tuple[float, ...]:
    """1 for the line that speaks for its end token, 0 for the others.

    A tokenizer that merges newlines (`\\n\\n`) ends several lines in one token, and a model has one score there. The
    last of them speaks, or the last that is not neutral: a blank line after a statement must not erase its label.

    >>> token_weights([3, 5, 5], [False, False, True])
    (1.0, 1.0, 0.0)
    """
    speaker: dict[int, int] = {}
    for m, end in enumerate(line_ends):
        if end not in speaker or not neutral[m] or neutral[speaker[end]]:
            speaker[end] = m
    return tuple(1.0 if speaker[end] == m else 0.0 for m, end in enumerate(line_ends))


def split_by_problem(items: Sequence[Item], holdout: float) -> tuple[list[Item], list[Item]]:
    """(train, held-out), never one problem on both sides; `holdout` is the expected share of problems held out.

    Raises:
        UserError: one side is empty.
    """
    sides: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        sides[is_held_out(item.problem_id, holdout)].append(item)
    if not sides[0] or not sides[1]:
        problems = len({item.problem_id for item in items})
        raise UserError(
            f"{problems} labelled problems give {len(sides[0])} responses to train on and {len(sides[1])} for the "
            f"{holdout:.0%} that measure or choose the epoch; label more problems (labels.holdout sets the share)"
        )
    return sides
