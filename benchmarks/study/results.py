"""results/CELL/SEED.json: what a finished run leaves for the tables, and whether it still is what study.toml asks for.

cell, seed
recipe            as resolved           manifest       commit, versions, machine
stages            per stage: cpu_seconds and, where it was taken over from another run, taken_from
sft_sha256        of the SFT policy's weights: floating point differs between kinds of processors, so results of two
                  cells are paired only where this is equal
problems          hash of the evaluation problems (ids, prompts, tests)
operations        of every evaluation problem, in the order of their ids
policies          per policy: `samples` per problem; `passes` per problem; `greedy`, 0 or 1 per problem; `lengths`,
                  tokens and verdict of every response (see `pack_lengths`)
training          per arm: columns of metrics.jsonl
curves            per policy of `curve_arms`: pass@1 of its checkpoints: [[step, pass@1], ...]
best_of           per policy of `best_of`: `samples`, `passes` per problem, and `chosen`: the curve over n of the
                  program that the PRM takes, by method
prm               per PRM: its measures against the run's labels and against exact labels
labels            what they cost and how good they are
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgpo.config import HOW_KEYS, Recipe, parse_recipe, without_keys
from psgpo.errors import UserError
from psgpo.evaluation.metrics import pass_at_k
from study.cells import Study

Json = dict[str, Any]
Array = NDArray[np.float64]
KEYS = ("cell", "seed", "recipe", "stages", "sft_sha256", "problems", "operations", "policies", "training", "prm")
OTHER_RECIPE = "made by another recipe"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished (cell, seed)."""

    path: Path
    seed: int
    data: Json

    @classmethod
    def load(cls, path: Path) -> Result | None:
        """None when there is none.

        Raises:
            UserError: the file is not one of the study's.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not valid JSON ({error}); delete it and run its cell again") from None
        missing = [key for key in KEYS if not isinstance(data, dict) or key not in data]
        if missing:
            raise UserError(f"{path}: no {missing[0]!r}, so no result of the study; delete it and run its cell again")
        return cls(path=path, seed=data["seed"], data=data)

    @property
    def policies(self) -> Json:
        return self.data["policies"]  # type: ignore[no-any-return]

    @property
    def operations(self) -> NDArray[np.int64]:
        """Per evaluation problem. Shape: (P,)."""
        return np.array(self.data["operations"], dtype=np.int64)

    def pass_rates(self, policy: str) -> Array:
        """pass@1 of every evaluation problem. Shape: (P,)."""
        found = self.policies[policy]
        return np.array(found["passes"], dtype=np.float64) / float(found["samples"])

    def greedy(self, policy: str) -> Array:
        """Whether the greedy program of every evaluation problem passes; NaN where none was drawn. Shape: (P,)."""
        found = self.policies[policy]["greedy"]
        return np.full(len(self.operations), np.nan) if found is None else np.array(found, dtype=np.float64)

    def pass_at(self, policy: str, k: int) -> Array:
        """Unbiased pass@k of every evaluation problem, NaN where fewer were sampled. Shape: (P,)."""
        found = self.policies[policy]
        return np.array([pass_at_k(found["samples"], passed, k) for passed in found["passes"]], dtype=np.float64)

    def lengths(self, policy: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens and verdict of every response. Shapes: (P, samples)."""
        return unpack_lengths(self.policies[policy]["lengths"], len(self.operations))

    def outdated(self, recipe: Recipe, *, policy: str | None = None, prm: str | None = None) -> bool:
        """Whether `policy` (or `prm`) came of another recipe than the one given."""
        try:
            stored = parse_recipe(self.data["recipe"], origin=str(self.path), recorded=True).model_dump(mode="json")
        except UserError:  # a key that is no more: surely another recipe
            return True
        wanted = recipe.model_dump(mode="json")
        return _relevant(stored, policy, prm) != _relevant(wanted, policy, prm)


