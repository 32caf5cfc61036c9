"""Devices as their makers publish them, and how much of that a run is assumed to get."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
TRAINING_SHARE = 0.35
"""Of the peak arithmetic, in forward and backward passes of long rows. Assumed; measure yours from a run's metrics."""
DECODING_SHARE = {"transformers": 0.15, "vllm": 0.5}
"""Of the memory bandwidth, where every step reads all weights, by `sampling.engine`. Assumed."""
OVERHEAD = GIB
"""CUDA context and kernels."""
FRAGMENTS = 0.08
"""Share of the peak that the allocator loses. Assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One device."""

    memory: int
    """Bytes."""
    bandwidth: float
    """Bytes a second."""
    flops: dict[str, float]
    """Dense operations a second by `model.dtype`."""


DEVICES = {
    "a100-40g": Device(memory=40 * GIB, bandwidth=1.555e12, flops={"float32": 19.5e12, "bfloat16": 312e12}),
    "a100-80g": Device(memory=80 * GIB, bandwidth=2.039e12, flops={"float32": 19.5e12, "bfloat16": 312e12}),
    "h100-80g": Device(memory=80 * GIB, bandwidth=3.35e12, flops={"float32": 67e12, "bfloat16": 989e12}),
    "h200": Device(memory=141 * GIB, bandwidth=4.8e12, flops={"float32": 67e12, "bfloat16": 989e12}),
    "l4": Device(memory=24 * GIB, bandwidth=0.3e12, flops={"float32": 30.3e12, "bfloat16": 121e12}),
    "l40s": Device(memory=48 * GIB, bandwidth=0.864e12, flops={"float32": 91.6e12, "bfloat16": 362e12}),
    "rtx4090": Device(memory=24 * GIB, bandwidth=1.008e12, flops={"float32": 82.6e12, "bfloat16": 165e12}),
    "cpu": Device(memory=16 * GIB, bandwidth=20e9, flops={"float32": 60e9, "bfloat16": 60e9}),
}
"""`cpu`: two cores of a server, with 16 GiB; there is no published number for yours."""


def room(memory: int) -> int:
    """Bytes of tensors that fit into a device with so much memory."""
    return int((memory - OVERHEAD) / (1 + FRAGMENTS))
