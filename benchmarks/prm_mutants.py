"""A PRM on verified mutants, trained from scratch here, against majority, position and n-grams alone.

    psgpo mutate ... --split train --out labels/mbpp-train       # and test, validation, humaneval: docs/prm-mutants.md
    python benchmarks/prm_mutants.py --measured labels/mbpp-train --more labels/mbpp-test labels/mbpp-validation \
        labels/humaneval --out prm-mutants.json

1. Three linear models of the hashed features of `psgpo.prm.ngram_features`: whether a line is right, learned from
   changed and reference lines; the same from all lines; and which line is the right one among itself and its
   alternatives (`alternatives.py`: the line with another variable, operator, number ...), learned from right
   lines only.
2. Boosted trees on what these say of the line and of its alternatives: would one small change make it read better?
   The linear scores they learn from come from models that have not seen the problem (four folds).
3. Thresholds are fitted on choosing problems. Held-out problems of `--measured` are measured once; problems whose
   program is nearly that of a held-out one are left out.

Measured on (a) every labelled line of every program, each (problem, prefix) once, and (b) the changed lines and the
lines of the references, nearly balanced, which is what the PRLCoder paper counts.
"""

# N lines, V variants (a line itself and its alternatives), B buckets, S scores of one variant

from __future__ import annotations

import argparse
import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alternatives import CHANGES, alternatives
from boosting import BoostedTrees
from psgpo.jsonl import finite, write_json
from psgpo.mutation.examples import line_examples
from psgpo.mutation.labelled import LabelledProgram, load_programs
from psgpo.prm.above import Above, indent_of, tokens_of
from psgpo.prm.calibrate import sigmoid
from psgpo.prm.measure import classification
from psgpo.prm.ngram_features import BUCKETS, line_features

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ids = NDArray[np.int64]
HELD_OUT, CHOOSING, TWIN = 0.3, 0.12, 0.6
FOLDS, TREES, ALTERNATIVES, BATCH = 4, 3, 25, 32
FAR = 12.0
"""Where a line has no alternative of a kind, it counts as so much better."""
SHARE_OF_REST = 0.3
"""Of the lines that are neither changed nor a reference's, trained on with as much more weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One labelled line in its place."""

    problem_id: str
    prompt: str
    lines: tuple[str, ...]
    """The prefix; its last line is meant."""
    good: bool
    changed: bool
    """A changed line, or one of the reference: (b)."""


@dataclass(frozen=True, kw_only=True)
class Variants:
    """The features of lines and of their alternatives, each line before its own."""

    buckets: NDArray[np.int32]
    begins: Ids
    """Where each variant's features begin. Shape: (V + 1,)."""
    starts: Ids
    """Where each line's variants begin, the line itself being the first. Shape: (N + 1,)."""
    change: NDArray[np.int64]
    """Index into `CHANGES`; -1 for a line itself. Shape: (V,)."""
    plain: Array
    """What is known of a line without a model. Shape: (N, P)."""


# --- problems and lines


