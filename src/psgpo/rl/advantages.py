"""Advantages, pure: generalized advantage estimation and whitening; without a critic, a group's responses against each
other.

Differs from the papers: returns to go in place of one reward per response (RLOO), the outcome as one more step and a
least standard deviation (GRPO). The loss that takes these advantages is PPO's: what differs there, and in the KL, is in
docs/reward-shapes.md.

# B responses, T response tokens (right-padded; mask 1 on real tokens)
# A group: `group` rows one after the other, responses to one prompt, whose tokens start at the same column
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 1e-6
"""Values that differ by no more than this share of the largest are equal: some roundings of float32."""


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


def returns_to_go(reward_BT: Tensor, mask_BT: Tensor, *, gamma: float) -> Tensor:
    """G_t = Σ_(k ≥ t) γ^(k − t) r_k, (B, T): with λ = 1 and V = 0 the advantage is the return itself."""
    return gae(reward_BT, torch.zeros_like(reward_BT), mask_BT, gamma=gamma, lam=1.0)[1]


def leave_one_out(reward_BT: Tensor, mask_BT: Tensor, *, group: int, gamma: float) -> Tensor:
    """A_t = G_t − mean of G_t over the other responses of the group, G as in `returns_to_go`; (B, T).

    RLOO (Ahmadian et al. 2024, arXiv 2402.14740, equation 8), whose one reward per response is the case of a reward at
    the last token and γ = 1 (a KL per token is none: RLOO adds it up first). A response that has ended before t counts
    with the G of its last token. What others earn does not depend on this response, so the baseline biases nothing.
    """
    return_BT = returns_to_go(reward_BT, mask_BT, gamma=gamma)
    column_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (column_T * mask_BT.bool()).amax(dim=1)
    carried_BT = return_BT.gather(1, torch.minimum(column_T, last_B[:, None]))
    of_group = carried_BT.view(-1, group, mask_BT.shape[1])
    others_BT = ((of_group.sum(dim=1, keepdim=True) - of_group) / (group - 1)).view_as(carried_BT)
    return (return_BT - others_BT) * mask_BT


def group_normalised(reward_BT: Tensor, step_BT: Tensor, mask_BT: Tensor, *, group: int, floor: float) -> Tensor:
    """A_t = Σ_(steps k ≥ t) (r_k − mean) / max(std, floor), mean and std over all steps of the group; (B, T).

    GRPO with process supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.3). With the last token as the only step
    it is GRPO with outcome supervision (section 4.1.2): the same for every token of a response. Biased deviation.
    A group whose steps are alike (`_alike`) gets 0, whatever the floor.
    With many steps that earn about nothing, each costs its response the mean: long programs that pass lose to short
    ones (docs/reward-shapes.md).

    Args:
        reward_BT: 0 but at steps.
        step_BT: 1 at the tokens where a step ends; at least one in every response.
    """
    of_group = (len(reward_BT) // group, group * reward_BT.shape[1])
    reward_PN, step_PN = reward_BT.reshape(of_group), step_BT.to(reward_BT.dtype).reshape(of_group)
    count_P = step_PN.sum(dim=1, keepdim=True)
    away_PN = (reward_PN - (reward_PN * step_PN).sum(dim=1, keepdim=True) / count_P) * step_PN
    std_P = ((away_PN**2).sum(dim=1, keepdim=True) / count_P).sqrt()
    alike_P = _alike(reward_PN, step_PN)
    normalised_BT = (away_PN / std_P.clamp(min=floor)).masked_fill(alike_P, 0.0).view_as(reward_BT)
    return returns_to_go(normalised_BT, mask_BT, gamma=1.0)


def whiten(value_BT: Tensor, mask_BT: Tensor, *, floor: float = 1e-8) -> Tensor:
    """(x − mean) / max(std, floor) over the real tokens of the batch; 0 elsewhere. Biased standard deviation.

    0 everywhere where all x are alike (`_alike`).
    """
    mask_BT = mask_BT.to(value_BT.dtype)
    count = mask_BT.sum()
    mean = (value_BT * mask_BT).sum() / count
    variance = ((value_BT - mean) ** 2 * mask_BT).sum() / count
    alike = _alike(value_BT.reshape(1, -1), mask_BT.reshape(1, -1))
    return ((value_BT - mean) / variance.sqrt().clamp(min=floor)).masked_fill(alike, 0.0) * mask_BT


def _alike(value_PN: Tensor, mask_PN: Tensor) -> Tensor:
    """Whether the marked values of a row are equal but for rounding: max − min ≤ `ROUNDING` · max |x|; (P, 1).

    What the mean leaves of them is rounding, and so is their deviation: the quotient of the two has unit size and says
    nothing. Read off the range, which needs no sum and so has no rounding of its own.
    """
    marked_PN = mask_PN.bool()
    high_P = value_PN.masked_fill(~marked_PN, -torch.inf).amax(dim=1, keepdim=True)
    low_P = value_PN.masked_fill(~marked_PN, torch.inf).amin(dim=1, keepdim=True)
    return high_P - low_P <= ROUNDING * torch.maximum(high_P.abs(), low_P.abs())


def explained_variance(value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> float:
    """1 − Var[return − V] / Var[return] over real tokens; NaN when the returns do not vary."""
    chosen = mask_BT.bool()
    return_N, value_N = return_BT[chosen], value_BT[chosen]
    variance = return_N.var(unbiased=False)
    if variance == 0:
        return float("nan")
    return float(1 - (return_N - value_N).var(unbiased=False) / variance)
