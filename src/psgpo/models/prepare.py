"""A model as the recipe wants it: adapters, activations that are computed again, frozen matrices in half the bytes."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from psgpo.config import ModelSettings
from psgpo.errors import UserError
from psgpo.models.adapters import add_adapters
from psgpo.models.value import TokenValueModel


def prepare_training(
    model: PreTrainedModel | TokenValueModel, settings: ModelSettings, *, seed: int = 0, adapt: bool = True
) -> None:
    """Change `model` in place as `settings` say; a value model's head learns in full.

    Args:
        seed: of the adapters.
        adapt: False: no adapters, whatever the settings say.

    Raises:
        UserError: the architecture cannot do what is asked for, or peft is missing.
    """
    network = model.classifier if isinstance(model, TokenValueModel) else model
    if settings.lora is not None and adapt:
        add_adapters(network, settings.lora, seed=seed)
        if isinstance(model, TokenValueModel):
            model.head.weight.requires_grad_(True)
    if settings.gradient_checkpointing:
        if not network.supports_gradient_checkpointing:
            name = type(network).__name__
            raise UserError(f"{name}: has no gradient checkpointing; set model.gradient_checkpointing = false")
        # transformers 5 renamed it.
        enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
        enable({"use_reentrant": False})


def round_frozen(model: nn.Module, dtype: str) -> None:
    """Keep frozen matrices of linear layers in the precision that products under `model.dtype` round them to anyway.

    So forward passes in `psgpo.training.computing` give what they gave, bit for bit; outside of it they fail.
    """
    if dtype == "float32":
        return
    for parameter in rounded_parameters(model):
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, dtype))


def rounded_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What `round_frozen` changes where it is frozen: what linear layers have to themselves.

    Embeddings and norms compute in float32 under autocast too, and so a head that shares its matrix with an embedding
    stays as it is.
    """
    owners: dict[nn.Parameter, list[nn.Module]] = defaultdict(list)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[parameter].append(module)
    return [p for p, found in owners.items() if all(isinstance(module, nn.Linear | Conv1D) for module in found)]
