"""The accumulator of second moments: sums of rows about a shift, the mean of the first batch."""

from __future__ import annotations

import torch
from torch import Tensor

from suture.numbers.moments import Side, to_double


def compute_shift(rows: Tensor, mask: Tensor | None, precision: torch.dtype) -> Tensor:
    """Compute the mean (F,) of rows (..., F), rounded to `precision`, in float64.

    `mask` (...) is False at padding. The shift is 0 where all rows are padding.
    """
    mean = (rows.mean(tuple(range(rows.ndim - 1))) if mask is None
            else rows[mask].sum(0) / max(1, int(mask.sum())))
    return to_double(mean.to(precision))


class ShiftedSums:
    """Sums of rows, by class, added up batch by batch.

    Subtracting the mean of the first batch keeps the digits of data with a large mean. Products are computed
    in `precision` and added up in float64. Batches make no difference beyond rounding.

    Args:
        width: number of columns F.
        precision: dtype of the products.

    Attributes:
        counts: (K,) number of rows of each class.
        totals: (K, F) sum of the rows of each class, about `shift`.
        gram: (F, F) sum of x x' over all rows, about `shift`.
        shift: (F,).
    """

    def __init__(self, width: int, precision: torch.dtype = torch.float32) -> None:
        self.precision = precision
        self.counts = torch.zeros(1, dtype=torch.float64)
        self.totals = torch.zeros(1, width, dtype=torch.float64)
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.shift = torch.zeros(width, dtype=torch.float64)

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        return self.counts.nbytes + self.totals.nbytes + self.gram.nbytes

    @torch.no_grad()
    def update(self, rows: Tensor, mask: Tensor | None = None, classes: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            rows: (N, P, F), P rows for each of N examples.
            mask: (N, P), False at padding; None: all rows.
            classes: (N,) class numbers from 0; None: one class for all.
        """
        if not len(rows) or (mask is not None and not bool(mask.any())):
            return
        if not self.n:
            self.shift = compute_shift(rows, mask, self.precision)
        centred = rows.to(self.precision) - self.shift.to(rows.device, self.precision)
        if mask is not None:
            centred = centred.masked_fill(~mask[..., None], 0)
        flat = centred.flatten(0, 1)
        classes = torch.zeros(len(rows), dtype=torch.int64) if classes is None else classes.cpu()
        each = torch.full((len(rows),), rows.shape[1]) if mask is None else mask.sum(1).cpu()
        self.gram = self.gram + to_double(flat.T @ flat).cpu()
        self._add_classes(classes, each.double(), to_double(centred.sum(1)).cpu())

    def _add_classes(self, classes: Tensor, counts: Tensor, totals: Tensor) -> None:
        more = max(0, int(classes.max()) + 1 - len(self.counts))
        self.counts = torch.cat([self.counts, counts.new_zeros(more)]).index_add(0, classes, counts)
        self.totals = torch.cat([self.totals, totals.new_zeros(more, totals.shape[1])]).index_add(
            0, classes, totals)

    def merge(self, other: ShiftedSums) -> None:
        """Add the rows of another accumulator, with the same classes."""
        if not other.n:
            return
        if not self.n:
            self.shift = other.shift
        moved = other._get_side().shift_to(self.shift)
        self.gram = self.gram + moved.gram
        self._add_classes(torch.arange(len(other.counts)), other.counts,
                          other.totals - other.counts[:, None] * (self.shift - other.shift).cpu())

    def _get_side(self) -> Side:
        nan = torch.tensor(torch.nan, dtype=torch.float64)
        return Side(self.n, self.shift.cpu(), self.totals.sum(0), self.gram, nan.expand(len(self.shift)), nan)

    def get_side(self) -> Side:
        """Return the sums of all rows about their mean; third and fourth order are nan."""
        side = self._get_side()
        return side.shift_to(side.mean)

    def compute_within(self) -> tuple[Tensor, Tensor]:
        """Return the means (k, F) of the classes with rows, and the scatter (F, F) about them."""
        present = self.counts > 0
        means = self.totals[present] / self.counts[present, None]
        return means + self.shift.cpu(), self.gram - self.totals[present].T @ means
