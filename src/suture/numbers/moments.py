"""Second moments of a pair of matrices, and the accumulator for one matrix.

Linear CKA, every CCA, Procrustes, regression and direct matching are functions of these sums. So one pass
over the data (`suture.numbers.pair_moments`) serves them all, and memory does not grow with the examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from suture._base import check_finite, exact_products, expect


def to_double(value: Tensor) -> Tensor:
    """Convert to float64, on the CPU where the device has no float64 (mps)."""
    return value.cpu().double() if value.device.type == "mps" else value.double()


class _Mergeable(Protocol):
    def merge(self, other: Self, /) -> Self: ...


M = TypeVar("M", bound=_Mergeable)


def merge_all(blocks: Iterable[M]) -> M:
    """Merge at least one block, from left to right."""
    return reduce(lambda a, b: a.merge(b), blocks)


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
        d, n, t, g = shift - self.shift, self.n, self.total, self.gram
        dd, dt, k = d @ d, d @ t, torch.trace(self.gram)
        gd = g @ d
        return Side(
            n, shift, t - n * d,
            g - torch.outer(t, d) - torch.outer(d, t) + n * torch.outer(d, d),
            self.cubic - k * d - 2 * gd + 2 * dt * d + dd * t - n * dd * d,
            self.quartic + 4 * d @ gd + n * dd**2 - 4 * d @ self.cubic + 2 * dd * k - 4 * dd * dt,
        )

    def add(self, other: Side) -> Side:
        """Return the sums over the rows of both."""
        o = other.shift_to(self.shift)
        return Side(self.n + o.n, self.shift, self.total + o.total, self.gram + o.gram, self.cubic + o.cubic,
                    self.quartic + o.quartic)

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
        n, dx, dy = x.n, shift_x - x.shift, shift_y - y.shift
        k, m, kx, ky = torch.trace(x.gram), torch.trace(y.gram), dx @ dx, dy @ dy
        xt, yt, xy = dx @ x.total, dy @ y.total, self.xy
        return Cross(
            xy - torch.outer(x.total, dy) - torch.outer(dx, y.total) + n * torch.outer(dx, dy),
            self.x_yy - m * dx - 2 * xy @ dy + 2 * yt * dx + ky * x.total - n * ky * dx,
            self.xx_y - k * dy - 2 * xy.T @ dx + 2 * xt * dy + kx * y.total - n * kx * dy,
            self.xx_yy - 2 * self.xx_y @ dy + ky * k - 2 * self.x_yy @ dx + 4 * dx @ xy @ dy
            - 2 * ky * xt + kx * m - 2 * kx * yt + n * kx * ky,
        )

    def add(self, other: Cross) -> Cross:
        """Add the sums of two parts; both must be about the same shifts."""
        return Cross(self.xy + other.xy, self.x_yy + other.x_yy, self.xx_y + other.xx_y,
                     self.xx_yy + other.xx_yy)


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
        x, y = to_double(x), to_double(y)
        shifts = x.mean(0), y.mean(0)
        x, y = x - shifts[0], y - shifts[1]
        kx, ky = x.square().sum(1), y.square().sum(1)
        first, second = (Side(len(m), shift, m.sum(0), m.T @ m, m.T @ k, k @ k)
                         for m, k, shift in zip((x, y), (kx, ky), shifts, strict=True))
        return cls(first, second, Cross(x.T @ y, x.T @ ky, y.T @ kx, kx @ ky)).centre()

    def centre(self) -> Moments:
        """Return the same moments about the means."""
        mx, my = self.x.mean, self.y.mean
        return replace(self, x=self.x.shift_to(mx), y=self.y.shift_to(my),
                       cross=self.cross.shift_to(self.x, self.y, mx, my))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the rows of both."""
        cross = self.cross.add(other.cross.shift_to(other.x, other.y, self.x.shift, self.y.shift))
        precision = min(self.precision, other.precision, key=lambda d: torch.finfo(d).bits)
        return Moments(self.x.add(other.x), self.y.add(other.y), cross, precision).centre()

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


def compute_shift(rows: Tensor, mask: Tensor | None, precision: torch.dtype) -> Tensor:
    """Compute the mean (F,) of rows (..., F), rounded to `precision`, in float64.

    `mask` (...) is False at padding tokens. The mean of padding alone is 0.
    """
    mean = (rows.mean(tuple(range(rows.ndim - 1))) if mask is None
            else rows[mask].sum(0) / max(1, int(mask.sum())))
    return to_double(mean.to(precision))


