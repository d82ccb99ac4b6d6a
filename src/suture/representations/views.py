"""Representations as rows on a grid of positions.

A grid is (N, D, H, W, C), of depth 1 but for volumes and videos. A map (N, C, H, W) is permuted, which copies
nothing. Tokens (N, T, D) and maps (N, C, T) become a grid of height 1, or the grid that their patches form. A
vector (N, D) becomes a grid of one position.
"""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from suture.representations.shapes import Kind, Shape, Size
from suture.representations.token_masks import Masks, select_mask


class View(Enum):
    """Choice of rows: all, tokens without the prefix, the prefix alone, or the mean without the prefix."""

    ALL = "all"
    GRID = "grid"
    PREFIX = "prefix"
    POOLED = "pooled"


def describe_positions(shape: Shape, view: View) -> tuple[str, int, int, int]:
    """Return (kind, depth, height, width) of a view's positions, equal if rows correspond; width 0: any."""
    if view is View.POOLED or shape.kind is Kind.VECTOR:
        return "grid", 1, 1, 1
    if len(shape.size) > 1:
        return "grid", *_pad_size(shape.size)
    patches_alone = view is View.GRID or (view is View.ALL and not shape.prefix)
    if patches_alone and shape.grid and not shape.varies:
        return "grid", *_pad_size(shape.grid)
    kind, count = _name_tokens(shape, view)
    # Tokens of another input sequence have another mask.
    return f"{kind} {shape.sequence}" if shape.sequence else kind, 1, 1, count


def _name_tokens(shape: Shape, view: View) -> tuple[str, int]:
    """Return the kind and the number of a view's tokens; 0: any."""
    if view is View.PREFIX:
        return "prefix", shape.prefix
    if shape.varies:
        return "sequence" if view is View.ALL or not shape.prefix else "rest", 0
    return "tokens", shape.size[0] - (0 if view is View.ALL else shape.prefix)


def _pad_size(size: Size) -> tuple[int, int, int]:
    depth, height, width = (1,) * (3 - len(size)) + size
    return depth, height, width


def to_grid(x: Tensor, shape: Shape, view: View, masks: Masks = None) -> Tensor:
    """Return a view of a batch of representations as a grid (N, D, H, W, C).

    Args:
        x: (N, C, H, W) or (N, H, W, C) as the shape says, likewise with one axis or three in place of (H, W);
            (N, T, D) or (N, D).
        masks: (N, T), False at padding tokens; the mean leaves them out. A mask of another length is ignored:
            it belongs to other tokens, such as those of the text beside an image.
    """
    x = x.movedim(1, -1) if shape.channels_first else x
    if len(shape.size) == 1:
        if view is View.POOLED:
            mask = select_mask(masks, shape.sequence)
            known = mask is not None and _is_mask_of(mask, shape) and mask.shape[1] == x.shape[1]
            return _average_tokens(x, shape.prefix, mask if known else None)[:, None, None, None, :]
        return _select_tokens(x, shape, view).reshape(len(x), *_get_grid_size(shape, view), shape.width)
    grid = x[:, *[None] * (3 - len(shape.size))]
    return grid.mean((1, 2, 3), keepdim=True) if view is View.POOLED and shape.size else grid


def get_row_mask(shape: Shape, view: View, masks: Masks) -> Tensor | None:
    """Return (N, D, H, W) booleans, False at a view's padding rows; None without a mask for these rows."""
    mask = select_mask(masks, shape.sequence)
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
    return shape.varies or (len(shape.size) == 1 and mask.shape[1:] == shape.size)


def _get_grid_size(shape: Shape, view: View) -> tuple[int, int, int]:
    """Return depth, height and width of a view's grid, for `reshape`."""
    _, depth, height, width = describe_positions(shape, view)
    return depth, height, width or -1
