"""Dropout, switched off: PPO compares logprobs of the same weights, and noise is no change of policy."""

from __future__ import annotations

from torch import nn


def switch_off_dropout(model: nn.Module) -> None:
    """No dropout, in training mode either.

    Layers of their own are one way to write it; attention and BART-like blocks keep the rate as a number.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and "drop" in name:
                setattr(module, name, 0.0)
