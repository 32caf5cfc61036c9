"""What one of N processes that train together holds (`parallel.strategy`), from what one alone holds.

    ddp     weights, gradients, Adam: the same.  Rows: dealt, 1/N.
            Beside them the buckets in which gradients are summed, when all gradients are there.
    fsdp    weights, gradients, Adam: 1/N.  Rows: dealt, 1/N.  Gathered while a network works:
            a forward pass   root + 2 blocks                    (a block, and the next one that is fetched beside it)
            an update        the same, and root + a block of gradients before they are summed and split
            sampling         the whole policy

"root" is all that lies in no block that the architecture names (`_no_split_modules`): embeddings, head, last norm; the
blocks counted are the largest. A step's batch, a PRM that scores, and what dealt stages hold (labels, evaluation) are
whole in every process. See `psgpo.parallel.replica`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from psgpo.models import TokenValueModel
from psgpo.parallel.replica import blocks_of
from psgpo.parallel.team import BUCKET, Team
from psgpo.runs.plan.network import Network, Row

FLOAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Of one of so many processes."""

    processes: int = 1
    sharded: bool = False

    def held(self, size: int) -> int:
        """Bytes of weights, gradients or moments."""
        return math.ceil(size / self.processes) if self.sharded else size

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Those of the first process, which has the most; at least one."""
        dealt = Team(size=self.processes).deal([sum(row) for row in rows])[0]
        return [rows[i] for i in dealt] or [rows[0]]

    def update(self, network: Network, parts: Sequence[Sequence[Row]], **options: float) -> int:
        """`Network.update_bytes` of a share of the rows, which `parts` are.

        Where it is sharded, gradients count as if an earlier micro-batch had left them.
        """
        if not self.sharded:
            return network.update_bytes(parts, **options)  # type: ignore[arg-type]
        alone = network.update_bytes([*parts, parts[-1]], **options)  # type: ignore[arg-type]
        return alone - network.learned + self.held(network.learned) + gathered(network, gradients=True)

    def forward(self, network: Network, rows: Sequence[Row], *, temperature: float) -> int:
        """`Network.forward_bytes` of a share of the rows."""
        more = gathered(network, gradients=False) if self.sharded else 0
        return network.forward_bytes(rows, temperature=temperature) + more

    def summing(self, network: Network) -> int:
        """The largest bucket of gradients."""
        whole = self.processes > 1 and not self.sharded
        return min(network.learned, BUCKET * FLOAT) if whole else 0


ALONE = Share()
"""One process."""


def gathered(network: Network, *, gradients: bool) -> int:
    """Bytes of whole weights, and of whole gradients, that a process has for a moment where a network is sharded."""
    root = network.module.classifier if isinstance(network.module, TokenValueModel) else network.module
    blocks = blocks_of(root)
    inside = {id(p) for block in blocks for p in block.parameters()}
    outside = [p for p in root.parameters() if id(p) not in inside]
    by_size = sorted(([*block.parameters()] for block in blocks), key=_bytes)
    held = _bytes(outside) + sum(_bytes(block) for block in by_size[-2:])
    if gradients:
        held += _bytes([p for p in outside if p.requires_grad])
        held += max((_bytes([p for p in block if p.requires_grad]) for block in by_size), default=0)
    return held


def _bytes(parameters: Sequence[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)
