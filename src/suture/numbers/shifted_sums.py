"""The accumulator of the moments of one matrix, by class."""

from __future__ import annotations

import torch
from torch import Tensor

from suture._base import exact_products
from suture.numbers.moments import Side, to_double
from suture.numbers.pair_moments.shared_work import SharedWork


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
        self._primed = False
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
    def update(self, rows: Tensor, classes: Tensor | None = None, mask: Tensor | None = None,
               shared: SharedWork | None = None) -> None:
        """Add a batch of rows (N, F), or (N, P, F) with P rows for each of N examples.

        `classes` (N,) are any integers; None means one class. `mask` (N, P) is False at padding tokens. Work
        on the same tensors for other sums is `shared`.
        """
        if not len(rows) or (mask is not None and not bool(mask.any())):
            return
        if not self.n and not self._primed:
            self._allocate(rows.shape[-1])
            self.shift = compute_shift(rows, mask, self.precision).cpu()
        rows = rows[:, None] if rows.ndim == 2 else rows
        work = shared or SharedWork()
        products, totals = work.find(lambda: self._multiply(rows, mask), "sums", rows, mask, self.precision,
                                     self._pairs, self.shift.numpy().tobytes())
        self.gram = self.gram + products
        each = torch.full((len(rows),), rows.shape[1]) if mask is None else mask.sum(1).cpu()
        if classes is None:
            self._add_classes([0], each.double().sum()[None], totals.sum(0, keepdim=True))
        else:
            self._add_classes(classes.tolist(), each.double(), totals)

    def _multiply(self, rows: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the products of a batch, and the sums of its examples, in float64."""
        centred = rows.to(self.precision) - self.shift.to(rows.device, self.precision)
        if mask is not None:
            centred = centred.masked_fill(~mask[..., None], 0)
        flat = centred.flatten(0, 1)
        products = flat.T @ flat if self._pairs else flat.square().sum(0)
        return to_double(products).cpu(), to_double(centred.sum(1)).cpu()

    def take_shift(self, other: ShiftedSums) -> None:
        """Take the sums about the same point as others, before the first batch."""
        self._allocate(len(other.shift))
        self.shift, self._primed = other.shift, other.n > 0

    def absorb(self, other: ShiftedSums) -> None:
        """Add the sums of other rows, all of one class."""
        if not other.n:
            return
        way = other.shift - self.shift if self.n else torch.zeros_like(other.shift)
        if not self.n:
            self._allocate(len(other.shift))
            self.shift = other.shift
        total, n = other.totals.sum(0), other.n
        edge = torch.outer(way, total)
        self.gram = self.gram + other.gram + edge + edge.T + n * torch.outer(way, way)
        self._add_classes([0], other.counts.sum()[None], (total + n * way)[None])

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
