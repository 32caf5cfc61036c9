"""The registry of OpChain's operations by name."""

from __future__ import annotations

from psgpo.problems.opchain.list_operations import LIST_OPERATIONS
from psgpo.problems.opchain.operation import Operation, StateType
from psgpo.problems.opchain.scalar_operations import SCALAR_OPERATIONS

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in LIST_OPERATIONS + SCALAR_OPERATIONS}
BY_INPUT: dict[StateType, tuple[Operation, ...]] = {
    kind: tuple(operation for operation in OPERATIONS.values() if operation.takes == kind)
    for kind in ("list", "int", "str")
}
NO_OPS = ("pass", "x = x")
"""Statements that never change anything; the training data sprinkles them between operations."""
