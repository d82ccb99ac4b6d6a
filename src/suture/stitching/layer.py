"""The stitching layer: an alignment of positions and an affine map of channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.representations import Alignment, Kind, Part, to_grid
from suture.stitching.affine import Affine
from suture.stitching.families import FULL
from suture.stitching.family import Family

Init = Literal["random", "dm", "identity"]


class StitchingLayer(nn.Module):
    """A map of source representations to the target's shape: align the positions, then x -> W x + b.

    Resizing commutes with the affine map, because its weights sum to one. Unless the alignment rule sets an
    order, the map is applied where there are fewer positions, which is cheaper.

    Args:
        alignment: of the source's shape with the target's.
        family: of the affine map; a `SutureError` if it does not allow the widths. Default: all affine maps.
        relu: apply a ReLU at the end, for targets that are outputs of a ReLU. Direct matching is fitted
            without it. Default: False.
    """

    def __init__(self, alignment: Alignment, family: Family = FULL, *, relu: bool = False) -> None:
        super().__init__()
        self.alignment, self.relu = alignment, relu
        self.affine = Affine(alignment.source.width, alignment.target.width, family)

    @property
    def weight(self) -> Tensor:
        """W, of shape (q, p)."""
        return self.affine.weight

    @property
    def bias(self) -> Tensor:
        """b, of shape (q,)."""
        return self.affine.bias

    def init_random(self, seed: int) -> StitchingLayer:
        """Set a random map of the family (`Affine.init_random`)."""
        self.affine.init_random(seed)
        return self

    def init_identity(self) -> StitchingLayer:
        """Set W = I (the rectangular identity where the widths differ) and b = 0."""
        self.affine.init_identity()
        return self

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> StitchingLayer:
        """Set W (q, p) and b (q,); a map outside the family raises a `SutureError`."""
        self.affine.set(weight, bias)
        return self

    def penalty(self) -> Tensor | None:
        """Return the penalty that is added to the task loss (`Family.penalty`), or None."""
        family = self.affine.family
        return family.penalty(self.weight) if family.penalised else None

    @torch.no_grad()
    def shrink(self, lr: float) -> None:
        """Apply `Family.shrink` to W after an optimiser step of learning rate `lr`."""
        family = self.affine.family
        if family.penalised:
            self.weight.copy_(family.shrink(self.weight, lr))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the source's representations in the target's shape and in the dtype of `x`.

        Args:
            x: (N, C, H, W), or (N, H, W, C) if the source's shape has channels last, (N, T, D) or (N, D).
            mask: (N, T) booleans, False for padding tokens, which averages leave out.
        """
        stitched = self._align(x, mask)
        return F.relu(stitched) if self.relu else stitched

    def _align(self, x: Tensor, mask: Tensor | None) -> Tensor:
        a = self.alignment
        weight, bias = self.weight, self.bias
        if a.source.kind is Kind.MAP and a.target.kind is Kind.MAP:
            channels_first = (x.permute(0, 3, 1, 2) if a.source.last else x).to(weight.dtype)
            made = self._stitch_map(channels_first, weight, bias).to(x.dtype)
            return made.permute(0, 2, 3, 1).contiguous() if a.target.last else made
        parts = [self._stitch_part(part, x.to(weight.dtype), mask, weight, bias) for part in a.parts]
        return a.assemble(parts).contiguous().to(x.dtype)

    def _stitch_map(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        part, kernel = self.alignment.parts[0], weight[:, :, None, None]
        return self._map_and_resize(part, x, lambda t: F.conv2d(t, kernel, bias), part.resizing.resize_map)

    def _stitch_part(self, part: Part, x: Tensor, mask: Tensor | None, weight: Tensor,
                     bias: Tensor) -> Tensor:
        grid = to_grid(x, self.alignment.source, part.source, mask)
        return self._map_and_resize(part, grid, lambda t: F.linear(t, weight, bias),
                                    part.resizing.resize_grid)

    def _map_and_resize(self, part: Part, x: Tensor, map_channels: Callable[[Tensor], Tensor],
                        resize: Callable[[Tensor], Tensor]) -> Tensor:
        order = self.alignment.rule.order
        before, after = (math.prod(size) for size in (part.resizing.source, part.resizing.target))
        map_first = before < after if order == "auto" else order == "after"
        return resize(map_channels(x)) if map_first else map_channels(resize(x))

    def extra_repr(self) -> str:
        """Return the two shapes that the layer joins."""
        return f"{self.alignment.source} -> {self.alignment.target}" + (", relu" if self.relu else "")
