"""A policy or critic without weights, and what one forward and backward pass of it holds in memory.

The network is built from config.json alone on PyTorch's fake tensors, which have shapes and no contents. One
micro-batch is then sent through the code that training runs (trunk, vocabulary head in chunks, loss, backward), and the
bytes alive are counted at every operation. So adapters, checkpointing, bfloat16 copies of weights and the chunks of
logits cost what they cost, for any architecture, and no constant is fitted to one. Attention keeps what the CPU's fused
kernel keeps, which is what those of GPUs keep: inputs, output and a sum per row.

How an encoder–decoder splits a row depends on the ids, which fake tensors do not have: `split_rows` runs on real ids of
the wanted lengths, and its shapes go on.
"""

# B sequences, T tokens, N marked tokens

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from psgpo.config import ModelSettings
from psgpo.models import ShiftConfig, TokenValueModel, prepare_training
from psgpo.models.dropout import switch_off_dropout
from psgpo.models.logprobs import CPU_CHUNK, GPU_CHUNK, Head, head_logprobs, head_loss
from psgpo.models.prepare import rounded_parameters
from psgpo.models.seq2seq import Seq2SeqTrunk, SplitRows, split_rows
from psgpo.models.seq2seq_value import Seq2SeqValueConfig
from psgpo.rl.losses import policy_loss, value_loss
from psgpo.runs.plan.live import LiveBytes
from psgpo.training import computing

