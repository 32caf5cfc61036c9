"""Log-probabilities through the vocabulary head, a chunk of positions at a time.

    log p_n(y) = z_n[y] − lse(z_n)        H_n = lse(z_n) − Σ_v p_n(v) z_n[v]        z_n = (W h_n + b) / temperature

Gradients, with upstream g_n of log p_n(y_n) and e_n of H_n:

    ∂/∂z_n[v] = g_n (1[v = y_n] − p_n(v)) − e_n p_n(v) (log p_n(v) + H_n)

No more than one chunk of (positions, vocabulary) lives at any time. `head_loss` is for training: a loss that is a sum
over positions needs no logits after its chunk, because the chunk's gradient is taken on the spot. `head_logprobs` gives
log-probabilities to whoever wants them; their gradient makes the logits again (or, where all positions fit one chunk,
keeps the probabilities).
"""

# N positions, d hidden features, V vocabulary, C positions of a chunk

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from psgpo.models.seq2seq import Seq2SeqTrunk
from psgpo.models.shift import ShiftForCausalLM

RowLoss = Callable[[Tensor, slice], Tensor]
"""(log p of some positions, which of them) -> their share of a loss that is a sum over positions; a scalar."""

CPU_CHUNK, GPU_CHUNK = 1 << 22, 1 << 27
"""Logits of a chunk: 16 MiB in float32 stay near a CPU's caches, a GPU wants large products."""


