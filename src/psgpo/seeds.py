"""Seeds by name: what is random in a run depends on the run's seed and on what it is for, never on order or timing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence


def derive_seed(*parts: int | str | Sequence[int]) -> int:
    """A 63-bit seed from a run's seed and any names, numbers and token ids: BLAKE2b of their JSON.

    >>> derive_seed(0, "rollout", 3) == derive_seed(0, "rollout", 3) != derive_seed(0, "rollout", 4)
    True
    """
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def is_held_out(problem_id: str, holdout: float) -> bool:
    """Whether a problem is kept from PRM training, with `holdout` the expected share of problems kept.

    A hash of the id alone: the side never changes between runs, files and commands, and a larger share keeps those
    already out.
    """
    digest = hashlib.blake2b(b"prm-holdout\x1f" + problem_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < holdout
