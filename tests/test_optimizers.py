"""Muon: what orthogonalising means, and which parameters it gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from psgpo.optimizers import Muon, make_optimizers, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ result @ vh.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-4, rtol=0)


def test_first_step_by_hand() -> None:
    # Momentum 0, no decay: a 1x1 matrix moves by lr times the published polynomial iterated from 1.
    parameter = nn.Parameter(torch.tensor([[2.0]]))
    parameter.grad = torch.tensor([[-3.0]])
    x = 1.0
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    Muon([parameter], lr=0.1, momentum=0.0, weight_decay=0.0).step()
    assert parameter.item() == pytest.approx(2.0 + 0.1 * x, abs=1e-4)


def test_embeddings_and_vectors_go_to_adamw() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    adamw, muon = make_optimizers(model, muon=True, lr=1e-3, muon_lr=0.02, weight_decay=0.0)
    assert [tuple(p.shape) for p in muon.param_groups[0]["params"]] == [(3, 4)]
    assert len(adamw.param_groups[0]["params"]) == 4
    assert len(make_optimizers(model, muon=False, lr=1e-3, muon_lr=0.02, weight_decay=0.0)) == 1
