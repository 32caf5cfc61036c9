"""OpChain, the embedded benchmark: generated chains of small operations, with an exact line-level oracle."""

from __future__ import annotations

from psgpo.problems.opchain.chain import canonical_solution, chain_of, composition_split, weakened
from psgpo.problems.opchain.generate import OpChain, OpChainSettings, SftExample
from psgpo.problems.opchain.operation import Chain, Operation, Step
from psgpo.problems.opchain.operations import OPERATIONS
from psgpo.problems.opchain.strength import measure_strength

__all__ = [
    "OPERATIONS",
    "Chain",
    "OpChain",
    "OpChainSettings",
    "Operation",
    "SftExample",
    "Step",
    "canonical_solution",
    "chain_of",
    "composition_split",
    "measure_strength",
    "weakened",
]
