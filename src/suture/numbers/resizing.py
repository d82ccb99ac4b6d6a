"""Resizing as a linear map on positions, with the adjoint and the square for second moments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Mode = Literal["bilinear", "nearest"]


@dataclass(frozen=True)
class Resizing:
    """A linear map W between two grids (height, width), separable, with weights that sum to one.

    It is bilinear interpolation (corners not aligned, no antialiasing) or the nearest position. Channels are
    never resized on an axis that grows: cov(WX) = X'(W'W)X and cov(WX, Y) = X'(W'Y) need only the adjoint, at
    the smaller size. They are resized on an axis that shrinks.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    mode: Mode = "bilinear"

    @property
    def small(self) -> tuple[int, int]:
        """Smaller (height, width) of source and target on each axis, at which products are computed."""
        return min(self.source[0], self.target[0]), min(self.source[1], self.target[1])

    @property
    def is_up(self) -> bool:
        """True if an axis grows."""
        return self.small != self.target

    def resize_map(self, x: Tensor) -> Tensor:
        """Resize a map `x` (N, C, H, W) on both axes."""
        if self.source == self.target:
            return x
        return F.interpolate(x, size=self.target,
                             mode="nearest-exact" if self.mode == "nearest" else "bilinear")

    def resize_grid(self, x: Tensor) -> Tensor:
        """Resize a grid `x` (N, H, W, C) on both axes."""
        return torch.permute(self.resize_map(x.permute(0, 3, 1, 2)), (0, 2, 3, 1))

    def shrink(self, x: Tensor) -> Tensor:
        """Resize a grid `x` (N, H, W, C) on the shrinking axes only."""
        return Resizing(self.source, self.small, self.mode).resize_grid(x)

    def apply_adjoint(self, y: Tensor) -> Tensor:
        """Apply the transposes of the growing axes to `y` (N, H', W', C)."""
        if not self.is_up:
            return y
        n, _, _, c = y.shape
        y, aten, sizes = y.permute(0, 3, 1, 2), torch.ops.aten, (list(self.target), [n, c, *self.small])
        pulled: Tensor = (aten._upsample_nearest_exact2d_backward(y, *sizes) if self.mode == "nearest"
                          else aten.upsample_bilinear2d_backward(y, *sizes, False))
        return torch.permute(pulled, (0, 2, 3, 1))

    def apply_gram(self, x: Tensor) -> Tensor:
        """Apply W'W of the growing axes W to `x`, the result of `shrink`."""
        n, h, w, c = x.shape
        if self.small[0] != self.target[0]:
            x = (self._compute_gram(0).to(x) @ x.reshape(n, h, w * c)).reshape(n, h, w, c)
        if self.small[1] != self.target[1]:
            x = (self._compute_gram(1).to(x) @ x.reshape(n * h, w, c)).reshape(n, h, w, c)
        return x

    def _compute_gram(self, axis: int) -> Tensor:
        weights = compute_interpolation(self.small[axis], self.target[axis], self.mode)
        return weights.T @ weights

    def compute_squared_norms(self, x: Tensor) -> Tensor:
        """Compute the squared norms (N, H', W') of the resized rows from `x`, the result of `shrink`.

        A row on a grown axis mixes two neighbours, so only products of neighbouring positions are needed.
        """
        own: Tensor = torch.linalg.vector_norm(x, dim=-1).square()
        if not self.is_up:
            return own
        (sh, ph), (sw, pw) = (_compute_norm_weights(s, t, self.mode, x)
                              for s, t in zip(self.small, self.target, strict=True))
        norms = sh @ own @ sw.T
        if pw.shape[1]:
            norms = norms + sh @ (x[:, :, 1:] * x[:, :, :-1]).sum(-1) @ pw.T
        if ph.shape[1]:
            norms = norms + ph @ (x[:, 1:] * x[:, :-1]).sum(-1) @ sw.T
        if ph.shape[1] and pw.shape[1]:
            diagonal = (x[:, :-1, :-1] * x[:, 1:, 1:]).sum(-1) + (x[:, :-1, 1:] * x[:, 1:, :-1]).sum(-1)
            norms = norms + ph @ diagonal @ pw.T / 2
        return torch.as_tensor(norms)


@lru_cache(maxsize=256)
def compute_interpolation(source: int, target: int, mode: Mode = "bilinear") -> Tensor:
    """Compute the weights (target, source) of torch's `interpolate` along one axis, in float64."""
    eye = torch.eye(source, dtype=torch.float64)[None, None]
    return Resizing((1, source), (1, target), mode).resize_grid(eye)[0, 0].contiguous()


def _compute_norm_weights(source: int, target: int, mode: Mode, like: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weights of squares and of neighbours' products in the norm of an interpolated row."""
    if source == target:
        eye = torch.eye(source, dtype=like.dtype, device=like.device)
        return eye, eye.new_zeros(source, 0)
    m = compute_interpolation(source, target, mode).to(like)
    return m.square(), 2 * m[:, 1:] * m[:, :-1]

