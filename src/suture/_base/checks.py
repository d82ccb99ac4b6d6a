"""What was given, in a word."""

from __future__ import annotations

from torch import Tensor


def is_count(value: object) -> bool:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def describe_value(value: object) -> str:
    """A tensor by type and shape, everything else by its class."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return type(value).__name__
