"""What better labels buy: one PRM per label strategy, all measured against exact labels on the same held-out problems.

    python benchmarks/labelling.py --labels FOLDER ...                   # makes the labels
    python benchmarks/label_value.py FOLDER --model POLICY [--seeds 2]

Same responses: every strategy labels all training responses, whatever that costs. Same completions: a strategy gets as
many completions as the one named by `--budget` drew, and labels as many problems as they suffice for.
The held-out problems are the same for all and no label but the exact one is read there; the epoch is chosen on a slice
of the training problems, by the strategy's own labels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from psgpo.config import PrmSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.labeling.request import place
from psgpo.prm import train_prm
from psgpo.prm.assess import score_examples, scored_response
from psgpo.prm.data import PrmExample, build_examples, load_exact
from psgpo.prm.measure import measure
from psgpo.prm.score import PrmScorer
from psgpo.records import LineLabels
from psgpo.seeds import is_held_out

HOLDOUT = 0.25
CHOOSING = 0.15
MEASURES = ("accuracy", "auroc", "first error", "within one")


def main() -> None:
    """Train, measure, print a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="written by benchmarks/labelling.py --labels")
    parser.add_argument("--model", type=Path, required=True, help="the policy that every PRM starts from")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--budget", default="splice-8-400-True", help="strategy whose completions the others get")
    parser.add_argument("--only", nargs="*", help="names of label files without their ending")
    parser.add_argument("--out", type=Path, help="write the rows as JSON too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    exact = load_exact(options.folder / "exact.jsonl")
    files = {path.stem: path for path in sorted(options.folder.glob("*.jsonl")) if path.stem != "exact"}
    if options.budget not in files:
        raise UserError(f"--budget {options.budget}: {options.folder} has {', '.join(files)}")
    made = {name: list(read_jsonl(path, LineLabels.from_json)) for name, path in files.items()}
    some = made[options.budget]
    settings = PrmSettings(target="sign", epochs=options.epochs)
    oracle = settings.model_copy(update={"labels": "oracle"})
    held_out = build_examples([one for one in some if is_held_out(one.response.problem_id, HOLDOUT)], oracle, exact)
    training = {name: _training(labels) for name, labels in made.items()}
    budget = sum(label.completions for label in training[options.budget])
    jobs: list[tuple[str, str, Sequence[LineLabels], PrmSettings]] = [
        ("exact", "same responses", _training(some), oracle)
    ]
    for name, listed in training.items():
        if not options.only or name in options.only:
            jobs.append((name, "same responses", listed, settings))
            if sum(label.completions for label in listed) > budget:
                jobs.append((name, "same completions", _affordable(listed, budget), settings))
    print(f"{len(held_out)} held-out responses; {budget} completions are the budget")
    columns = ("labels", "compared at", "responses", "completions", "lines labelled", *MEASURES)
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    rows = []
    for name, compared, labels, how in jobs:
        examples = build_examples(labels, how, exact)
        results = [_train(options.model, examples, held_out, how, seed) for seed in range(options.seeds)]
        row = {"labels": name, "compared at": compared, "responses": len(labels)}
        row["completions"] = 0 if name == "exact" else sum(label.completions for label in labels)
        row["lines labelled"] = int(sum(sum(example.weights) for example in examples))
        rows.append(row | {key: [result[key] for result in results] for key in MEASURES})
        print(_text(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def _training(labels: Sequence[LineLabels]) -> list[LineLabels]:
    kept = [label for label in labels if not is_held_out(label.response.problem_id, HOLDOUT)]
    return sorted(kept, key=lambda label: place(label.response))


def _affordable(labels: Sequence[LineLabels], budget: int) -> list[LineLabels]:
    """The responses of as many problems as the completions suffice for, lengths mixed as in all of them."""
    by_problem: dict[str, list[LineLabels]] = {}
    for label in labels:
        by_problem.setdefault(label.response.problem_id, []).append(label)
    chosen: list[LineLabels] = []
    for name in sorted(by_problem, key=lambda name: name.rsplit("-", 1)[-1]):
        cost = sum(label.completions for label in by_problem[name])
        if cost <= budget:
            chosen += by_problem[name]
            budget -= cost
    return chosen


def _train(
    policy: Path, examples: Sequence[PrmExample], held_out: Sequence[PrmExample], settings: PrmSettings, seed: int
) -> dict[str, float | None]:
    # Another hash than the one that held problems out: the ids of the rest all fall on one side of that.
    renamed = {example.problem_id: f"choose/{example.problem_id}" for example in examples}
    choosing = [example for example in examples if is_held_out(renamed[example.problem_id], CHOOSING)]
    train = [example for example in examples if not is_held_out(renamed[example.problem_id], CHOOSING)]
    if not choosing:  # few problems: one of them
        last = train[-1].problem_id
        choosing = [example for example in train if example.problem_id == last]
        train = [example for example in train if example.problem_id != last]
    with tempfile.TemporaryDirectory() as out:
        train_prm(policy, train, choosing, settings, out, seed=seed)
        scores = score_examples(PrmScorer(Path(out) / "model"), held_out)
    found = measure([scored_response(e, row, "sign") for e, row in zip(held_out, scores, strict=True)], "sign")
    lines, first = found["lines"], found["first_error"]
    return dict(zip(MEASURES, (lines["accuracy"], lines["auroc"], first["exact"], first["within_one"]), strict=True))


def _text(row: Mapping[str, Any]) -> str:
    means = ["–" if None in row[key] else f"{statistics.fmean(row[key]):.3f}" for key in MEASURES]
    return "| " + " | ".join([*(str(value) for key, value in row.items() if key not in MEASURES), *means]) + " |"


if __name__ == "__main__":
    main()
