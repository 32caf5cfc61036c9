"""Muon: momentum, orthogonalised, for the hidden matrices of a small model trained from scratch.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". Differs from `torch.optim.Muon` in one
thing: the iteration runs in the parameters' own precision, because bfloat16 is several times slower on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Coefficients of the quintic iteration, as published."""


class Muon(torch.optim.Optimizer):
    """θ ← (1 − η w) θ − η √max(1, rows/columns) · orth(g + μ(m − g)), m ← μ m + (1 − μ) g. Matrices only."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(momentum, group["momentum"]))
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """A matrix with the singular vectors of `matrix` and singular values near 1 (about 0.7 to 1.2). Same shape."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x


def make_optimizers(
    model: nn.Module, *, muon: bool, lr: float, muon_lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW for all that learns; with `muon`, Muon for the matrices that are no embedding and AdamW for the rest."""
    learning = [p for p in model.parameters() if p.requires_grad]
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    hidden = [p for p in learning if muon and p.ndim == 2 and id(p) not in embeddings]
    chosen = {id(p) for p in hidden}
    rest = [p for p in learning if id(p) not in chosen]
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95), fused=True)
    return [adamw, Muon(hidden, lr=muon_lr, weight_decay=weight_decay)] if hidden else [adamw]
