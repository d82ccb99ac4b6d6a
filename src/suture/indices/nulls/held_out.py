"""Held-out errors of affine maps between rows of two sides, for any order of the target's rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from suture.indices.definition import require
from suture.numbers import Side, Spectrum

FOLDS = 5
"""Number of folds for cross-validation; more blocks than this are merged into as many folds."""


@dataclass(frozen=True, eq=False)
class FoldedRows:
    """Rows of both sides about the means of their classes, sorted by fold, and the maps' part of the source.

    Sums of the source are computed once. An order of the target's rows changes the cross sums of F folds and
    the totals of K classes in them. Made by `of`.

    Attributes:
        x, y: rows about class means, (n, p) and (n, q); x is sorted by fold.
        places: number (n,) in y of each row of x.
        sizes: number of rows of each fold.
        cells: fold and class (n,) of each row of x, as one number.
        totals, beside: (F, K, p) sums of x by fold and class; (F, K, 1) factors of the products of totals
            that bring sums of held-out rows to the class means of the other folds.
        outside: (F, K, 1) numbers of rows outside of each fold.
        basis, held: (F, p, p) inverse roots of the scatters outside, and the held-out scatters in this basis.
        left: rows outside of each fold without one for each class, and the rank of the source there.
        order: the target's row (n,) in the place of each, of the same class; None for their own.
    """

    x: Tensor
    y: Tensor
    places: Tensor
    sizes: list[int]
    cells: Tensor
    totals: Tensor
    beside: Tensor
    outside: Tensor
    basis: Tensor
    held: Tensor
    left: list[tuple[int, int]]
    order: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, y: Tensor, classes: Tensor, folds: Tensor, precision: torch.dtype) -> FoldedRows:
        """Take rows (n, p) and (n, q) with their classes and folds (n,), which are numbered from 0."""
        count = int(classes.max()) + 1
        shape = int(folds.max()) + 1, count
        mean, places = x.mean(0), torch.argsort(folds, stable=True)
        x, y = (_subtract_means(side, classes, count) for side in (x, y))
        x, cells = x[places], (folds * count + classes)[places]
        rows = torch.bincount(cells, minlength=shape[0] * count).view(*shape, 1).to(x)
        outside = rows.sum(0) - rows
        totals = _sum_cells(x, cells, shape)
        beside = (2 / outside + rows / outside**2).nan_to_num(0.0, 0.0, 0.0)
        sizes = rows.sum((1, 2)).int().tolist()
        grams = torch.stack([part.T @ part for part in torch.split(x, sizes)])
        around = _sum_others(grams) - (totals / outside.clamp(min=1)).mT @ totals
        found = [Spectrum.of(Side(int(n), mean, torch.zeros_like(mean), gram, mean, mean[0]), precision)
                 for n, gram in zip(outside.sum((1, 2)), around, strict=True)]
        left = [(n - count, spectrum.rank) for n, spectrum
                in zip(outside.sum((1, 2)).int().tolist(), found, strict=True)]
        basis = torch.zeros_like(grams)
        for k, spectrum in enumerate(found):
            basis[k, :, :spectrum.rank] = spectrum.vectors / spectrum.values.sqrt()
        held = basis.mT @ (grams + totals.mT @ (beside * totals)) @ basis
        return cls(x, y, places, sizes, cells, totals, beside, outside.clamp(min=1), basis, held, left)

    def reorder(self, order: Tensor) -> FoldedRows:
        """Return the rows with those of the target in another order."""
        return replace(self, order=order if self.order is None else self.order[order])

    def compute_errors(self) -> tuple[float, float, float]:
        """Compute squared errors of held-out rows of the target: by the map, by class means of the other
        folds, and by class means of all rows.

        Raises:
            UndefinedError: there are so few rows outside of a fold that the regression fits anything.
        """
        for n, rank in self.left:
            require(rank < n, f"{n} rows outside of a fold, class means taken out, for rank {rank}: the "
                              "regression fits anything")
        y = self.y[self.places if self.order is None else self.order[self.places]]
        totals = _sum_cells(y, self.cells, self.totals.shape[:2])
        cross = torch.stack([a.T @ b for a, b in zip(torch.split(self.x, self.sizes),
                                                     torch.split(y, self.sizes), strict=True)])
        fitted = self.basis.mT @ (_sum_others(cross) - (self.totals / self.outside).mT @ totals)
        tested = self.basis.mT @ (cross + self.totals.mT @ (self.beside * totals))
        spread = float(y.square().sum())
        total = spread + float((self.beside * totals.square()).sum())
        return total + float((fitted * (self.held @ fitted - 2 * tested)).sum()), total, spread


def _subtract_means(rows: Tensor, classes: Tensor, count: int) -> Tensor:
    totals = rows.new_zeros(count, rows.shape[1]).index_add(0, classes, rows)
    return rows - (totals / torch.bincount(classes, minlength=count)[:, None])[classes]


def _sum_cells(rows: Tensor, cells: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum rows by fold and class, (F, K, columns)."""
    found = rows.new_zeros(shape[0] * shape[1], rows.shape[1]).index_add(0, cells, rows)
    return found.view(*shape, -1)


def _sum_others(parts: Tensor) -> Tensor:
    """Sum for each of F matrices the other ones; nothing cancels as it would in a difference."""
    others = 1 - torch.eye(len(parts), dtype=parts.dtype)
    return torch.einsum("fg,gpq->fpq", others, parts)
