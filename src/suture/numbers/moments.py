"""Second moments of a pair of matrices, and how those of disjoint rows are merged.

Linear CKA, every CCA, Procrustes, regression and direct matching are functions of these sums. So one pass
over the data (`suture.numbers.pair_moments`) serves them all, and memory does not grow with the examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from suture._base import check_finite, expect


def to_double(value: Tensor) -> Tensor:
    """Convert to float64, on the CPU where the device has no float64 (mps)."""
    return value.cpu().double() if value.device.type == "mps" else value.double()


class _Mergeable(Protocol):
    def merge(self, *others: Self) -> Self: ...


M = TypeVar("M", bound=_Mergeable)


def merge_all(blocks: Iterable[M]) -> M:
    """Merge at least one block."""
    first, *others = blocks
    return first.merge(*others) if others else first


def merge_blocks(blocks: Sequence[M], most: int) -> list[M]:
    """Merge blocks into at most `most` blocks; block b joins number b modulo `most`."""
    return [merge_all(blocks[k::most]) for k in range(min(most, len(blocks)))]


def leave_out(blocks: Sequence[M], k: int) -> M:
    """Merge all blocks but block `k`; at least two blocks are needed."""
    return merge_all(block for i, block in enumerate(blocks) if i != k)


@dataclass(frozen=True)
class Side:
    """Sums over `n` rows x of one matrix, about a point `shift` (p,) that is subtracted from every row.

    `total` (p,) sums x, `gram` (p, p) x x', `cubic` (p,) |x|² x, and `quartic` () |x|⁴.
    """

    n: int
    shift: Tensor
    total: Tensor
    gram: Tensor
    cubic: Tensor
    quartic: Tensor

    def shift_to(self, shift: Tensor) -> Side:
        """Return the same sums about another shift, by exact algebra without a pass over the data."""
        return _sum_sides([self], shift)

    def merge(self, *others: Side) -> Side:
        """Return the sums over the rows of all, about their mean."""
        parts = (self, *others)
        # Relative to the first shift, because the mean of a column that does not vary is then exact.
        offsets = torch.stack([p.n * (p.shift - self.shift) + p.total for p in parts])
        return _sum_sides(parts, self.shift + offsets.sum(0) / sum(p.n for p in parts))

    @property
    def mean(self) -> Tensor:
        """Mean of the rows, (p,)."""
        return self.shift + self.total / self.n


@dataclass(frozen=True)
class Cross:
    """Sums over the pairs of rows (x, y), about the shifts of the two sides.

    `xy` (p, q) sums x y', `x_yy` (p,) |y|² x, `xx_y` (q,) |x|² y, and `xx_yy` () |x|² |y|².
    """

    xy: Tensor
    x_yy: Tensor
    xx_y: Tensor
    xx_yy: Tensor

    def shift_to(self, x: Side, y: Side, shift_x: Tensor, shift_y: Tensor) -> Cross:
        """Return the same sums about other shifts; `x` and `y` are the sides about their present shifts."""
        return sum_crosses([Moments(x, y, self)], shift_x, shift_y)


@dataclass(frozen=True)
class Moments:
    """Moments of matrices X (n, p) and Y (n, q) with the same rows, in float64: sums about the means.

    `precision` is the dtype of the products. It sets the rank cut of everything solved from them.
    """

    x: Side
    y: Side
    cross: Cross
    precision: torch.dtype = torch.float64

    @staticmethod
    def check(x: Tensor, y: Tensor) -> None:
        """Raise `SutureError` unless two matrices have the same rows, at least one, without NaN or inf."""
        expect(x.ndim == y.ndim == 2 and len(x) == len(y) > 0, "two matrices with the same rows",
               f"shapes {tuple(x.shape)} and {tuple(y.shape)}", "pass (n, p) and (n, q)")
        for name, m in (("x", x), ("y", y)):
            check_finite(m, f"matrix {name}", "drop those rows")

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Moments:
        """Compute the moments of two matrices (n, p) and (n, q) in memory, in float64, after `check`."""
        cls.check(x, y)
        (x, mean_x), (y, mean_y) = (_centre_rows(to_double(m)) for m in (x, y))
        kx, ky = x.square().sum(1), y.square().sum(1)
        first, second = (Side(len(m), mean, torch.zeros_like(mean), m.T @ m, m.T @ k, k @ k)
                         for m, k, mean in ((x, kx, mean_x), (y, ky, mean_y)))
        return cls(first, second, Cross(x.T @ y, x.T @ ky, y.T @ kx, kx @ ky))

    def centre(self) -> Moments:
        """Return the same moments about the means."""
        return self.merge()

    def merge(self, *others: Moments) -> Moments:
        """Return the moments of the rows of all, about their means."""
        parts = (self, *others)
        x, y = self.x.merge(*(p.x for p in others)), self.y.merge(*(p.y for p in others))
        precision = min((p.precision for p in parts), key=lambda d: torch.finfo(d).bits)
        return Moments(x, y, sum_crosses(parts, x.shift, y.shift), precision)

    def turn(self) -> Moments:
        """Return the moments with source and target in each other's place."""
        c = self.cross
        return Moments(self.y, self.x, Cross(c.xy.T, c.xx_y, c.x_yy, c.xx_yy), self.precision)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.x.n

    @property
    def sxx(self) -> Tensor:
        """Scatter (p, p) of x: sum of (x - mean)(x - mean)'."""
        return self.x.gram

    @property
    def syy(self) -> Tensor:
        """Scatter (q, q) of y."""
        return self.y.gram

    @property
    def sxy(self) -> Tensor:
        """Cross scatter (p, q)."""
        return self.cross.xy


