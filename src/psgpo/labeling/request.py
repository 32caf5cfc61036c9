"""What is asked to be labelled: is it complete, what identifies it, how it is split over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import UserError
from psgpo.labeling.journal import Json, fingerprint
from psgpo.records import Problem, Response, Status


def shard_responses(responses: Sequence[Response], shards: int) -> list[list[Response]]:
    """Split responses over worker processes; a problem's responses stay together, because they share probes.

    Labelled apart (one journal each) and written by `write_labels`, the shards give the file that one run gives. Not
    where labels come of other problems' responses: a tree's rounds (`omega`), the prior of `splice`.
    """
    order = {problem_id: number for number, problem_id in enumerate(dict.fromkeys(r.problem_id for r in responses))}
    parts: list[list[Response]] = [[] for _ in range(shards)]
    for response in responses:
        parts[order[response.problem_id] % shards].append(response)
    return parts


def check_request(
    responses: Sequence[Response],
    problems: Mapping[str, Problem],
    checkpoints: Sequence[str],
    settings: LabelSettings,
) -> None:
    """Raise `UserError` unless every response can be labelled with what was given."""
    if not checkpoints:
        raise UserError("labels: no checkpoint to complete prefixes with; give at least one")
    seen: set[tuple[str, str, int]] = set()
    for response in responses:
        name = f"response {response.index} of problem {response.problem_id} ({response.checkpoint})"
        if response.problem_id not in problems:
            raise UserError(f"{name}: its problem is not among the problems given; give the file it was sampled from")
        if settings.completer == "own" and response.checkpoint not in checkpoints:
            raise UserError(
                f"{name}: completer 'own' needs checkpoint {response.checkpoint!r}; given: "
                f"{', '.join(checkpoints)}; add it, or let another complete (labels.completer, --completer: 'last')"
            )
        if response.verdict.status is Status.INFRASTRUCTURE:
            raise UserError(f"{name}: it was never judged ({response.verdict.detail}); sample and judge it again")
        if not response.verdict.passed and not response.prompt_ids:
            raise UserError(f"{name}: it has no prompt_ids, so its prefixes cannot be completed; sample it again")
        if place(response) in seen:
            raise UserError(f"{name}: given twice; remove one")
        seen.add(place(response))


def journal_header(
    responses: Sequence[Response],
    problems: Mapping[str, Problem],
    checkpoints: Sequence[str],
    settings: LabelSettings,
    sampling: SamplingSettings,
    seed: int,
) -> dict[str, Any]:
    """All that decides what is drawn, and in which batches."""
    keys = ["strategy", "k", "draw", "completer", "in_flight", "fill"]
    keys += ["budget"] if settings.strategy.startswith("noisy") else []
    labels = {key: getattr(settings, key) for key in keys}
    # The sampler's batch size is in: another one may change the last bit of a logit, and with it a token.
    used = sorted({response.problem_id for response in responses})
    return {
        "seed": seed,
        **{f"labels.{key}": value for key, value in labels.items()},
        **{f"sampling.{key}": value for key, value in sampling.model_dump(mode="json").items()},
        "checkpoints": list(checkpoints),
        "responses": fingerprint(_identity(response) for response in responses),
        "problems": fingerprint(problems[problem_id].tests.to_json() for problem_id in used),
    }


def _identity(response: Response) -> Json:
    """A response without the times its verdict took: those may differ between two judgements of the same program."""
    record = response.to_json()
    return record | {"verdict": response.verdict.status.value}


def place(response: Response) -> tuple[str, str, int]:
    return response.problem_id, response.checkpoint, response.index
