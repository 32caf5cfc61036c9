"""PPO's losses, pure. The denominator is an argument, so that gradient accumulation equals one big batch.

Schulman et al. 2017 (arXiv 1707.06347), equation 7, and the value clipping of its reference implementation.

# B responses, T response tokens (mask 1 on real tokens)
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(
    logprob_BT: Tensor,
    old_logprob_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float,
    denominator: float,
) -> tuple[Tensor, Tensor]:
    """L = −Σ min(ρ A, clip(ρ, 1−ε, 1+ε) A) / denominator, with ρ = exp(logprob − old_logprob).

    Returns:
        the scalar loss, and the number of tokens where clipping took effect (a tensor).
    """
    ratio_BT = torch.exp(logprob_BT - old_logprob_BT)
    free_BT = ratio_BT * advantage_BT
    clipped_BT = ratio_BT.clamp(1 - clip, 1 + clip) * advantage_BT
    loss = -(torch.minimum(free_BT, clipped_BT) * mask_BT).sum() / denominator
    return loss, ((clipped_BT < free_BT) * mask_BT).sum()


def value_loss(
    value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor, *, clip: float, denominator: float
) -> tuple[Tensor, Tensor]:
    """L = ½ Σ max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²) / denominator.

    Returns:
        the scalar loss, and the number of tokens where the clipped error was the larger (a tensor).
    """
    clipped_BT = torch.clamp(value_BT, old_value_BT - clip, old_value_BT + clip)
    free_BT, bound_BT = (value_BT - return_BT) ** 2, (clipped_BT - return_BT) ** 2
    loss = 0.5 * (torch.maximum(free_BT, bound_BT) * mask_BT).sum() / denominator
    return loss, ((bound_BT > free_BT) * mask_BT).sum()