@dataclass(frozen=True, slots=True)
class Head:
    """A language model whose logits are exactly `weight @ (scale * hidden) (+ bias)`."""

    trunk: nn.Module | Seq2SeqTrunk
    """Token ids -> `last_hidden_state`."""
    owner: nn.Module
    """Holds `weight (V, d)` and perhaps `bias (V,)`; read at every use, as training may replace them."""
    scale: float = 1.0
    """Of hidden states before the matrix."""

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the matrix is fed, (B, T, d)."""
        found: Tensor = self.trunk(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return found if self.scale == 1.0 else found * self.scale

    def logprobs(
        self, hidden_Nd: Tensor, target_N: Tensor, *, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `head_logprobs`."""
        return head_logprobs(hidden_Nd, *self._matrix(), target_N, temperature=temperature, with_entropy=with_entropy)

    def loss(
        self, hidden_Nd: Tensor, target_N: Tensor, row_loss: RowLoss, *, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `head_loss`."""
        return head_loss(
            hidden_Nd, *self._matrix(), target_N, row_loss, temperature=temperature, with_entropy=with_entropy
        )

    def _matrix(self) -> tuple[Tensor, Tensor | None]:
        return self.owner.weight, getattr(self.owner, "bias", None)


def head_logprobs(
    hidden_Nd: Tensor,
    weight_Vd: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """log softmax((W h_n + b) / temperature)[y_n], and the entropies in nats. Both (N,), float32.

    Products run in the precision of `hidden_Nd` and `weight_Vd` (under autocast in autocast's), the rest in float32.

    Args:
        target_N: y, int64.
        chunk: positions of a chunk; None: as many as make `CPU_CHUNK` or `GPU_CHUNK` logits.
    """
    hidden_Nd, weight_Vd, bias_V = _in_compute_precision(hidden_Nd, weight_Vd, bias_V)
    rows = chunk or _chunk_rows(weight_Vd)
    logprob_N, entropy_N = _HeadLogprobs.apply(hidden_Nd, weight_Vd, bias_V, target_N, temperature, with_entropy, rows)
    return logprob_N, entropy_N if with_entropy else None


def head_loss(
    hidden_Nd: Tensor,
    weight_Vd: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    row_loss: RowLoss,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Σ over chunks of row_loss(log p(y_n) of the chunk, which positions), and the entropies (N,) without gradient.

    The gradient is that of `row_loss` applied to `head_logprobs`. It is taken in the forward pass, chunk by chunk, so
    `row_loss` must be differentiable and a plain sum over positions: what it adds to one must not depend on others.
    """
    hidden_Nd, weight_Vd, bias_V = _in_compute_precision(hidden_Nd, weight_Vd, bias_V)
    rows = chunk or _chunk_rows(weight_Vd)
    loss, entropy_N = _HeadLoss.apply(hidden_Nd, weight_Vd, bias_V, target_N, row_loss, temperature, with_entropy, rows)
    return loss, entropy_N if with_entropy else None


def _in_compute_precision(
    hidden_Nd: Tensor, weight_Vd: Tensor, bias_V: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All of them in autocast's precision, where it is on."""
    device = hidden_Nd.device.type
    if not torch.is_autocast_enabled(device):
        return hidden_Nd, weight_Vd, bias_V
    compute = torch.get_autocast_dtype(device)
    return hidden_Nd.to(compute), weight_Vd.to(compute), None if bias_V is None else bias_V.to(compute)


def _chunk_rows(weight_Vd: Tensor) -> int:
    return max(1, (CPU_CHUNK if weight_Vd.device.type == "cpu" else GPU_CHUNK) // weight_Vd.shape[0])


def _logits(hidden_Cd: Tensor, weight_Vd: Tensor, bias_V: Tensor | None, temperature: float) -> Tensor:
    """(C, V) in float32; a tensor of its own, free to be changed in place."""
    logits_CV = functional.linear(hidden_Cd, weight_Vd, bias_V).float()
    return logits_CV if temperature == 1.0 else logits_CV.div_(temperature)


def _softmax(
    logits_CV: Tensor, target_C: Tensor, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """log p of the targets, lse, entropy, exp(z − max z) and its sums; the logits are used up without entropy."""
    picked_C = logits_CV.gather(1, target_C[:, None])[:, 0]
    top_C1 = logits_CV.amax(-1, keepdim=True)
    # The logits themselves are needed once more for the entropy alone.
    exp_CV = (logits_CV - top_C1 if with_entropy else logits_CV.sub_(top_C1)).exp_()
    sum_C = exp_CV.sum(-1)
    lse_C = top_C1[:, 0] + sum_C.log()
    entropy_C = lse_C - torch.linalg.vecdot(exp_CV, logits_CV) / sum_C if with_entropy else None
    return picked_C - top_C1[:, 0] - sum_C.log(), lse_C, entropy_C, exp_CV, sum_C


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_Nd: Tensor,
        weight_Vd: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        row_loss: RowLoss,
        temperature: float,
        with_entropy: bool,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        count = len(hidden_Nd)
        loss = torch.zeros((), dtype=torch.float32, device=hidden_Nd.device)
        entropy_N = torch.zeros(count, dtype=torch.float32, device=hidden_Nd.device)
        gradients = _Gradients(hidden_Nd, weight_Vd, bias_V, ctx.needs_input_grad[:3])
        with torch.autocast(hidden_Nd.device.type, enabled=False):
            for start in range(0, count, rows):
                part = slice(start, min(start + rows, count))
                logits_CV = _logits(hidden_Nd[part], weight_Vd, bias_V, temperature)
                logprob_C, _, entropy_C, exp_CV, sum_C = _softmax(logits_CV, target_N[part], with_entropy)
                if entropy_C is not None:
                    entropy_N[part] = entropy_C
                with torch.enable_grad():
                    leaf_C = logprob_C.detach().requires_grad_()
                    share = row_loss(leaf_C, part)
                    (g_C,) = torch.autograd.grad(share, leaf_C)
                loss += share.detach()
                g_C = g_C / temperature
                grad_CV = exp_CV.mul_((-g_C / sum_C)[:, None]).scatter_add_(1, target_N[part, None], g_C[:, None])
                gradients.add(part, grad_CV)
        ctx.mark_non_differentiable(entropy_N)
        ctx.save_for_backward(*gradients.sums)
        ctx.precision = weight_Vd.dtype
        return loss, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _entropy: Any) -> tuple[Tensor | None, ...]:
        hidden_grad, weight_grad, bias_grad = ctx.saved_tensors
        found = (
            None if hidden_grad is None else hidden_grad * upstream.to(hidden_grad.dtype),
            None if weight_grad is None else (weight_grad * upstream).to(ctx.precision),
            None if bias_grad is None else (bias_grad * upstream).to(ctx.precision),
        )
        return *found, None, None, None, None, None


class _Gradients:
    """Sums over chunks of the gradients by hidden states, matrix and bias, each where it is wanted.

    Sums over positions, those of matrix and bias, are kept in float32.
    """

    def __init__(
        self, hidden_Nd: Tensor, weight_Vd: Tensor, bias_V: Tensor | None, wanted: tuple[bool, bool, bool]
    ) -> None:
        self._hidden_Nd, self._weight_Vd = hidden_Nd, weight_Vd
        self.sums = (
            torch.zeros_like(hidden_Nd) if wanted[0] else None,
            torch.zeros_like(weight_Vd, dtype=torch.float32) if wanted[1] else None,
            torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and wanted[2] else None,
        )

    def add(self, part: slice, grad_CV: Tensor) -> None:
        """The share of the positions `part`, from the gradient by their logits (C, V) before the temperature."""
        grad_CV = grad_CV.to(self._hidden_Nd.dtype)
        hidden, weight, bias = self.sums
        if hidden is not None:
            torch.mm(grad_CV, self._weight_Vd, out=hidden[part])
        if weight is not None and grad_CV.dtype == torch.float32:
            weight.addmm_(grad_CV.T, self._hidden_Nd[part])
        elif weight is not None:
            weight.add_(grad_CV.T @ self._hidden_Nd[part])
        if bias is not None:
            bias += grad_CV.sum(0)


class _HeadLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_Nd: Tensor,
        weight_Vd: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        temperature: float,
        with_entropy: bool,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        count = len(hidden_Nd)
        logprob_N, lse_N = (torch.empty(count, dtype=torch.float32, device=hidden_Nd.device) for _ in range(2))
        entropy_N = torch.zeros_like(lse_N)
        kept_NV = None
        ctx.set_materialize_grads(False)
        learns = any(ctx.needs_input_grad[:3])
        with torch.autocast(hidden_Nd.device.type, enabled=False):
            for start in range(0, count, rows):
                part = slice(start, start + rows)
                logits_CV = _logits(hidden_Nd[part], weight_Vd, bias_V, temperature)
                logprob_N[part], lse_N[part], entropy_C, exp_CV, sum_C = _softmax(
                    logits_CV, target_N[part], with_entropy
                )
                if entropy_C is not None:
                    entropy_N[part] = entropy_C
                if learns and count <= rows:
                    kept_NV = exp_CV.div_(sum_C[:, None])
        if learns:
            ctx.save_for_backward(hidden_Nd, weight_Vd, bias_V, target_N, lse_N, entropy_N, kept_NV)
            ctx.temperature, ctx.rows = temperature, rows
        return logprob_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, logprob_grad_N: Tensor | None, entropy_grad_N: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_Nd, weight_Vd, bias_V, target_N, lse_N, entropy_N, kept_NV = ctx.saved_tensors
        count, rows = len(hidden_Nd), ctx.rows
        gradients = _Gradients(hidden_Nd, weight_Vd, bias_V, ctx.needs_input_grad[:3])
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            if kept_NV is None:
                p_CV = _logits(hidden_Nd[part], weight_Vd, bias_V, ctx.temperature).sub_(lse_N[part, None]).exp_()
            else:
                p_CV = kept_NV
            g_C1 = torch.zeros_like(lse_N[part, None]) if logprob_grad_N is None else logprob_grad_N[part, None]
            grad_CV = (p_CV * -g_C1).scatter_add_(1, target_N[part, None], g_C1)
            if entropy_grad_N is not None:
                slope_CV = torch.special.xlogy(p_CV, p_CV).add_(p_CV * entropy_N[part, None])
                grad_CV.sub_(slope_CV.mul_(entropy_grad_N[part, None]))
            gradients.add(part, grad_CV.div_(ctx.temperature))
        hidden_grad, weight_grad, bias_grad = gradients.sums
        weight_grad = None if weight_grad is None else weight_grad.to(weight_Vd.dtype)
        bias_grad = None if bias_grad is None else bias_grad.to(weight_Vd.dtype)
        return hidden_grad, weight_grad, bias_grad, None, None, None, None


_FOUND: WeakKeyDictionary[PreTrainedModel, Head | None] = WeakKeyDictionary()


def plain_head(model: PreTrainedModel) -> Head | None:
    """The model as a trunk and a matrix, or None where its logits are more than that: scaled or soft-capped.

    Found out once per model by one forward pass over two tokens, not from a list of names; a model without a plain
    head is named in a warning.
    """
    if isinstance(model, ShiftForCausalLM):
        return Head(model.model, model.model.embed_tokens)
    if model not in _FOUND:
        _FOUND[model] = _probe(model)
        if _FOUND[model] is None:
            warnings.warn(
                f"{type(model).__name__}: its logits are not a matrix times its hidden states (a scale or a soft cap, "
                "perhaps), so log-probabilities take its own forward, with all logits in memory",
                stacklevel=3,
            )
    return _FOUND[model]


@torch.no_grad()
def _probe(model: PreTrainedModel) -> Head | None:
    both = bool(model.config.is_encoder_decoder)
    last, owner = model.get_decoder() if both else model.base_model, model.get_output_embeddings()
    if last is model or not isinstance(owner, nn.Linear):
        return None
    seen: dict[str, Tensor] = {}

    # Known large numbers in place of both outputs: at random weights a soft cap would change too little to be seen.
    def after_trunk(_module: nn.Module, _arguments: Any, output: Any) -> None:
        seen["hidden"] = _ramp(output[0])

    def after_head(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        seen["fed"], seen["logits"] = arguments[0].clone(), _ramp(output)

    hooks = [last.register_forward_hook(after_trunk), owner.register_forward_hook(after_head)]
    try:
        ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
        more = {"decoder_input_ids": ids} if both else {}
        # Of a frozen model some matrices are kept rounded (`prepare.round_frozen`); autocast brings them together.
        mixed = len({parameter.dtype for parameter in model.parameters()}) > 1
        with torch.autocast(model.device.type, torch.bfloat16, enabled=mixed):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **more).logits
    finally:
        for hook in hooks:
            hook.remove()
    if set(seen) != {"hidden", "fed", "logits"} or not torch.equal(seen["logits"].to(logits.dtype), logits):
        return None
    # T5 with one matrix for both embeddings divides by the root of the width in between.
    for scale in (1.0, owner.in_features**-0.5):
        if torch.equal(seen["fed"], seen["hidden"] if scale == 1.0 else seen["hidden"] * scale):
            return Head(Seq2SeqTrunk(model) if both else last, owner, scale)
    return None


def _ramp(tensor: Tensor) -> Tensor:
    """Fill `tensor` with numbers from -100 to 100; a copy of them."""
    tensor.copy_(torch.linspace(-100, 100, tensor.numel()).view(tensor.shape))
    return tensor.clone()
