"""Resizing as a linear map on positions, with the adjoint and the square for second moments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Mode = Literal["bilinear", "nearest"]
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Torch's names of linear interpolation by the number of axes."""


@dataclass(frozen=True)
class Resizing:
    """A linear map W between two grids of one, two or three axes, separable, with weights that sum to one.

    It is linear interpolation on every axis (corners not aligned, no antialiasing; bilinear on two axes) or
    the nearest position. Channels are never resized on an axis that grows: cov(WX) = X'(W'W)X and
    cov(WX, Y) = X'(W'Y) need only the adjoint, at the smaller size. They are resized on an axis that shrinks.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    mode: Mode = "bilinear"

    @property
    def small(self) -> tuple[int, ...]:
        """Smaller size of source and target on each axis, at which products are computed."""
        return tuple(map(min, self.source, self.target))

    @property
    def is_up(self) -> bool:
        """True if an axis grows."""
        return self.small != self.target

    def resize_map(self, x: Tensor) -> Tensor:
        """Resize a map `x` (N, C, *source) on every axis."""
        if self.source == self.target:
            return x
        if self._is_flat:
            return self._drop_axis().resize_map(x.squeeze(2)).unsqueeze(2)
        return F.interpolate(x, size=self.target, mode="nearest-exact" if self.mode == "nearest"
                             else _LINEAR[len(self.target)])

    @property
    def _is_flat(self) -> bool:
        """True for three axes of which the first has one position: images, for which torch has fast code."""
        return len(self.source) == 3 and self.source[0] == self.target[0] == 1

    def _drop_axis(self) -> Resizing:
        return Resizing(self.source[1:], self.target[1:], self.mode)

    def resize_grid(self, x: Tensor) -> Tensor:
        """Resize a grid `x` (N, *source, C) on every axis."""
        return self.resize_map(x.movedim(-1, 1)).movedim(1, -1)

    def shrink(self, x: Tensor) -> Tensor:
        """Resize a grid `x` (N, *source, C) on the shrinking axes only."""
        return Resizing(self.source, self.small, self.mode).resize_grid(x)

    def apply_adjoint(self, y: Tensor) -> Tensor:
        """Apply the transposes of the growing axes to `y` (N, *target, C)."""
        if not self.is_up:
            return y
        if self._is_flat:
            return self._drop_axis().apply_adjoint(y.squeeze(1)).unsqueeze(1)
        axes, y = len(self.target), y.movedim(-1, 1)
        sizes = list(self.target), [*y.shape[:2], *self.small]
        aten, near = torch.ops.aten, self.mode == "nearest"
        name = f"_upsample_nearest_exact{axes}d" if near else f"upsample_{_LINEAR[axes]}{axes}d"
        pulled: Tensor = getattr(aten, f"{name}_backward")(y, *sizes, *(() if near else (False,)))
        return pulled.movedim(1, -1)

    def apply_gram(self, x: Tensor) -> Tensor:
        """Apply W'W of the growing axes W to `x`, the result of `shrink`."""
        for axis, (small, target) in enumerate(zip(self.small, self.target, strict=True), 1):
            if small != target:
                weights = compute_interpolation(small, target, self.mode)
                rows = x.reshape(math.prod(x.shape[:axis]), small, -1)
                x = ((weights.T @ weights).to(x) @ rows).reshape(x.shape)
        return x

    def compute_squared_norms(self, x: Tensor) -> Tensor:
        """Compute the squared norms (N, *target) of the resized rows from `x`, the result of `shrink`.

        A row on a grown axis mixes two neighbours, so only products of neighbouring positions are needed.
        """
        own: Tensor = torch.linalg.vector_norm(x, dim=-1).square()
        if not self.is_up:
            return own
        if self._is_flat:
            return self._drop_axis().compute_squared_norms(x.squeeze(1)).unsqueeze(1)
        weights = [_compute_norm_weights(s, t, self.mode, x)
                   for s, t in zip(self.small, self.target, strict=True)]
        norms = _weigh(own, [square for square, _ in weights])
        for steps in _list_steps([mixed.shape[1] > 0 for _, mixed in weights]):
            # Each axis with a step counts both orders of its two neighbours; together they have one.
            chosen = [w[step != 0] for w, step in zip(weights, steps, strict=True)]
            norms = norms + _weigh(_multiply_neighbours(x, steps), chosen) / 2**(sum(map(abs, steps)) - 1)
        return norms


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


def _list_steps(grown: list[bool]) -> Iterator[tuple[int, ...]]:
    """Yield each direction to a neighbour along the grown axes once: of two opposite ones the first."""
    for steps in product(*((0, 1, -1) if g else (0,) for g in grown)):
        if next((s for s in steps if s), 0) == 1:
            yield steps


def _multiply_neighbours(x: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Multiply each row of a grid (N, *size, C) with its neighbour in the direction `steps`."""
    ends = {0: (slice(None), slice(None)), 1: (slice(-1), slice(1, None)), -1: (slice(1, None), slice(-1))}
    first, second = (tuple(ends[s][k] for s in steps) for k in (0, 1))
    return (x[:, *first] * x[:, *second]).sum(-1)


def _weigh(values: Tensor, weights: list[Tensor]) -> Tensor:
    """Apply a matrix (target, source) to each axis of values (N, *source)."""
    for axis, weight in enumerate(weights, 1):
        values = F.linear(values.movedim(axis, -1), weight).movedim(-1, axis)
    return values
