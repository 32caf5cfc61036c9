"""A policy or critic without weights, and what one forward and backward pass of it holds in memory.

The network is built from config.json alone on PyTorch's fake tensors, which have shapes and no contents. One
micro-batch is then sent through the code that training runs (trunk, vocabulary head in chunks, loss, backward), and the
bytes alive are counted at every operation. So adapters, checkpointing, bfloat16 copies of weights and the chunks of
logits cost what they cost, for any architecture, and no constant is fitted to one. Attention keeps what the CPU's fused
kernel keeps, which is what those of GPUs keep: inputs, output and a sum per row.
"""

# B sequences, T tokens, N marked tokens

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel

from psgpo.config import ModelSettings
from psgpo.models import ShiftConfig, TokenValueModel, prepare_training
from psgpo.models.logprobs import CPU_CHUNK, GPU_CHUNK, Head, head_logprobs, head_loss
from psgpo.rl.losses import policy_loss, value_loss
from psgpo.runs.plan.live import LiveBytes
from psgpo.training import computing

Role = Literal["policy", "critic"]
Row = tuple[int, int]
"""(tokens of the prompt, of the response)."""


class Network:
    """A network as a recipe has it trained.

    Args:
        adapt: whether it learns adapters where the recipe has them.
        gpu: whether it is to run on one: logits come in larger chunks there.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        role: Role,
        settings: ModelSettings,
        *,
        adapt: bool = True,
        gpu: bool = True,
    ) -> None:
        self.config, self.role, self.settings, self._gpu = config, role, settings, gpu
        shape = copy.deepcopy(config)
        with torch.device("meta"):
            if role == "critic":
                shape.num_labels, shape.classifier_dropout = 1, 0.0
                made: nn.Module = TokenValueModel(_from(AutoModelForTokenClassification, shape))
            else:
                made = _from(AutoModelForCausalLM, shape)
            for module in made.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            prepare_training(made, settings, adapt=adapt)  # type: ignore[arg-type]
        self._fake = FakeTensorMode()
        _without_contents(made.train(), self._fake)
        self.module = made
        self._known: dict[tuple[Any, ...], int] = {}

    @property
    def weights(self) -> int:
        """Bytes of parameters and buffers."""
        return _bytes(self._tensors())

    @property
    def learned(self) -> int:
        """Bytes of what the optimizer changes, and so of its gradients."""
        return _bytes([p for p in self.module.parameters() if p.requires_grad])

    @property
    def parameters(self) -> int:
        """How many there are, adapters included."""
        return sum(p.numel() for p in self.module.parameters())

    def update_bytes(self, parts: Sequence[Sequence[Row]], *, temperature: float = 1.0, entropy: bool = True) -> int:
        """The most that is alive beside the weights in an update: gradients, activations, logits, batch.

        Args:
            parts: rows of every micro-batch, largest first; from the second one on all gradients are there before it.
        """
        key = "update", _shape(parts[0]), len(parts) > 1, temperature != 1.0, entropy
        if key not in self._known:
            self.module.zero_grad()
            live = LiveBytes(self._tensors())
            with self._fake, live:
                if len(parts) > 1:
                    for parameter in self.module.parameters():
                        if parameter.requires_grad:
                            parameter.grad = torch.zeros_like(parameter)
                self._backward(parts[0], temperature, entropy)
            self.module.zero_grad()
            self._known[key] = live.peak - self.weights
        return self._known[key]

    def forward_bytes(self, rows: Sequence[Row], *, temperature: float = 1.0) -> int:
        """The most that is alive beside the weights in a forward pass without gradient."""
        key = "forward", _shape(rows), temperature != 1.0
        if key not in self._known:
            live = LiveBytes(self._tensors())
            with self._fake, live, torch.no_grad(), computing(self.settings.dtype, "cpu"):
                ids, mask, where, target = _batch(rows)
                if isinstance(self.module, TokenValueModel):
                    self.module(ids, self._mask(mask))
                else:
                    head, chunk = self._head, self._chunk()
                    hidden = head.hidden(ids, self._mask(mask))[:, :-1][where]  # type: ignore[arg-type]
                    matrix: tuple[Any, Any] = head.owner.weight, getattr(head.owner, "bias", None)
                    head_logprobs(hidden, *matrix, target, temperature=temperature, chunk=chunk)
            self._known[key] = live.peak - self.weights
        return self._known[key]

    def _tensors(self) -> list[torch.Tensor]:
        return list({id(t): t for t in (*self.module.parameters(), *self.module.buffers())}.values())

    @property
    def _head(self) -> Head:
        model: Any = self.module
        return Head(model.base_model, model.get_output_embeddings() or model.base_model.get_input_embeddings())

    def _chunk(self) -> int:
        return max(1, (GPU_CHUNK if self._gpu else CPU_CHUNK) // int(self.config.get_text_config().vocab_size))

    def _mask(self, mask_BT: torch.Tensor) -> torch.Tensor | None:
        # psgpo-shift looks at the mask to find that padding on the right needs none.
        return None if isinstance(self.config, ShiftConfig) else mask_BT

    def _backward(self, rows: Sequence[Row], temperature: float, entropy: bool) -> None:
        ids, mask, where, target = _batch(rows)
        if isinstance(self.module, TokenValueModel):
            old, returns, marked = (torch.zeros(ids.shape) for _ in range(3))
            with computing(self.settings.dtype, "cpu"):
                value = self.module(ids, self._mask(mask))
            value = nn.functional.pad(value[:, :-1], (1, 0)) * marked
            loss, _ = value_loss(value, old, returns, marked, clip=0.5, denominator=1.0)
        else:
            old, advantage = (torch.zeros(len(target)) for _ in range(2))

            def row_loss(logprob: torch.Tensor, part: slice) -> torch.Tensor:
                every = torch.ones_like(logprob)
                return policy_loss(logprob, old[part], advantage[part], every, clip=0.2, denominator=1.0)[0]

            with computing(self.settings.dtype, "cpu"):
                head, chunk = self._head, self._chunk()
                hidden = head.hidden(ids, self._mask(mask))[:, :-1][where]  # type: ignore[arg-type]
                matrix: tuple[Any, Any] = head.owner.weight, getattr(head.owner, "bias", None)
                options: Any = {"temperature": temperature, "with_entropy": entropy, "chunk": chunk}
                loss, _ = head_loss(hidden, *matrix, target, row_loss, **options)
                del hidden
        torch.autograd.backward(loss)


def _from(family: Any, config: PretrainedConfig) -> PreTrainedModel:
    # As weights are loaded, whatever they are stored in.
    made: PreTrainedModel = family.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return made


def _shape(rows: Sequence[Row]) -> tuple[int, int, int]:
    """(rows, width, marked tokens): all that memory depends on."""
    return len(rows), max(map(sum, rows)), sum(response for _, response in rows)


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    return sum(int(t.numel()) * int(t.element_size()) for t in tensors)


def _batch(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """ids, mask (B, T); where the tokens stand that predict a marked one; marked ids (N,). Contents do not matter."""
    width = max(prompt + response for prompt, response in rows)
    marked = sum(response for _, response in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    where = torch.zeros(marked, dtype=torch.long), torch.zeros(marked, dtype=torch.long)
    return ids, torch.ones_like(ids), where, torch.zeros(marked, dtype=torch.long)


def _without_contents(module: nn.Module, fake: FakeTensorMode) -> None:
    """Replace parameters and buffers on the meta device by fake ones that say they are on the CPU; ties stay tied."""
    known: dict[int, torch.Tensor] = {}

    def replaced(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            with fake:
                new = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            known[id(tensor)] = new
        return known[id(tensor)]

    for one in module.modules():
        for name, parameter in list(one._parameters.items()):
            if parameter is not None:
                one._parameters[name] = replaced(parameter)  # type: ignore[assignment]
        for name, buffer in list(one._buffers.items()):
            if buffer is not None:
                one._buffers[name] = replaced(buffer)
