"""PPO's losses, pure. The denominator is an argument, so that gradient accumulation equals one big batch.

Schulman et al. 2017 (arXiv 1707.06347), equation 7, and the value clipping of its reference implementation.

# B responses, T response tokens (mask 1 on real tokens), N tokens
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
    clip_high: float | None = None,
    denominator: float,
) -> tuple[Tensor, Tensor]:
    """L = −Σ min(ρ A, clip(ρ, 1−ε, 1+ε') A) / denominator, with ρ = exp(logprob − old_logprob).

    ε is `clip`; ε' is `clip_high` (DAPO, arXiv 2503.14476, equation 10), or ε where that is None.

    Returns:
        the scalar loss, and the number of tokens where clipping took effect (a tensor).
    """
    ratio_BT = torch.exp(logprob_BT - old_logprob_BT)
    free_BT = ratio_BT * advantage_BT
    clipped_BT = ratio_BT.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantage_BT
    loss = -(torch.minimum(free_BT, clipped_BT) * mask_BT).sum() / denominator
    return loss, ((clipped_BT < free_BT) * mask_BT).sum()


def policy_moves(logprob_N: Tensor, old_logprob_N: Tensor) -> tuple[Tensor, Tensor]:
    """Σ (ρ − 1 − log ρ), and the largest ρ, over tokens drawn from the old policy: two scalars without gradient.

    The mean of the terms estimates KL(old ‖ new) without bias (k3 of Schulman 2020, "Approximating KL Divergence").
    """
    log_ratio_N = (logprob_N - old_logprob_N).detach()
    largest = log_ratio_N.max().exp() if len(log_ratio_N) else log_ratio_N.new_zeros(())
    return (torch.expm1(log_ratio_N) - log_ratio_N).sum(), largest


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
