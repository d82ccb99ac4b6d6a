"""Checks and short descriptions of given values."""

from __future__ import annotations

from torch import Tensor


def is_count(value: object) -> bool:
    """Return True for a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def describe_value(value: object) -> str:
    """Describe a tensor by dtype and shape, and any other value by its class name."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return type(value).__name__
