"""Least squares for a value head: from what a trunk sees to returns, in sums that add up over batches and processes."""

# N response tokens, D features of the trunk

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3
"""Of the features' mean square: enough to keep nearly collinear features from cancelling each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Sums over tokens of products of (features, 1) and the return, in float64."""

    gram: Tensor
    """Σ z zᵀ, z = (h, 1). Shape: (D + 1, D + 1)."""
    cross: Tensor
    """Σ z G. Shape: (D + 1,)."""
    square: Tensor
    """Σ G². Shape: ()."""

    @classmethod
    def none(cls, features: int) -> Moments:
        """Of no token."""
        return cls(
            gram=torch.zeros(features + 1, features + 1, dtype=torch.float64),
            cross=torch.zeros(features + 1, dtype=torch.float64),
            square=torch.zeros((), dtype=torch.float64),
        )

    @classmethod
    def of(cls, feature_ND: Tensor, return_N: Tensor) -> Moments:
        """Of these tokens, on the CPU."""
        feature_ND, return_N = feature_ND.double().cpu(), return_N.double().cpu()
        z_NE = torch.cat([feature_ND, torch.ones(len(feature_ND), 1, dtype=torch.float64)], dim=1)
        return cls(gram=z_NE.T @ z_NE, cross=z_NE.T @ return_N, square=(return_N**2).sum())

    def __add__(self, other: Moments) -> Moments:
        return Moments(gram=self.gram + other.gram, cross=self.cross + other.cross, square=self.square + other.square)

    def solve(self, ridge: float = RIDGE) -> tuple[Tensor, float]:
        """w (D,) and b that minimise Σ (w·h + b − G)² + ridge · N · mean(h²) · |w|²; b is not held back."""
        count, D = self.gram[-1, -1], len(self.cross) - 1
        if not count:
            return torch.zeros(D, dtype=torch.float64), 0.0
        held = torch.full((D + 1,), float(ridge * self.gram.diagonal()[:-1].mean()), dtype=torch.float64)
        held[-1] = 0.0
        found = torch.linalg.lstsq(self.gram + torch.diag(held), self.cross.unsqueeze(1)).solution.squeeze(1)
        return found[:-1], float(found[-1])

    def explained(self, weight_D: Tensor, bias: float) -> float:
        """1 − Σ (w·h + b − G)² / Σ (G − mean G)²; NaN when the returns do not vary."""
        v = torch.cat([weight_D, torch.tensor([bias], dtype=torch.float64)])
        error = v @ self.gram @ v - 2 * v @ self.cross + self.square
        spread = self.square - self.cross[-1] ** 2 / self.gram[-1, -1]
        return float(1 - error / spread) if spread > 1e-12 * self.square else float("nan")