@dataclass(frozen=True)
class UnitRowSums:
    """Sums of `n` rows at unit length: `total` (p,) of x / |x| in float64, and the number of zero rows."""

    n: int
    total: Tensor
    zeros: int

    @classmethod
    def of(cls, x: Tensor) -> UnitRowSums:
        """Compute the sums of the unit rows of a matrix (n, p)."""
        norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        units = to_double(torch.where(norms > 0, x / norms, 0.0))
        return cls(len(x), units.sum(0), int((norms == 0).sum()))

    def merge(self, *others: UnitRowSums) -> UnitRowSums:
        """Return the sums of the rows of all."""
        parts = (self, *others)
        return UnitRowSums(sum(p.n for p in parts), torch.stack([p.total for p in parts]).sum(0),
                           sum(p.zeros for p in parts))


def standardise_rows(x: Tensor) -> Tensor:
    """Scale the rows of `x` (n, p) to mean 0 and length 1; rows that vary by rounding only become zeros."""
    mean = x.mean(1, keepdim=True)
    rest = x - mean
    floor = 8 * torch.finfo(x.dtype).eps * mean.abs() * x.shape[1] ** 0.5
    norms = torch.linalg.vector_norm(rest, dim=1, keepdim=True)
    return torch.where(norms > floor, rest / norms, 0.0)


@dataclass(frozen=True)
class MomentBlock:
    """Moments that one block of examples adds to a pair.

    `unit` has the sums of both sides' rows at unit length, `standard` the moments after `standardise_rows`.
    """

    moments: Moments
    unit: tuple[UnitRowSums, UnitRowSums] | None = None
    standard: Moments | None = None

    @classmethod
    def of(cls, x: Tensor, y: Tensor, *, units: bool) -> MomentBlock:
        """Compute the moments of rows (n, p) and (n, q); with `units`, those of rows at unit length too."""
        if not units:
            return cls(Moments.of(x, y))
        x, y = to_double(x), to_double(y)
        return cls(Moments.of(x, y), (UnitRowSums.of(x), UnitRowSums.of(y)),
                   Moments.of(standardise_rows(x), standardise_rows(y)))

    def merge(self, *others: MomentBlock) -> MomentBlock:
        """Return the block of the rows of all."""
        units = [b.unit for b in (self, *others) if b.unit]
        standard = [b.standard for b in (self, *others) if b.standard]
        alike = len(others) + 1
        return MomentBlock(
            self.moments.merge(*(b.moments for b in others)),
            (merge_all(u for u, _ in units), merge_all(u for _, u in units)) if len(units) == alike else None,
            merge_all(standard) if len(standard) == alike else None)

    def turn(self) -> MomentBlock:
        """Return the block with source and target in each other's place."""
        return MomentBlock(self.moments.turn(), None if self.unit is None else self.unit[::-1],
                           None if self.standard is None else self.standard.turn())