Role = Literal["policy", "critic", "encoder"]
"""encoder: a PRM that reads (problem, prefix) and gives one number."""
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
        with torch.device("meta"):
            made = _made(config, role, gpu=gpu)
            if role != "encoder":  # trained as it is, by psgpo.prm.encoder_train
                switch_off_dropout(made)
                prepare_training(made, settings, adapt=adapt)  # type: ignore[arg-type]
        self.fake = FakeTensorMode()
        _without_contents(made.train(), self.fake)
        self.module = made
        self._known: dict[tuple[Any, ...], int] = {}

    @property
    def weights(self) -> int:
        """Bytes of parameters and buffers."""
        return _bytes(self.tensors())

    def frozen(self, dtype: str) -> int:
        """Bytes of the weights of a copy that learns nothing, under this `model.dtype`."""
        halved = 0 if dtype == "float32" else _bytes(rounded_parameters(self.module)) // 2
        return self.weights - halved

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
            live, split = LiveBytes(self.tensors()), self._split(parts[0])
            with self.fake, live:
                if len(parts) > 1:
                    for parameter in self.module.parameters():
                        if parameter.requires_grad:
                            parameter.grad = torch.zeros_like(parameter)
                self._backward(parts[0], split, temperature, entropy)
            self.module.zero_grad()
            self._known[key] = live.peak - self.weights
        return self._known[key]

    def forward_bytes(self, rows: Sequence[Row], *, temperature: float = 1.0) -> int:
        """The most that is alive beside the weights in a forward pass without gradient."""
        key = "forward", _shape(rows), temperature != 1.0
        if key not in self._known:
            live = LiveBytes(self.tensors())
            split = self._split(rows)
            with self.fake, live, torch.no_grad(), computing(self.settings.dtype, "cpu"):
                ids, mask, where, target = _batch(rows)
                if self.role == "critic":
                    self._values(ids, mask, split)
                else:
                    hidden = self._hidden(ids, mask, split)[:, :-1][where]
                    head_logprobs(hidden, *self._matrix(), target, temperature=temperature, chunk=self._chunk())
            self._known[key] = live.peak - self.weights
        return self._known[key]

    def tensors(self) -> list[torch.Tensor]:
        """Parameters and buffers, shared ones once."""
        return list({id(t): t for t in (*self.module.parameters(), *self.module.buffers())}.values())

    @property
    def both(self) -> bool:
        """Whether it is an encoder–decoder."""
        return bool(self.config.is_encoder_decoder)

    def _hidden(self, ids: torch.Tensor, mask: torch.Tensor, split: SplitRows | None) -> torch.Tensor:
        """What the vocabulary head is fed, (B, T, d)."""
        model: Any = self.module
        if split is None:
            return Head(model.base_model, self._owner).hidden(ids, self._mask(mask))  # type: ignore[arg-type]
        states = Seq2SeqTrunk(model).states(_shapes(split))
        # As T5 with one matrix for both embeddings; a copy, alive for a moment, that others do without.
        return states * states.shape[-1] ** -0.5 if getattr(self.config, "tie_word_embeddings", False) else states

    def _values(self, ids: torch.Tensor, mask: torch.Tensor, split: SplitRows | None) -> torch.Tensor:
        """(B, T)."""
        model: Any = self.module
        if split is None:
            found: torch.Tensor = model(ids, self._mask(mask))
            return found
        read: torch.Tensor = model.classifier.read(_shapes(split))
        return read.squeeze(-1).float()

    @property
    def _owner(self) -> nn.Module:
        model: Any = self.module
        owner: nn.Module = model.get_output_embeddings() or model.base_model.get_input_embeddings()
        return owner

    def _matrix(self) -> tuple[Any, Any]:
        return self._owner.weight, getattr(self._owner, "bias", None)

    def _split(self, rows: Sequence[Row]) -> SplitRows | None:
        """Rows as an encoder–decoder takes them, in real numbers; made outside the mode of fake tensors."""
        if not self.both:
            return None
        width, end, other, pad = max(map(sum, rows)), 1, 2, 0
        ids = [[other] * (p - 1) + [end] + [other] * r + [pad] * (width - p - r) for p, r in rows]
        mask = [[1] * (p + r) + [0] * (width - p - r) for p, r in rows]
        return split_rows(torch.tensor(ids), torch.tensor(mask), start=0, end=end, pad=pad)

    def _chunk(self) -> int:
        return max(1, (GPU_CHUNK if self._gpu else CPU_CHUNK) // int(self.config.get_text_config().vocab_size))

    def _mask(self, mask_BT: torch.Tensor) -> torch.Tensor | None:
        # psgpo-shift looks at the mask to find that padding on the right needs none.
        return None if isinstance(self.config, ShiftConfig) else mask_BT

    def _backward(self, rows: Sequence[Row], split: SplitRows | None, temperature: float, entropy: bool) -> None:
        ids, mask, where, target = _batch(rows)
        if self.role == "encoder":
            logits: torch.Tensor = self.module(input_ids=ids, attention_mask=mask).logits[:, 0].float()
            wanted, weight = torch.zeros(len(rows)), torch.ones(len(rows))
            loss = (weight * functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()
        elif self.role == "critic":
            old, returns, marked = (torch.zeros(ids.shape) for _ in range(3))
            with computing(self.settings.dtype, "cpu"):
                value = self._values(ids, mask, split)
            value = functional.pad(value[:, :-1], (1, 0)) * marked
            loss, _ = value_loss(value, old, returns, marked, clip=0.5, denominator=1.0)
        else:
            old, advantage = (torch.zeros(len(target)) for _ in range(2))

            def row_loss(logprob: torch.Tensor, part: slice) -> torch.Tensor:
                every = torch.ones_like(logprob)
                return policy_loss(logprob, old[part], advantage[part], every, clip=0.2, denominator=1.0)[0]

            with computing(self.settings.dtype, "cpu"):
                hidden = self._hidden(ids, mask, split)[:, :-1][where]
                options: Any = {"temperature": temperature, "with_entropy": entropy, "chunk": self._chunk()}
                loss, _ = head_loss(hidden, *self._matrix(), target, row_loss, **options)
                del hidden
        torch.autograd.backward(loss)


def _from(family: Any, config: PretrainedConfig) -> PreTrainedModel:
    # As weights are loaded, whatever they are stored in.
    made: PreTrainedModel = family.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return made


def _made(config: PretrainedConfig, role: Role, *, gpu: bool) -> nn.Module:
    """A network of this shape."""
    shape = copy.deepcopy(config)
    both = bool(config.is_encoder_decoder)
    if both:  # not every config.json has them all; shapes do not depend on which they are
        shape.decoder_start_token_id, shape.eos_token_id, shape.pad_token_id = 0, 1, 0
    if role == "policy":
        return _from(AutoModelForSeq2SeqLM if both else AutoModelForCausalLM, shape)
    shape.num_labels = 1
    if role == "encoder":
        if gpu and hasattr(shape, "attention_probs_dropout_prob"):
            # Fused kernels of GPUs drop out without keeping the scores, that of the CPU knows no dropout.
            shape.attention_probs_dropout_prob = 0.0
        return _from(AutoModelForSequenceClassification, shape)
    if not both:
        shape.classifier_dropout = 0.0
    elif not isinstance(shape, Seq2SeqValueConfig):
        shape = Seq2SeqValueConfig.around(shape, num_labels=1)
    if isinstance(shape, Seq2SeqValueConfig):
        for key in ("dtype", "torch_dtype"):
            shape.trunk.pop(key, None)
    return TokenValueModel(_from(AutoModelForTokenClassification, shape))


def _shapes(split: SplitRows) -> SplitRows:
    """The same without contents; made within the mode of fake tensors."""

    def bare(one: torch.Tensor) -> torch.Tensor:
        return torch.zeros(one.shape, dtype=one.dtype)

    values = {name: bare(getattr(split, name)) for name in ("encoder_ids", "encoder_mask", "decoder_ids")}
    rest = {name: bare(getattr(split, name)) for name in ("decoder_mask", "places")}
    return SplitRows(**values, **rest, steps=tuple(bare(one) for one in split.steps))


def _shape(rows: Sequence[Row]) -> tuple[int, ...]:
    """(rows, width, marked tokens, longest prompt, longest response): all that memory depends on."""
    prompts, responses = zip(*rows, strict=True)
    return len(rows), max(map(sum, rows)), sum(responses), max(prompts), max(responses)


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
