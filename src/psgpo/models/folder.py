"""Weights from a folder, all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from psgpo.errors import UserError


def load_whole(auto: Any, directory: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """What the Auto class `auto` makes of a local folder; no code from it is run.

    transformers fills what a folder lacks with random numbers and only warns.

    Raises:
        UserError: the folder lacks weights of the model it names.
    """
    model, found = auto.from_pretrained(
        directory, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"{directory}: lacks {len(missing)} of the weights of a {type(model).__name__}, {missing[0]} for one; save "
            "the whole model there (adapters merged into it)"
        )
    return model
