"""Advantages, pure: generalized advantage estimation and whitening.

# B responses, T response tokens (right-padded; mask 1 on real tokens)
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, equation 16).

        δ_t = r_t + γ V_(t+1) − V_t        A_t = δ_t + γ λ A_(t+1)        return_t = A_t + V_t

    V_t is the value of the state *before* token t; after a response's last token V = 0.

    Returns:
        advantages and returns, both (B, T), 0 where the mask is 0.
    """
    mask_BT = mask_BT.to(reward_BT.dtype)
    value_BT = value_BT * mask_BT
    advantage_BT = torch.zeros_like(reward_BT)
    next_value_B = torch.zeros_like(reward_BT[:, 0])
    next_advantage_B = torch.zeros_like(reward_BT[:, 0])
    for t in reversed(range(reward_BT.shape[1])):
        delta_B = reward_BT[:, t] + gamma * next_value_B - value_BT[:, t]
        # A padded position passes nothing on: the last real token sees V = 0 and A = 0 after it.
        next_advantage_B = (delta_B + gamma * lam * next_advantage_B) * mask_BT[:, t]
        next_value_B = value_BT[:, t]
        advantage_BT[:, t] = next_advantage_B
    return advantage_BT, (advantage_BT + value_BT) * mask_BT


def whiten(value_BT: Tensor, mask_BT: Tensor, *, floor: float = 1e-8) -> Tensor:
    """(x − mean) / max(std, floor) over the real tokens of the batch; 0 elsewhere. Biased standard deviation."""
    mask_BT = mask_BT.to(value_BT.dtype)
    count = mask_BT.sum()
    mean = (value_BT * mask_BT).sum() / count
    variance = ((value_BT - mean) ** 2 * mask_BT).sum() / count
    return (value_BT - mean) / variance.sqrt().clamp(min=floor) * mask_BT


def explained_variance(value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> float:
    """1 − Var[return − V] / Var[return] over real tokens; NaN when the returns do not vary."""
    chosen = mask_BT.bool()
    return_N, value_N = return_BT[chosen], value_BT[chosen]
    variance = return_N.var(unbiased=False)
    if variance == 0:
        return float("nan")
    return float(1 - (return_N - value_N).var(unbiased=False) / variance)
