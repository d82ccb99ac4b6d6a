"""The same few rows of every example's representation, for distances that pair examples."""

from __future__ import annotations

import torch
from torch import Tensor

from suture.representations.shapes import Shape
from suture.representations.token_masks import Masks
from suture.representations.views import View, get_row_mask, to_grid


def count_rows(shape: Shape, most: int) -> int:
    """Return the number of rows that `pick_rows` picks of each example, whatever texts are padded to."""
    return most if shape.varies else min(shape.rows, most)


def pick_rows(x: Tensor, shape: Shape, masks: Masks, most: int) -> Tensor:
    """Return at most `most` rows of each example, (N, L, C) float32.

    Where all examples have the same positions, the rows are the same positions, drawn once. Of texts they
    are evenly spread over the unpadded tokens, so that short texts repeat some.

    Args:
        x: a batch of representations.
        shape: of one example.
        masks: False at padding tokens.
        most: largest number of rows.
    """
    rows, kept = to_grid(x.float(), shape, View.ALL).flatten(1, -2), get_row_mask(shape, View.ALL, masks)
    wanted = count_rows(shape, most)
    if kept is None and not shape.varies:
        generator = torch.Generator().manual_seed(shape.rows)
        drawn = torch.randperm(shape.rows, generator=generator)[:wanted].sort().values
        return rows[:, drawn.to(rows.device)]
    kept = rows.new_ones(rows.shape[:2], dtype=torch.bool) if kept is None else kept.flatten(1)
    middle = (torch.arange(wanted, device=rows.device) + 0.5) / wanted
    places = (middle * kept.sum(1, keepdim=True)).long()
    order = (~kept).int().argsort(dim=1, stable=True)
    index = order.gather(1, places.clamp(max=rows.shape[1] - 1))
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))
