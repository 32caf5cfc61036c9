"""Bytes of tensors that are alive, counted as operations make them: on real tensors and on fake ones alike."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """While entered: what every new storage holds, from its first operation until nobody refers to it.

    Views share a storage and count once. Allocators round up and keep what is freed; that is not counted.
    """

    def __init__(self, given: Iterable[torch.Tensor] = ()) -> None:
        """`given`: tensors that are there already and count from the start."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        """Bytes alive."""
        self.peak = 0
        """The most that ever was."""
        self._seen: dict[int, int] = {}
        for tensor in given:
            self.add(tensor)

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = storage.nbytes()
        before = self._seen.get(key)
        if before is None:
            weakref.finalize(storage, self._freed, key)
        if before != size:
            self._seen[key] = size
            self.now += size - (before or 0)
            self.peak = max(self.peak, self.now)

    def _freed(self, key: int) -> None:
        self.now -= self._seen.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor):
                self.add(value)
        return result
