"""A preallocated key-value cache of slots: one row of the decoding batch each, every row with its own length.

transformers' DynamicCache copies all keys and values at every step and keeps rows that have finished; here a step
writes one position per row, finished rows give their slot away, and rows need no padding before them.
"""

# N rows in use, H key-value heads, C capacity in positions, D head features, W positions in use

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `(slots, H, C, D)`."""

    is_sliding = False

    def __init__(self, owner: SlotCache) -> None:
        super().__init__()
        # A cycle would keep all keys and values alive through the update that follows, until the collector runs.
        self._owner = weakref.ref(owner)

    @property
    def owner(self) -> SlotCache:
        owner = self._owner()
        assert owner is not None
        return owner

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        slots, C = self.owner.slots, self.owner.capacity
        self.keys = key_states.new_zeros((slots, key_states.shape[1], C, key_states.shape[-1]))
        self.values = value_states.new_zeros((slots, value_states.shape[1], C, value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one position per row and return views of the rows and positions in use."""
        assert key_states.shape[2] == 1, "slots take one token per row and step"
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        owner = self.owner
        H = key_states.shape[1]
        rows = owner.write_rows(H)
        # Under autocast keys come in float32 (rotated) and values in bfloat16; a prefill keeps both in float32.
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            kept.view(-1, kept.shape[-1]).index_copy_(0, rows, new.flatten(0, 2).to(kept.dtype))
        return self.keys[: owner.rows, :, : owner.width], self.values[: owner.rows, :, : owner.width]

    def load(self, slots: Tensor, source_rows: Tensor, source: CacheLayerMixin) -> None:
        """Copy rows of a prefilled cache into slots."""
        if not self.is_initialized:
            self.lazy_initialization(source.keys, source.values)
        T = source.keys.shape[2]
        self.keys[slots, :, :T] = source.keys[source_rows]
        self.values[slots, :, :T] = source.values[source_rows]

    def move(self, origin: Tensor, target: Tensor, width: int) -> None:
        """Copy the first `width` positions of some rows over other rows."""
        if self.is_initialized:
            self.keys[target, :, :width] = self.keys[origin, :, :width]
            self.values[target, :, :width] = self.values[origin, :, :width]

    def grow(self, capacity: int) -> None:
        """Make room for more positions."""
        if self.is_initialized:
            keys, values = self.keys, self.values
            self.lazy_initialization(keys, values)
            self.keys[:, :, : keys.shape[2]] = keys
            self.values[:, :, : values.shape[2]] = values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.width, 0

    def get_seq_length(self) -> int:
        return self.owner.width - 1

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length


class SlotCache(Cache):
    """Slot layers that share the row lengths. Call `begin_step` before every forward pass."""

    def __init__(self, layers: int, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.rows = 0
        self.width = 0
        self._positions = torch.zeros(0, dtype=torch.long)
        self._write_rows: dict[int, Tensor] = {}
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])

    def begin_step(self, positions: Tensor, width: int) -> None:
        """The next pass feeds one token to each of the first `len(positions)` rows, at these positions.

        Args:
            positions: `(N,)`, how many tokens each row holds already.
            width: 1 + the largest of them.
        """
        self._reserve(width)
        self.rows, self.width, self._positions = len(positions), width, positions
        self._write_rows.clear()

    def _reserve(self, width: int) -> None:
        """Make room for `width` positions, half as much again as before so that copies stay rare."""
        if width > self.capacity:
            self.capacity = max(width, self.capacity * 3 // 2)
            for layer in self.layers:
                layer.grow(self.capacity)

    def write_rows(self, heads: int) -> Tensor:
        """Rows of the keys seen as `(slots * H * C, D)` that this step writes, `(N * H,)`; made once per step."""
        if heads not in self._write_rows:
            device = self._positions.device
            first = torch.arange(self.rows * heads, device=device).view(self.rows, heads) * self.capacity
            self._write_rows[heads] = (first + self._positions[:, None]).flatten()
        return self._write_rows[heads]

    def load(self, slots: Tensor, source_rows: Tensor, source: Cache) -> None:
        """Copy rows of a prefilled cache into slots."""
        self._reserve(source.get_seq_length())
        for layer, source_layer in zip(self.layers, source.layers, strict=True):
            layer.load(slots, source_rows, source_layer)

    def move(self, origin: Tensor, target: Tensor, width: int) -> None:
        """Copy rows over others, to close gaps."""
        for layer in self.layers:
            layer.move(origin, target, width)
