"""The stitching layer: an affine map of the channels behind an alignment of the positions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture.representations import Alignment, Kind, from_grid, to_grid

Init = Literal["random", "dm", "identity"]


class StitchingLayer(nn.Module):
    """Maps a batch of source representations to the target's shape: align the positions, then x -> W x + b.

    Resize and affine map commute (the resize's weights sum to one), so the map is applied on the side with fewer
    positions; the result is the same up to rounding.

    Args:
        alignment: of the source's shape with the target's.

    Attributes:
        weight: (q, p) parameter.
        bias: (q,) parameter.
    """

    def __init__(self, alignment: Alignment) -> None:
        super().__init__()
        self.alignment = alignment
        self.weight = nn.Parameter(torch.zeros(alignment.target.width, alignment.source.width))
        self.bias = nn.Parameter(torch.zeros(alignment.target.width))

    @torch.no_grad()
    def init_random(self, seed: int) -> StitchingLayer:
        """Uniform in ±1/sqrt(p), as `torch.nn.Conv2d` and `Linear` start; the global generator is not touched."""
        generator = torch.Generator().manual_seed(seed)
        bound = self.alignment.source.width ** -0.5
        for p in (self.weight, self.bias):
            p.copy_(torch.empty(p.shape).uniform_(-bound, bound, generator=generator))
        return self

    @torch.no_grad()
    def init_identity(self) -> StitchingLayer:
        """W = I; where the widths differ, the rectangular identity. b = 0."""
        self.weight.copy_(torch.eye(*self.weight.shape))
        self.bias.zero_()
        return self

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> StitchingLayer:
        """Take over a fitted map: `weight` (q, p) and `bias` (q,)."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) or (N, D) of the source to the shape of the target, in the dtype of `x`."""
        kinds = (self.alignment.source.kind, self.alignment.target.kind)
        out = self._map(x) if kinds == (Kind.MAP, Kind.MAP) else self._grid(x)
        return out.to(x.dtype)

    def _map(self, x: Tensor) -> Tensor:
        weight = self.weight[:, :, None, None]
        x = x.to(weight.dtype)
        size = self.alignment.target.size
        if self.alignment.source.size == size:
            return F.conv2d(x, weight, self.bias)
        if self.alignment.grows:
            return F.interpolate(F.conv2d(x, weight, self.bias), size=size, mode="bilinear", align_corners=False)
        return F.conv2d(F.interpolate(x, size=size, mode="bilinear", align_corners=False), weight, self.bias)

    def _grid(self, x: Tensor) -> Tensor:
        grid = to_grid(x.to(self.weight.dtype))
        if self.alignment.grows:
            grid = self.alignment.resize(F.linear(grid, self.weight, self.bias))
        else:
            grid = F.linear(self.alignment.resize(grid), self.weight, self.bias)
        return from_grid(grid, self.alignment.target.kind).contiguous()

    def extra_repr(self) -> str:
        """What it joins."""
        return f"{self.alignment.source} -> {self.alignment.target}"
