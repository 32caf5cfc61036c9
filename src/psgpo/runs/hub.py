"""Models by their name on the Hugging Face Hub, where a recipe takes a folder."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from psgpo.errors import UserError

_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_NOT_NEEDED = ("*.h5", "*.msgpack", "*.onnx", "*.ot", "*.gguf", "*.tflite", "onnx/*", "openvino/*", "coreml/*")
"""Weights for other frameworks."""


def is_hub_name(path: Path) -> bool:
    """Whether this is `owner/name` and no folder here."""
    return not path.is_dir() and _NAME.fullmatch(path.as_posix()) is not None


def model_folder(path: Path, key: str) -> Path:
    """The folder of a model: `path` itself, or where the Hub's `owner/name` lies in its cache, downloaded if need be.

    Args:
        key: of the recipe, for messages.

    Raises:
        UserError: no such folder, and the Hub does not give it.
    """
    if not is_hub_name(path):
        return path
    name = path.as_posix()
    try:
        return Path(snapshot_download(name, ignore_patterns=list(_NOT_NEEDED)))
    except Exception as error:  # offline, unknown, gated, no disk: the client raises anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{key} = {name!r}: no such folder, and the Hugging Face Hub does not give it ({reason}); download it "
            f"where there is a network (hf download {name} --local-dir FOLDER) and set {key} to that folder"
        ) from None


def cached_folder(path: Path) -> Path | None:
    """As `model_folder` without a network: None for a name on the Hub that is not in its cache yet."""
    if not is_hub_name(path):
        return path
    try:
        return Path(snapshot_download(path.as_posix(), ignore_patterns=list(_NOT_NEEDED), local_files_only=True))
    except OSError:  # not in the cache
        return None