def share(text: str, purpose: str) -> float:
    """A number in [0, 1) that is the same for a text in every run."""
    digest = hashlib.blake2b(f"{purpose}\x1f{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def shingles(code: str) -> set[tuple[str, ...]]:
    """Runs of four tokens, names replaced by the order in which they come."""
    names: dict[str, str] = {}
    tokens = re.findall(r"\w+|[^\w\s]", code)
    plain = [names.setdefault(t, f"n{len(names)}") if t.isidentifier() else t for t in tokens]
    return {tuple(plain[i : i + 4]) for i in range(len(plain) - 3)}


def split(measured: Sequence[LabelledProgram], more: Sequence[LabelledProgram]) -> dict[str, list[LabelledProgram]]:
    """`train`, `choose`, `test` by problem, and `twins`: what is left out because it is nearly a held-out program."""
    test = {p.problem_id for p in measured if share(p.problem_id, "prm-mutants-test") < HELD_OUT}
    programs = [*measured, *more]
    references = {p.problem_id: shingles(p.code) for p in programs if p.family == "reference"}
    twins = set()
    for problem, runs in references.items():
        for other in test:
            theirs = references[other]
            if problem not in test and len(runs & theirs) >= TWIN * max(1, min(len(runs), len(theirs))):
                twins.add(problem)
    parts: dict[str, list[LabelledProgram]] = {"train": [], "choose": [], "test": [], "twins": []}
    for program in programs:
        problem = program.problem_id
        chooses = share(problem, "prm-mutants-choose") < CHOOSING
        part = "test" if problem in test else "twins" if problem in twins else "choose" if chooses else "train"
        parts[part].append(program)
    return parts


def labelled_lines(programs: Sequence[LabelledProgram]) -> list[Line]:
    """Each (problem, prefix) once."""
    changed = set()
    for program in programs:
        m = program.mutated_line
        for number in range(1, len(program.lines) + 1) if m is None else [m]:
            changed.add((program.problem_id, "\n".join(program.lines[:number])))
    return [
        Line(
            problem_id=example.problem_id,
            prompt=example.prompt,
            lines=tuple(example.prefix.split("\n")),
            good=example.label > 0,
            changed=(example.problem_id, example.prefix) in changed,
        )
        for example in line_examples(programs)
    ]


def variants_of(lines: Sequence[Line]) -> Variants:
    """The features of every line and of at most `ALTERNATIVES` of its alternatives, drawn by the line's own text."""
    buckets: list[NDArray[np.int32]] = []
    change: list[int] = []
    starts, plain = [0], []
    for line in lines:
        above, text = Above(line.prompt, line.lines[:-1]), line.lines[-1]
        tokens, indent = tokens_of(text), indent_of(text)
        found = alternatives(above, tokens, indent)
        if len(found) > ALTERNATIVES:
            found = random.Random("\n".join(line.lines)).sample(found, ALTERNATIVES)
        for words, deep in ((tokens, indent), *((a.tokens, a.indent) for a in found)):
            buckets.append(line_features(above, words, deep).astype(np.int32))
        change += [-1, *(CHANGES.index(a.change) for a in found)]
        starts.append(len(buckets))
        first = tokens[0] if tokens else ""
        kinds = [first == word for word in ("return", "for", "if", "elif", "else", "def", "while")]
        plain.append([len(line.lines), len(tokens), indent, "=" in tokens, *kinds])
    return Variants(
        buckets=np.concatenate(buckets),
        begins=np.concatenate([[0], np.cumsum([len(b) for b in buckets])]).astype(np.int64),
        starts=np.array(starts),
        change=np.array(change),
        plain=np.array(plain, dtype=np.float64),
    )


# --- linear models


def ranges(starts: Ids, lengths: Ids) -> Ids:
    """starts[0], starts[0] + 1 ... for each pair, one behind the other."""
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def descend(
    data: Variants, batches: Iterator[Ids], derivative: Callable[[Ids, Array], Array], *, rate: float
) -> NDArray[np.float64]:
    """Weights (B,) by AdaGrad.

    Args:
        batches: of variants.
        derivative: (variants of a batch, their scores) to the loss's derivative by each score.
    """
    weights, squares = np.zeros(BUCKETS), np.full(BUCKETS, 1e-10)
    for batch in batches:
        lengths = data.begins[batch + 1] - data.begins[batch]
        flat = data.buckets[ranges(data.begins[batch], lengths)]
        owner = np.repeat(np.arange(len(batch)), lengths)
        score = np.bincount(owner, weights[flat], len(batch))
        gradient = np.bincount(flat, derivative(batch, score)[owner], BUCKETS)
        touched = np.flatnonzero(gradient)
        squares[touched] += gradient[touched] ** 2
        weights[touched] -= rate * gradient[touched] / np.sqrt(squares[touched])
    return weights


def drawn(lines: Ids, epochs: int) -> Iterator[Ids]:
    """Lines in batches, in another order every epoch."""
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        yield from np.array_split(rng.permutation(lines), max(1, len(lines) // BATCH))


def learn_verdict(data: Variants, lines: Ids, good_N: Flags, *, epochs: int) -> Array:
    """Log loss of each line's own label."""
    truth_V = np.repeat(good_N, np.diff(data.starts))
    batches = (data.starts[batch] for batch in drawn(lines, epochs))
    return descend(data, batches, lambda batch, score: (sigmoid(score) - truth_V[batch]) / len(batch), rate=0.02)


def learn_choice(data: Variants, lines: Ids, *, epochs: int) -> Array:
    """Cross entropy of the line itself among itself and its alternatives."""
    lines = lines[np.diff(data.starts)[lines] > 1]

    def derivative(batch: Ids, score: Array) -> Array:
        first = np.flatnonzero(data.change[batch] < 0)
        sizes = np.diff(np.append(first, len(batch)))
        chance = np.exp(score - np.repeat(np.maximum.reduceat(score, first), sizes))
        chance /= np.repeat(np.add.reduceat(chance, first), sizes)
        chance[first] -= 1
        return chance / len(first)

    groups = (ranges(data.starts[batch], data.starts[batch + 1] - data.starts[batch]) for batch in drawn(lines, epochs))
    return descend(data, groups, derivative, rate=0.05)


def linear_models(data: Variants, chosen_N: Flags, lines: Sequence[Line]) -> list[Array]:
    """Weights of the three models, learned from the chosen lines."""
    good_N, changed_N = np.array([line.good for line in lines]), np.array([line.changed for line in lines])
    return [
        learn_verdict(data, np.flatnonzero(chosen_N & changed_N), good_N, epochs=4),
        learn_verdict(data, np.flatnonzero(chosen_N), good_N, epochs=3),
        learn_choice(data, np.flatnonzero(chosen_N & changed_N & good_N), epochs=2),
    ]


# --- what trees see


def scores_of(data: Variants, weights: Array, chunk: int = 20_000) -> Array:
    """Score of every variant. Shape: (V,)."""
    found = []
    for low in range(0, len(data.begins) - 1, chunk):
        begins = data.begins[low : low + chunk + 1]
        found.append(np.add.reduceat(weights[data.buckets[begins[0] : begins[-1]]], begins[:-1] - begins[0]))
    return np.concatenate(found)


def against_alternatives(data: Variants, score_V: Array) -> Array:
    """A line's score, and how it compares with its alternatives, all and by kind of change. Shape: (N, 6 + kinds)."""
    first, sizes = data.starts[:-1], np.diff(data.starts)
    own_N = score_V[first]
    lead_V = np.repeat(own_N, sizes) - score_V
    others = np.maximum(1, sizes - 1)
    columns = [
        own_N,
        -np.log(np.add.reduceat(np.exp(-np.clip(lead_V, -30, 30)), first)),
        np.add.reduceat(lead_V, first) / others,
        np.add.reduceat((lead_V < 0).astype(float), first),
        np.add.reduceat((lead_V < 0).astype(float), first) / others,
    ]
    masks = (data.change >= 0, *(data.change == kind for kind in range(len(CHANGES))))
    near_V = np.clip(lead_V, -FAR, FAR)
    columns += [np.minimum.reduceat(np.where(mask_V, near_V, FAR + 1), first) for mask_V in masks]
    return np.stack(columns, axis=1)


def seen_by_trees(data: Variants, models: Sequence[Array]) -> Array:
    return np.concatenate([*(against_alternatives(data, scores_of(data, w)) for w in models), data.plain], axis=1)


def out_of_fold(data: Variants, lines: Sequence[Line]) -> Array:
    """`seen_by_trees` of training lines, by models that have not seen their problem."""
    fold_N = np.array([int(share(line.problem_id, "prm-mutants-fold") * FOLDS) for line in lines])
    found: Array | None = None
    for fold in range(FOLDS):
        seen = seen_by_trees(data, linear_models(data, fold_N != fold, lines))
        found = np.zeros_like(seen) if found is None else found
        found[fold_N == fold] = seen[fold_N == fold]
        say(f"fold {fold + 1} of {FOLDS}")
    assert found is not None
    return found


# --- measuring


def best_threshold(score_N: Array, good_N: Flags) -> float:
    """The score from which calling a line good is right most often."""
    order = np.argsort(score_N)
    ranked = score_N[order]
    right = good_N.sum() + np.concatenate([[0], np.cumsum(np.where(good_N[order], -1, 1))])  # the first k called bad
    borders = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])
    cut = int(np.where(borders, right, -1).argmax())
    bounds = np.concatenate([[-np.inf], ranked, [np.inf]])
    return float(bounds[cut + 1]) if cut in (0, len(ranked)) else float((bounds[cut] + bounds[cut + 1]) / 2)


def by_position(train: Sequence[Line], weight_N: Array, lines: Sequence[Line]) -> Array:
    """Share of good lines among training lines of the same number."""
    last = 20
    place = np.array([min(last, len(line.lines)) for line in train])
    good = np.bincount(place, weight_N * [line.good for line in train], last + 1) + 1
    chance = good / (np.bincount(place, weight_N, last + 1) + 2)
    return np.array([chance[min(last, len(line.lines))] for line in lines])


def measured(lines: Sequence[Line], score_N: Array, threshold: float) -> dict[str, Any]:
    """Measures with a 95 % interval of the accuracy over problems."""
    good_N = np.array([line.good for line in lines])
    right_N = (score_N >= threshold) == good_N
    _, place = np.unique([line.problem_id for line in lines], return_inverse=True)
    right_P, count_P = np.bincount(place, right_N), np.bincount(place)
    draws = np.random.default_rng(0).integers(len(count_P), size=(2000, len(count_P)))
    accuracy = right_P[draws].sum(axis=1) / count_P[draws].sum(axis=1)
    found = classification(good_N, score_N >= threshold, score_N)
    return finite({"problems": len(count_P), **found, "interval": np.percentile(accuracy, [2.5, 97.5]).tolist()})  # type: ignore[no-any-return]


def say(text: str) -> None:
    print(f"{time.process_time():5.0f} s  {text}", flush=True)


def compare(lines: dict[str, list[Line]], data: dict[str, Variants], seen: Array, models: Sequence[Array]) -> Any:
    """Measures by set of lines, method and part."""
    train = lines["train"]
    good_N, changed_N = np.array([line.good for line in train]), np.array([line.changed for line in train])
    others = {name: seen_by_trees(data[name], models) for name in ("choose", "test")}
    width = (seen.shape[1] - data["train"].plain.shape[1]) // len(models)
    found: dict[str, Any] = {}
    for what, column in (("all lines", width), ("changed lines", 0)):
        every = what == "all lines"
        kept_N = changed_N | every
        weight_N = np.where(changed_N, 1.0, 1 / SHARE_OF_REST)[kept_N]
        trees = [BoostedTrees(seed=seed).fit(seen[kept_N], good_N[kept_N], weight_N) for seed in range(TREES)]
        kept = {name: np.array([line.changed or every for line in lines[name]]) for name in others}
        chosen = {name: [line for line, k in zip(lines[name], kept[name], strict=True) if k] for name in others}
        rows = {name: others[name][kept[name]] for name in others}
        before = [line for line, k in zip(train, kept_N, strict=True) if k]
        scores = {
            "position": {name: by_position(before, weight_N, chosen[name]) for name in others},
            "n-grams": {name: rows[name][:, column] for name in others},
            "n-grams and alternatives": {
                name: np.mean([t.scores(rows[name]) for t in trees], axis=0) for name in others
            },
        }
        truth = np.array([line.good for line in chosen["choose"]])
        for method, score in scores.items():
            threshold = best_threshold(score["choose"], truth)
            result = {name: measured(chosen[name], score[name], threshold) for name in others}
            found.setdefault(what, {})[method] = result
            say(f"{what}, {method}: {result['test']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, required=True, help="folder of psgpo mutate; part of it is held out")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further folders to train on")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the measures")
    args = parser.parse_args()
    folders = [load_programs(folder / "programs.jsonl") for folder in (args.measured, *args.more)]
    parts = split(folders[0], [program for programs in folders[1:] for program in programs])
    lines = {name: labelled_lines(parts[name]) for name in ("train", "choose", "test")}
    lines["train"] = [
        line for line in lines["train"] if line.changed or share("\n".join(line.lines), "rest") < SHARE_OF_REST
    ]
    data = {}
    for name, part in lines.items():
        data[name] = variants_of(part)
        say(f"{name}: {len({line.problem_id for line in part})} problems, {len(part)} lines")
    train = lines["train"]
    seen = out_of_fold(data["train"], train)
    models = linear_models(data["train"], np.ones(len(train), dtype=bool), train)
    write_json(args.out, compare(lines, data, seen, models))


if __name__ == "__main__":
    main()