def _centre_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (n, p) about their mean, and the mean (p,)."""
    shift = x.mean(0)
    x = x - shift
    # Once more: the rounding of a large mean would count as the variance of a column that has none.
    rest = x.mean(0)
    return x.sub_(rest), shift + rest


def _add_up(matrices: Iterable[Tensor]) -> Tensor:
    first, *others = matrices
    total = first.clone()
    for m in others:
        total += m
    return total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Multiply rows with rows: the products (B,) of matrices (B, p)."""
    return (a * b).sum(1)


def _stack(parts: Sequence[Side], shift: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return numbers of rows (B, 1), traces (B, 1), totals (B, p) and the way (B, p) to a new shift."""
    totals = torch.stack([p.total for p in parts])
    n = totals.new_tensor([[p.n] for p in parts])
    traces = torch.stack([torch.trace(p.gram) for p in parts])[:, None]
    return n, traces, totals, shift - torch.stack([p.shift for p in parts])


def _sum_sides(parts: Sequence[Side], shift: Tensor) -> Side:
    """Return the sums over the rows of all parts about one shift."""
    # With x - d for x, sums of products of x become these polynomials in d, part by part.
    n, k, t, d = _stack(parts, shift)
    gd = torch.stack([p.gram @ way for p, way in zip(parts, d, strict=True)])
    cubic, quartic = (torch.stack([getattr(p, name) for p in parts]) for name in ("cubic", "quartic"))
    dd, dt = _dot(d, d)[:, None], _dot(d, t)[:, None]
    edge = (t - n * d / 2).T @ d
    gram = _add_up(p.gram for p in parts)
    gram -= edge + edge.T
    return Side(
        sum(p.n for p in parts), shift, (t - n * d).sum(0), gram,
        (cubic - k * d - 2 * gd + 2 * dt * d + dd * t - n * dd * d).sum(0),
        (quartic + 4 * _dot(d, gd) + (n * dd**2 + 2 * dd * k - 4 * dd * dt)[:, 0]
         - 4 * _dot(d, cubic)).sum())


def sum_crosses(parts: Sequence[Moments], shift_x: Tensor, shift_y: Tensor) -> Cross:
    """Return the cross sums over the rows of all parts, which have shifts of their own, about one shift."""
    n, k, tx, dx = _stack([p.x for p in parts], shift_x)
    _, m, ty, dy = _stack([p.y for p in parts], shift_y)
    xt, yt = (_dot(*pair)[:, None] for pair in ((dx, tx), (dy, ty)))
    xy = _add_up(p.cross.xy for p in parts)
    xy -= (tx - n * dx).T @ dy + dx.T @ ty
    x_yy, xx_y, xx_yy = (torch.stack([getattr(p.cross, name) for p in parts])
                         for name in ("x_yy", "xx_y", "xx_yy"))
    if bool(xx_yy.isnan().any()):  # not kept
        return Cross(xy, x_yy.sum(0), xx_y.sum(0), xx_yy.sum())
    kx, ky = (_dot(*pair)[:, None] for pair in ((dx, dx), (dy, dy)))
    along_y = torch.stack([p.cross.xy @ way for p, way in zip(parts, dy, strict=True)])
    along_x = torch.stack([way @ p.cross.xy for p, way in zip(parts, dx, strict=True)])
    return Cross(
        xy,
        (x_yy - m * dx - 2 * along_y + 2 * yt * dx + ky * tx - n * ky * dx).sum(0),
        (xx_y - k * dy - 2 * along_x + 2 * xt * dy + kx * ty - n * kx * dy).sum(0),
        (xx_yy - 2 * _dot(xx_y, dy) - 2 * _dot(x_yy, dx) + 4 * _dot(dx, along_y)
         + (ky * k - 2 * ky * xt + kx * m - 2 * kx * yt + n * kx * ky)[:, 0]).sum())
