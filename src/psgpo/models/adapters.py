"""LoRA adapters inside a model, through `peft`: W h + (alpha / rank) B A h, with W frozen and B starting at 0.

The layers are changed in place, so the model stays what it is for everybody else; with its adapters off it is the model
it was, which is how one set of weights serves as policy and as reference.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from psgpo.config import LoraSettings
from psgpo.errors import UserError


def require_peft() -> None:
    """
    Raises:
        UserError: peft is not installed.
    """
    if find_spec("peft") is None:
        raise UserError("model.lora needs peft: pip install 'psgpo[lora]'")


def add_adapters(model: PreTrainedModel, settings: LoraSettings, *, seed: int) -> None:
    """Put an adapter into every linear layer but the heads, and freeze everything else.

    Args:
        seed: of the random A; the global random state is left as it was.

    Raises:
        UserError: peft is missing, or finds no layer to adapt.
    """
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules="all-linear",
        exclude_modules=[head for head in ("score", "classifier") if hasattr(model, head)] or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's transposed weights
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            raise UserError(f"{type(model).__name__}: LoRA is not possible ({' '.join(str(error).split())})") from error


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` was here."""
    return any(True for _ in _adapted(model))


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before `add_adapters`."""
    layers = [layer for _, layer in _adapted(model)]
    assert layers, "no adapters to switch off"
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_merged(model: PreTrainedModel, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
    """`model.save_pretrained`, with the adapters added to the weights of a copy: a folder like any other.

    Args:
        dtype: of the saved weights; None: their own.
    """
    if has_adapters(model):
        model = copy.deepcopy(model)
        for name, layer in list(_adapted(model)):
            layer.merge(safe_merge=True)
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer.get_base_layer())
        del model.peft_config
    model.save_pretrained(folder, state_dict=None if dtype is None else _cast(model.state_dict(), dtype))


def _cast(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """On the CPU. Names that share a tensor share one again: tied matrices are written once."""
    cast: dict[tuple[int, torch.Size], Tensor] = {}
    for value in state.values():
        place = (value.data_ptr(), value.shape)
        if place not in cast:
            cast[place] = value.to("cpu", dtype if value.is_floating_point() else value.dtype)
    return {name: cast[value.data_ptr(), value.shape] for name, value in state.items()}


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: the whole state, or with adapters the modules that learn."""
    state = model.state_dict()
    if not has_adapters(model):
        return state
    learning = [
        name for name, module in model.named_modules() if any(p.requires_grad for p in module.parameters(recurse=False))
    ]
    # All of such a module: the bias of a value head is frozen, yet set once by ValueInit.
    return {key: value for key, value in state.items() if key.rpartition(".")[0] in learning}


def load_learned(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Take up a `learned_state`."""
    found = model.load_state_dict(state, strict=not has_adapters(model))
    assert not found.unexpected_keys, found.unexpected_keys


def _adapted(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Adapted layers by name."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            yield name, module
