"""A model as the recipe wants it trained: adapters, activations that are computed again."""

from __future__ import annotations

from transformers import PreTrainedModel

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