class ShiftedSums:
    """Sums of rows, by class, about the mean of the first batch, accumulated batch by batch.

    Subtracting the mean of the first batch keeps the digits of data with a large mean. Products are computed
    in `precision` on the device of the rows and added up in float64 on the CPU, where all sums and the shift
    are kept. Batches make no difference beyond rounding.

    Args:
        width: number of columns F. Default: that of the first batch.
        precision: dtype of the products.
        pairs: sum the products of all pairs of columns. False: their squares alone.

    Attributes:
        counts: (K,) number of rows of each class, in order of appearance.
        totals: (K, F) sum of the rows of each class, about `shift`.
        gram: (F, F) sum of x x' over all rows, about `shift`; (F,) sum of squares without `pairs`.
        shift: (F,).
    """

    def __init__(self, width: int = 0, precision: torch.dtype = torch.float32, *, pairs: bool = True) -> None:
        self.precision, self._pairs = precision, pairs
        self._numbers: dict[int, int] = {}
        self._allocate(width)

    def _allocate(self, width: int) -> None:
        self.counts = torch.zeros(0, dtype=torch.float64)
        self.totals = torch.zeros(0, width, dtype=torch.float64)
        self.gram = torch.zeros((width, width) if self._pairs else width, dtype=torch.float64)
        self.shift = torch.zeros(width, dtype=torch.float64)

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the sums, of one class before there are any."""
        return 8 * max(1, len(self.counts)) * (1 + len(self.shift)) + self.gram.nbytes

    @torch.no_grad()
    @exact_products()
    def update(self, rows: Tensor, classes: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Add a batch of rows (N, F), or (N, P, F) with P rows for each of N examples.

        `classes` (N,) are any integers; None means one class. `mask` (N, P) is False at padding tokens.
        """
        if not len(rows) or (mask is not None and not bool(mask.any())):
            return
        if not self.n:
            self._allocate(rows.shape[-1])
            self.shift = compute_shift(rows, mask, self.precision).cpu()
        rows = rows[:, None] if rows.ndim == 2 else rows
        centred = rows.to(self.precision) - self.shift.to(rows.device, self.precision)
        if mask is not None:
            centred = centred.masked_fill(~mask[..., None], 0)
        flat = centred.flatten(0, 1)
        products = flat.T @ flat if self._pairs else flat.square().sum(0)
        self.gram = self.gram + to_double(products).cpu()
        each = torch.full((len(rows),), rows.shape[1]) if mask is None else mask.sum(1).cpu()
        totals = to_double(centred.sum(1)).cpu()
        if classes is None:
            self._add_classes([0], each.double().sum()[None], totals.sum(0, keepdim=True))
        else:
            self._add_classes(classes.tolist(), each.double(), totals)

    def _add_classes(self, classes: list[int], counts: Tensor, totals: Tensor) -> None:
        index = torch.tensor([self._numbers.setdefault(c, len(self._numbers)) for c in classes])
        more = len(self._numbers) - len(self.counts)
        self.counts = torch.cat([self.counts, counts.new_zeros(more)]).index_add(0, index, counts)
        self.totals = torch.cat([self.totals, totals.new_zeros(more, totals.shape[1])]).index_add(
            0, index, totals)

    def get_side(self) -> Side:
        """Return the sums of all rows about their mean; third and fourth order are nan."""
        nan = torch.tensor(torch.nan, dtype=torch.float64)
        side = Side(self.n, self.shift, self.totals.sum(0), self.gram, nan.expand(len(self.shift)), nan)
        return side.shift_to(side.mean)

    def compute_within(self) -> tuple[Tensor, Tensor]:
        """Return the means (K, F) of the classes, and the covariance about them as `compute_overall`."""
        return self._describe(self.totals, self.counts[:, None])

    def compute_overall(self) -> tuple[Tensor, Tensor]:
        """Return the mean (1, F) of all rows, and their covariance (F, F), or variances (F,) (divisor n)."""
        return self._describe(self.totals.sum(0, keepdim=True), self.counts.sum().view(1, 1))

    def _describe(self, totals: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        means = totals / counts
        explained = totals.T @ means if self._pairs else (totals * means).sum(0)
        return means + self.shift, (self.gram - explained) / self.n
