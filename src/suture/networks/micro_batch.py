"""Micro-batch: the number of examples that pass a network at once."""

from __future__ import annotations

import torch

CPU_BUDGET = 13 * 2**20
GPU_BUDGET = 2 * 2**30
"""Bytes allowed for a micro-batch's largest activation; a CPU's should fit the cache (benchmarks/grid.py)."""


def choose_micro_batch(peak: int, device: torch.device) -> int:
    """Choose the number of examples in a pass, from the bytes `peak` of one example's largest activation."""
    return max(1, (GPU_BUDGET if device.type == "cuda" else CPU_BUDGET) // peak)
