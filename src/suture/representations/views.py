"""Views: representations as rows on a grid (N, H, W, C).

A map (N, C, H, W) is permuted, which copies nothing. Tokens (N, T, D) become a grid of height 1, or the map
that their patches form. A vector (N, D) becomes a grid of one position.
"""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from suture.representations.shapes import Kind, Shape


class View(Enum):
    """Choice of rows: all, tokens without the prefix, the prefix alone, or the mean without the prefix."""

    ALL = "all"
    GRID = "grid"
    PREFIX = "prefix"
    POOLED = "pooled"


def describe_positions(shape: Shape, view: View) -> tuple[str, int, int]:
    """Return (kind of positions, height, width) of a view, equal if rows correspond; width 0 is any length.
    """
    if view is View.POOLED or shape.kind is Kind.VECTOR:
        return "grid", 1, 1
    if shape.kind is Kind.MAP:
        return "grid", shape.size[0], shape.size[1]
    if view is View.PREFIX:
        return "prefix", 1, shape.prefix
    if shape.varies:
        return "sequence" if view is View.ALL or not shape.prefix else "rest", 1, 0
    if view is View.ALL and shape.prefix:
        return "tokens", 1, shape.size[0]
    return ("grid", *shape.grid) if shape.grid else ("tokens", 1, shape.size[0] - shape.prefix)


def to_grid(x: Tensor, shape: Shape, view: View, mask: Tensor | None = None) -> Tensor:
    """Return a view of a batch of representations as a grid (N, H, W, C).

    Args:
        x: (N, C, H, W) or (N, H, W, C) as the shape says, (N, T, D) or (N, D).
        mask: (N, T), False at padding tokens; the mean leaves them out. A mask of another length is ignored:
            it belongs to other tokens, such as those of the text beside an image.
    """
    if shape.kind is Kind.VECTOR:
        return x[:, None, None, :]
    if shape.kind is Kind.MAP:
        grid = x if shape.last else x.permute(0, 2, 3, 1)
        return grid.mean((1, 2), keepdim=True) if view is View.POOLED else grid
    if view is View.POOLED:
        own = mask if mask is not None and _is_mask_of(mask, shape) and mask.shape[1] == x.shape[1] else None
        return _average_tokens(x, shape.prefix, own)[:, None, None, :]
    return _select_tokens(x, shape, view).reshape(len(x), *_get_grid_size(shape, view), shape.width)


def get_row_mask(shape: Shape, view: View, mask: Tensor | None) -> Tensor | None:
    """Return (N, H, W) booleans, False at a view's padding rows; None without a mask for these rows."""
    if mask is None or not _is_mask_of(mask, shape) or view is View.POOLED:
        return None
    return _select_tokens(mask, shape, view).reshape(len(mask), *_get_grid_size(shape, view))


def _select_tokens(tokens: Tensor, shape: Shape, view: View) -> Tensor:
    if view is View.ALL:
        return tokens
    return tokens[:, :shape.prefix] if view is View.PREFIX else tokens[:, shape.prefix:]


def _average_tokens(x: Tensor, prefix: int, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x[:, prefix:].mean(1)
    unpadded = mask[:, prefix:, None]
    return x[:, prefix:].masked_fill(~unpadded, 0).sum(1) / unpadded.sum(1).clamp_min(1)


def _is_mask_of(mask: Tensor, shape: Shape) -> bool:
    return shape.varies or (shape.kind is Kind.TOKENS and mask.shape[1:] == shape.size)


def _get_grid_size(shape: Shape, view: View) -> tuple[int, int]:
    """Return height and width of a view's grid, for `reshape`."""
    _, height, width = describe_positions(shape, view)
    return height, width or -1
