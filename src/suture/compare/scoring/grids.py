"""Norms of grids of rows and channels, and outputs that are no logits as such grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture.numbers import Float32Array
from suture.representations import Shape, View, to_grid


def arrange_output(output: Tensor, size: int, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Arrange the outputs for `size` examples as a grid (N, 1, rows, channels), with the mask of its rows.

    Channels are the last axis of (N, D) and of tokens (N, T, D), and the second one of maps (N, C, H, W). An
    output (N,) has one row and channel. Without examples along the first axis the grid is NaN.

    Args:
        mask: (N, T) booleans, False for padding tokens. It is used where the output has T tokens.

    Returns:
        The float32 grid, and booleans (N, 1, rows) or None if all rows count.
    """
    if not output.ndim or len(output) != size:
        return torch.full((size, 1, 1, 1), torch.nan, device=output.device), None
    rows = output.float()
    rows = (rows.flatten(2).transpose(1, 2) if rows.ndim > 3 else rows if rows.ndim == 3
            else rows.reshape(size, 1, -1))
    fits = mask is not None and output.ndim == 3 and mask.shape[1] == rows.shape[1]
    return rows[:, None], mask[:, None] if fits and mask is not None else None


def sum_squares(x: Tensor, shape: Shape, mask: Tensor | None) -> Tensor:
    """Return |x|² of each example, (N,), without padding."""
    return square_norms(x if mask is None else zero_padding(to_grid(x, shape, View.ALL), mask))


def zero_padding(grid: Tensor, mask: Tensor | None) -> Tensor:
    """Return a grid (N, H, W, C) with zeros at padding."""
    return grid if mask is None else grid.masked_fill(~mask[..., None], 0)


def square_norms(x: Tensor) -> Tensor:
    # No flatten: it would copy a channels-last map into another memory order.
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)))
    return norms.square()


def shift_to_mean(deviation: Float32Array, sums: Float32Array, rows: NDArray[Any]) -> Float32Array:
    """Return |T - mean|² (N,) from |T - c|² (N,), channel sums of T - c (N, q) and row counts (N,)."""
    shift = sums.sum(0, dtype=np.float64) / rows.sum(dtype=np.float64)
    cross = np.asarray(sums @ shift.astype(np.float32), np.float64)
    # Only rounding can make it negative.
    about: Float32Array = np.maximum(deviation - 2 * cross + rows * (shift @ shift), 0).astype(np.float32)
    return about