def _relevant(recipe: Json, policy: str | None, prm: str | None) -> Json:
    """What decides a policy or a PRM: the recipe without other arms and PRMs, and how it was carried out."""
    arm = recipe["arms"].get(policy, {})
    prms = {prm, arm.get("prm"), arm.get("value_init")}
    if policy is not None and policy not in (*recipe["arms"], "sft"):
        return {"no arm": policy}
    kept = without_keys(recipe, HOW_KEYS | {"name", "device"})
    return kept | {
        "arms": {policy: arm},
        "prm": {name: settings for name, settings in recipe["prm"].items() if name in prms},
    }


Results = Mapping[tuple[str, int], Result]
"""By (cell, seed)."""


def load_all(study: Study) -> Results:
    """Results of every cell and seed that there are, up to date or not.

    Raises:
        UserError: the file of a result is broken.
    """
    pairs = [(cell, seed) for cell in study.cells for seed in study.seeds(cell)]
    found = {pair: Result.load(study.result_path(*pair)) for pair in pairs}
    return {pair: result for pair, result in found.items() if result is not None}


def why_missing(study: Study, results: Results, cell: str, seed: int, policy: str) -> str | None:
    """Why the tables have nothing of a policy of (cell, seed); None when they have it."""
    result = results.get((cell, seed))
    if result is None or policy not in result.policies:
        return "not run"
    return OTHER_RECIPE if result.outdated(study.recipe(cell, seed), policy=policy) else None


def why_no_best_of(study: Study, results: Results, cell: str, seed: int, policy: str) -> str | None:
    """Why the tables have no best of n of a policy whose result of (cell, seed) is there; None when they have it."""
    chosen, result = study.cells[cell], results[cell, seed]
    of, prm = result.data.get("best_of", {}).get(policy), chosen.best_of_prm
    if of is None:
        return "best of n not measured"
    if of["samples"] != chosen.best_of_samples:
        return f"best of {of['samples']} measured, not of {chosen.best_of_samples}"
    if prm is not None and not chosen_by(prm, of.get("chosen", {})):
        return f"not chosen by PRM {prm}"
    return OTHER_RECIPE if prm is not None and result.outdated(study.recipe(cell, seed), prm=prm) else None


def chosen_by(prm: str, methods: Collection[str]) -> bool:
    """Whether a PRM is among those whose ways to choose are named (`psgpo.rerank`: PRM-last, ...)."""
    return any(name.rpartition("-")[0] == prm for name in methods)


def unfinished(study: Study, results: Results, cell: str, seed: int) -> list[str]:
    """What study.toml wants of (cell, seed) and its result does not have; empty when it is done."""
    chosen, recipe = study.cells[cell], study.recipe(cell, seed)
    result = results.get((cell, seed))
    if result is None:
        return ["all"]
    left = [policy for policy in ("sft", *recipe.arms) if why_missing(study, results, cell, seed, policy)]
    of_prms = result.data["prm"]
    left += [f"prm {name}" for name in recipe.prm if name not in of_prms or result.outdated(recipe, prm=name)]
    left += [f"curve of {arm}" for arm in chosen.curve_arms if arm not in result.data.get("curves", {})]
    left += [f"best of {policy}" for policy in chosen.best_of if why_no_best_of(study, results, cell, seed, policy)]
    return left


def pack_lengths(tokens: Sequence[Sequence[int]], passed: Sequence[Sequence[bool]]) -> str:
    """Tokens and verdict of every response of every problem: 2 · tokens + passed, 16 bits each, deflated, in hex.

    >>> unpack_lengths(pack_lengths([[7, 40]], [[True, False]]), 1)
    (array([[ 7, 40]]), array([[ True, False]]))
    """
    packed = 2 * np.array(tokens, dtype=np.int64) + np.array(passed, dtype=np.int64)
    assert packed.max(initial=0) < 1 << 16
    planes = np.stack([packed & 255, packed >> 8]).astype(np.uint8)
    return zlib.compress(planes.tobytes(), 9).hex()


def unpack_lengths(text: str, problems: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The inverse of `pack_lengths`. Shapes: (P, samples)."""
    low, high = np.frombuffer(zlib.decompress(bytes.fromhex(text)), dtype=np.uint8).reshape(2, problems, -1)
    packed = low.astype(np.int64) + 256 * high.astype(np.int64)
    return packed >> 1, (packed & 1).astype(np.bool_)
