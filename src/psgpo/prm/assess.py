"""A trained PRM on held-out responses: scores per line and measures against both truths, on disk.

`scores.jsonl`: {"problem_id", "index", "checkpoint", "scores": one per line}. `measure.json`: {"search": measures,
"exact": measures or null}, each as `psgpo.prm.measure.measure` returns; both truths whatever the PRM was trained on.
"""

# L code lines

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.config import PrmSettings
from psgpo.jsonl import write_json, write_jsonl
from psgpo.prm.data import ExactLines, PrmExample, ResponseKey, build_examples
from psgpo.prm.measure import ScoredResponse, TrainedTarget, measure
from psgpo.prm.score import PrmScorer
from psgpo.records import LineLabels

BOOTSTRAP = 500
"""Resamples of problems behind the intervals in `measure.json`."""


def assess_prm(
    scorer: PrmScorer,
    held_out: Sequence[LineLabels],
    settings: PrmSettings,
    out_dir: Path | str,
    exact: Mapping[ResponseKey, ExactLines] | None = None,
) -> dict[str, Any]:
    """Score held-out responses, write `scores.jsonl` and `measure.json` into `out_dir`, return the latter.

    Args:
        held_out: labelled responses of problems the PRM was not trained on (second part of `split_by_problem`).
            Those that a search gave up count against neither truth.
        exact: the oracle's answer per response; without it `exact` is null.
    """
    held_out = [label for label in held_out if not label.unlabelled]  # there is no search to measure against
    truths = {"search": build_examples(held_out, settings.model_copy(update={"labels": "search"}))}
    if exact:
        truths["exact"] = build_examples(held_out, settings.model_copy(update={"labels": "oracle"}), exact)
    scores = score_examples(scorer, truths["search"])
    keys = [example.key for example in truths["search"]]
    write_jsonl(
        Path(out_dir) / "scores.jsonl",
        (
            {
                "problem_id": problem,
                "index": index,
                "checkpoint": checkpoint,
                "scores": [round(float(s), 6) for s in row],
            }
            for (problem, index, checkpoint), row in zip(keys, scores, strict=True)
        ),
    )
    found: dict[str, Any] = {"search": None, "exact": None}
    for name, examples in truths.items():
        scored = [scored_response(e, row, settings.target) for e, row in zip(examples, scores, strict=True)]
        found[name] = measure(scored, settings.target, resamples=BOOTSTRAP)
    write_json(Path(out_dir) / "measure.json", found)
    return found


def score_examples(scorer: PrmScorer, examples: Sequence[PrmExample]) -> list[NDArray[np.float64]]:
    """Scores per line of every example. Shape of each: (L,)."""
    return scorer.score([(e.prompt_ids, e.token_ids, e.line_ends) for e in examples])


def scored_response(example: PrmExample, scores: NDArray[np.float64], target: TrainedTarget) -> ScoredResponse:
    """Scores beside the truth the example was built with; lines whose truth was left open count nowhere.

    An open line weighs nothing and has no target (`psgpo.prm.data`); for `progress` that is every line of its response.
    For `soft` lines without a measured rate weigh nothing. An open line before the first one known to be bad, or in a
    response without one, leaves open where the first error is.
    """
    silent = [
        neutral or (weight == 0 and (target != "sign" or value == 0))
        for neutral, weight, value in zip(example.neutral, example.weights, example.targets, strict=True)
    ]
    if target == "sign":
        lines = zip(silent, example.neutral, example.targets, strict=True)
        code = ((is_open, value) for is_open, neutral, value in lines if not neutral)
        known = next((not is_open for is_open, value in code if is_open or value <= 0), True)
        # One that passes is right, whatever its lines are labelled with.
        known = known or example.last_solvable == len(example.neutral)
    else:
        known = any(example.weights)
    return ScoredResponse(
        problem_id=example.problem_id,
        scores=scores,
        neutral=silent,
        last_good=example.last_solvable,
        labels=example.targets if target == "sign" else None,
        progress=None if target == "sign" else example.targets,
        error_known=known,
    )
