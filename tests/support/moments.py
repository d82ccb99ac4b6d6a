"""Representations of many shapes, their moments, and how equal moments must be."""

from __future__ import annotations

import torch

from suture.numbers.moments import Moments
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.shapes import Kind, Shape


def assert_equal_moments(a: Moments, b: Moments, rtol=1e-9) -> None:
    assert a.n == b.n
    for one, two in ((a.x, b.x), (a.y, b.y)):
        for f in ("shift", "gram", "cubic", "quartic"):
            u, v = getattr(one, f), getattr(two, f)
            scale = {"shift": 1, "gram": 1, "cubic": float(two.quartic) ** 0.75, "quartic": 0}[f]
            torch.testing.assert_close(u, v, rtol=rtol, atol=rtol * (scale + float(v.abs().max()) + 1e-3))
    for f in ("xy", "x_yy", "xx_y", "xx_yy"):
        u, v = getattr(a.cross, f), getattr(b.cross, f)
        scale = (float(b.x.quartic) * float(b.y.quartic)) ** 0.375 + 1
        torch.testing.assert_close(u, v, rtol=rtol, atol=rtol * scale)


SIZES = [Shape(Kind.MAP, 3, (4, 6)), Shape(Kind.MAP, 4, (4, 6)), Shape(Kind.MAP, 2, (8, 3)),
          Shape(Kind.MAP, 5, (5, 5)), Shape(Kind.VECTOR, 4), Shape(Kind.MAP, 2, (1, 1)),
          Shape(Kind.MAP, 3, (9, 13))]
SIGNALS = [Shape(Kind.MAP, 3, (5,)), Shape(Kind.MAP, 2, (8,)), Shape(Kind.VECTOR, 4),
           Shape(Kind.MAP, 2, (1,)), Shape(Kind.MAP, 4, (13,))]
VOLUMES = [Shape(Kind.MAP, 3, (2, 3, 4)), Shape(Kind.MAP, 2, (4, 2, 3)), Shape(Kind.VECTOR, 4),
           Shape(Kind.MAP, 2, (1, 3, 3)), Shape(Kind.MAP, 4, (3, 5, 2))]
ALL_SIZES = {"images": SIZES, "signals": SIGNALS, "volumes": VOLUMES}
"""Shapes that can be aligned with each other, by what they are of."""


def batch_of(shape: Shape, n: int, seed: int, mean: float = 0.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    size = (shape.width, *shape.size)
    return torch.randn(n, *size, generator=g) * 2 + mean


def first_shape(x: torch.Tensor) -> Shape:
    """The shape of a vector or of a map with the channels first."""
    return Shape(Kind.MAP if x.ndim > 2 else Kind.VECTOR, x.shape[1], tuple(x.shape[2:]))


def grid_moments(xs, ys, splits, precision=torch.float64, same=False, folds=1) -> AlignedMoments:
    sx, sy = [first_shape(x) for x in xs], [first_shape(y) for y in ys]
    made = AlignedMoments(sx, sy, same=same, precision=precision, folds=folds)
    start = 0
    for size in splits:
        rows = slice(start, start + size)
        made.update([x[rows] for x in xs], [y[rows] for y in ys])
        start += size
    return made
