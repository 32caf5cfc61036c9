"""From lists of ids to tensors, and the log-probabilities of given tokens with gradient."""

# B sequences, T tokens, N marked tokens of the whole batch, V vocabulary

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from psgpo.models.logprobs import RowLoss, plain_head
from psgpo.models.seq2seq import marked_logits


def right_pad(
    rows: Sequence[Sequence[int]], pad_token_id: int, *, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """`input_ids (B, T)` padded on the right and `attention_mask (B, T)` with 1 at real tokens, both int64.

    >>> right_pad([[5, 6, 7], [8]], 0)[0].tolist()
    [[5, 6, 7], [8, 0, 0]]
    """
    width = max((len(row) for row in rows), default=0)
    ids_BT = torch.tensor([[*row, *[pad_token_id] * (width - len(row))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    mask_BT = (torch.arange(width) < lengths[:, None]).long()
    return ids_BT.to(device), mask_BT.to(device)


def token_logprobs(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    loss_mask: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the tokens marked by `loss_mask`, and the entropy at those positions.

    logprobs[b, t] = log softmax(logits[b, t - 1] / temperature)[input_ids[b, t]]; 0 where `loss_mask` is 0.

    Only marked positions are projected onto the vocabulary, in chunks (`psgpo.models.logprobs`).

    Args:
        input_ids, attention_mask, loss_mask: `(B, T)`; `loss_mask` is 0 at column 0, which nothing predicts.
        with_entropy: also return H[b, t] in nats of the distribution that token t was drawn from, with gradient.
    """
    mask_BT, target_N = _marked(input_ids, loss_mask)
    head = plain_head(model)
    if head is not None:
        hidden_Nd = head.hidden(input_ids, attention_mask)[:, :-1][mask_BT]
        picked_N, entropy_N = head.logprobs(hidden_Nd, target_N, temperature=temperature, with_entropy=with_entropy)
    else:
        picked_N, entropy_N = _through_logits(model, input_ids, attention_mask, mask_BT, target_N, temperature)
    where_BT = functional.pad(mask_BT, (1, 0))
    zeros_BT = torch.zeros(input_ids.shape, dtype=torch.float32, device=input_ids.device)
    logprobs_BT = zeros_BT.masked_scatter(where_BT, picked_N)
    return logprobs_BT, zeros_BT.masked_scatter(where_BT, entropy_N) if with_entropy else None


def token_loss(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    loss_mask: Tensor,
    row_loss: RowLoss,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """A loss over the tokens marked by `loss_mask`, and their entropies (N,) without gradient.

    The same as a loss of `token_logprobs`, for less time and memory: see `psgpo.models.logprobs.head_loss`.

    Args:
        row_loss: (log-probabilities of some marked tokens, which of the N in row-major order) -> their share.
    """
    mask_BT, target_N = _marked(input_ids, loss_mask)
    head = plain_head(model)
    if head is not None:
        hidden_Nd = head.hidden(input_ids, attention_mask)[:, :-1][mask_BT]
        return head.loss(hidden_Nd, target_N, row_loss, temperature=temperature, with_entropy=with_entropy)
    picked_N, entropy_N = _through_logits(model, input_ids, attention_mask, mask_BT, target_N, temperature)
    return row_loss(picked_N, slice(0, len(picked_N))), entropy_N.detach() if with_entropy else None


def _marked(input_ids: Tensor, loss_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where the tokens stand that predict a marked one (B, T - 1), and the marked ones (N,)."""
    assert not bool(loss_mask[:, 0].any()), "nothing predicts the first token"
    mask_BT = loss_mask[:, 1:].bool()
    return mask_BT, input_ids[:, 1:][mask_BT]


def _through_logits(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    mask_BT: Tensor,
    target_N: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (N,) by the model's own forward."""
    if model.config.is_encoder_decoder:
        logits_NV = marked_logits(model, input_ids, attention_mask, functional.pad(mask_BT, (0, 1)))
    else:
        columns = mask_BT.any(dim=0).nonzero()
        first = int(columns[0]) if len(columns) else 0
        # Logits from the first marked position on: prompts cost no vocabulary softmax.
        kept = input_ids.shape[1] - first
        output = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=kept)
        logits_NV = output.logits[:, -kept:-1][mask_BT[:, first:]]
    log_p_NV = functional.log_softmax(logits_NV.float() / temperature, dim=-1)
    return log_p_NV.gather(1, target_N[:, None])[:, 0], -(log_p_NV.exp() * log_p_NV).sum(-1)
