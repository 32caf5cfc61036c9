"""Completions that passed, from the journals of a search. A label file keeps how many passed; a journal the first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from psgpo.config import LabelSettings
from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.labeling.journal import Round
from psgpo.labeling.request import shard_responses
from psgpo.labeling.units import make_units
from psgpo.records import LineLabels, Problem, Response

Place = tuple[str, str, int]
"""(problem id, checkpoint, index) of a response."""
Proofs = dict[Place, dict[int, tuple[int, ...]]]
"""Response to probed line to the ids that the first completion that passed added."""


def place_of(response: Response) -> Place:
    """Which response this is."""
    return response.problem_id, response.checkpoint, response.index


def run_completions(folder: Path, labels: Iterable[LineLabels], shards: int) -> Proofs:
    """Of a run's labels folder: one journal per shard.

    Args:
        shards: `labels.shards` of the recipe; it says which responses belong to which.
    """
    if not (folder / "responses.jsonl").is_file():
        return {}
    by_place = {place_of(label.response): label for label in labels}
    responses = list(read_jsonl(folder / "responses.jsonl", Response.from_json))
    found: Proofs = {}
    for number, part in enumerate(shard_responses(responses, shards), start=1):
        found |= read_completions(folder / "shards" / f"{number}.journal.jsonl", part, by_place)
    return found


def folder_completions(folder: Path, labels: Iterable[LineLabels], problems: Iterable[Problem]) -> Proofs:
    """Of a folder of `psgpo labels make`: one journal per unit; job.json says how responses fell into units."""
    if not (folder / "responses.jsonl").is_file() or not (folder / "job.json").is_file():
        return {}
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    by_place = {place_of(label.response): label for label in labels}
    responses = list(read_jsonl(folder / "responses.jsonl", Response.from_json))
    units = make_units(responses, problems, list(job["models"]), LabelSettings(**job["labels"]))
    found: Proofs = {}
    for unit in units:
        found |= read_completions(folder / "units" / f"{unit.number}.jsonl", unit.responses, by_place)
    return found


def read_completions(journal: Path, responses: Sequence[Response], labels: Mapping[Place, LineLabels]) -> Proofs:
    """The first completion that passed of every probe of these labels.

    Args:
        responses: all that were labelled under this journal, in that order.

    Raises:
        UserError: the journal is about other responses.
    """
    if not journal.is_file():
        return {}
    records = read_jsonl(journal, dict, torn_tail_ok=True)
    header = next(records, {})
    if "labels.completer" not in header:  # of a strategy that joins programs: nothing was drawn for a prefix
        return {}
    rounds = [Round.from_json(record) for record in records if record.get("kind") == "round"]
    try:
        return passing_completions(rounds, responses, labels, own=header["labels.completer"] == "own")
    except IndexError:
        raise UserError(
            f"{journal}: its probes are of other responses than responses.jsonl holds; label anew, or move the journal "
            "away to see the labels without completions"
        ) from None


def passing_completions(
    rounds: Iterable[Round], responses: Sequence[Response], labels: Mapping[Place, LineLabels], *, own: bool
) -> Proofs:
    """Equal probes (problem, prefix, completer) share their completions, so all that asked see the first proof.

    Args:
        own: responses are completed by the checkpoint that wrote them.
    """

    def key(label: LineLabels, line: int) -> tuple[str, str, tuple[int, ...]]:
        response = label.response
        ids = response.token_ids[: label.line_ends[line - 1] + 1]
        return response.problem_id, response.checkpoint if own else "", ids

    proofs: dict[tuple[str, str, tuple[int, ...]], tuple[int, ...]] = {}
    for played in rounds:
        for draws in played.probes:
            label = labels.get(place_of(responses[draws.response]))
            if label is not None and draws.proof is not None:
                proofs.setdefault(key(label, draws.line), draws.proof)
    found: Proofs = {}
    for response in responses:
        label = labels.get(place_of(response))
        if label is not None:
            of_probes = {probe.line: proofs.get(key(label, probe.line)) for probe in label.probes if probe.passed}
            found[place_of(response)] = {line: ids for line, ids in of_probes.items() if ids is not None}
    return found
