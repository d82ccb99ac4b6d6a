"""Micro-batch: the number of examples that pass a network at once."""

from __future__ import annotations

import torch

CPU_BUDGET = 13 * 2**20
GPU_BUDGET = 2 * 2**30
"""Bytes that the largest activation of a micro-batch may need.

On a CPU it should stay in the cache: 52 images for ResNet-18 at 32x32, among the fastest in
benchmarks/grid.py.
"""


def choose_micro_batch(peak: int, device: torch.device) -> int:
    """Choose the number of examples in a pass, from the bytes `peak` of one example's largest activation."""
    return max(1, (GPU_BUDGET if device.type == "cuda" else CPU_BUDGET) // peak)
