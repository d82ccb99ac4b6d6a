"""Kernels for CKA of flattened representations: Gram matrices of examples, accumulated batch by batch.

A flattened map has C*H*W features per example. That is too many for second moments, which are features by
features. Gram matrices are examples by examples. They are computed for each minibatch (Nguyen, Raghu and
Kornblith 2021), and once for the first examples together.

A Gram matrix does not depend on the order of the features. The centred one does not depend on a point that is
subtracted from every example. So the mean of the examples at hand is subtracted before the products, and a
large mean costs no digits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suture._base import SutureError
from suture.indices.gram_matrices import (
    LEAST_EXAMPLES,
    Gram,
    HsicTable,
    Kernels,
    compute_tables,
    count_working_bytes,
    split_columns,
)
from suture.numbers import NonFiniteError


class _SiteExamples:
    """Examples of one site as rows of features: those `waiting` for their minibatch, and those `kept`."""

    def __init__(self, x: Tensor, keep: int, batch: int, precision: torch.dtype) -> None:
        self.shape = x.shape[1:]
        # Features keep their order in memory, because reordering channels-last maps costs more than a copy.
        strides = x.stride()
        self._order = (0, *sorted(range(1, x.ndim), key=lambda d: (-strides[d], d)))
        width = self.shape.numel()
        self.waiting = torch.empty(batch, width, dtype=precision, device=x.device)
        self.kept = torch.empty(keep, width, dtype=precision, device=x.device)
        self.first = self.flatten(x[:1]).to(precision, copy=True)
        self.varies, self.kept_varies = False, False

    @property
    def nbytes(self) -> int:
        return self.waiting.nbytes + self.kept.nbytes + self.first.nbytes

    def flatten(self, x: Tensor) -> Tensor:
        """Flatten (N, ...) to (N, features)."""
        return x.permute(self._order).reshape(len(x), self.shape.numel())

    def unflatten(self, rows: Tensor) -> Tensor:
        """Undo `flatten`."""
        inner = rows.view(len(rows), *(self.shape[d - 1] for d in self._order[1:]))
        return inner.permute([self._order.index(d) for d in range(len(self._order))])

    def notice_variation(self, rows: Tensor, kept: int) -> None:
        """Record if examples differ from the first by more than rounding.

        The first `kept` of `rows` are kept examples; their variation is recorded separately too.
        """
        if not self.kept_varies and kept:
            self.kept_varies = self._has_other(rows[:kept])
        self.varies = self.varies or self.kept_varies or self._has_other(rows)

    def _has_other(self, rows: Tensor) -> bool:
        far = rows.new_zeros(len(rows), dtype=self.first.dtype)
        for part, first in zip(split_columns(rows), split_columns(self.first), strict=True):
            far += (part.to(first.dtype) - first).square().sum(1)
        eps = torch.finfo(self.first.dtype).eps
        return bool(far.max() > (4 * eps) ** 2 * self.first.square().sum())


class FlatKernels:
    """Kernels for CKA of flattened representations, for every cell, accumulated batch by batch.

    The numbers depend on the order of the examples, but not on how they are split into batches.

    Args:
        sources, targets: number of sites of each side.
        same: the two lists hold the same tensors (self-stitching): they are held once.
        keep: number of first examples with full Gram matrices; 0 for none. Default 1,000, as in the paper of
            Balogh and Jelasity (2025).
        batch: examples in a minibatch, at least 4. Minibatch CKA depends on it; default 256.
        precision: dtype of the features and of their products; sums are in float64. Default float32.

    Memory (`nbytes_planned`): features of `keep` + `batch` + 1 examples of every site. The kept ones are
    freed when there are enough of them. After that only numbers per cell stay.

    Raises:
        SutureError: arguments out of range.
    """

    def __init__(self, sources: int, targets: int, *, same: bool = False, keep: int = 1000, batch: int = 256,
                 precision: torch.dtype = torch.float32) -> None:
        if same and sources != targets:
            raise SutureError(f"expected the same sites on both sides, got {sources} and {targets}; "
                              "write same=False")
        if batch < LEAST_EXAMPLES:
            raise SutureError(f"expected minibatches of at least {LEAST_EXAMPLES} examples, got {batch}; "
                              "write batch=256")
        if keep < 0:
            raise SutureError(f"expected a number of examples to keep, got {keep}; write keep=0 for none")
        self.sources, self.targets, self.keep, self.batch = sources, targets, keep, batch
        self.precision, self._same = precision, same
        self._sites: list[_SiteExamples] = []
        self._sums = HsicTable.from_value(sources, targets)
        self._waiting = 0
        self._closed: tuple[HsicTable, int, int] | None = None
        self._of_kept: tuple[HsicTable, HsicTable] | None = None
        self.examples = 0
        """Number of examples seen."""
        self.kept = 0
        """Number of them that are kept."""
        self.minibatches = 0
        """Number of full minibatches."""

    @property
    def nbytes(self) -> int:
        """Bytes that are held now."""
        return sum(site.nbytes for site in self._sites)

    def nbytes_planned(self, feature_counts: Sequence[int]) -> int:
        """Return the largest number of bytes that will be used.

        Args:
            feature_counts: features of an example at each site, C*H*W for a map: of the sources, then of the
                targets; of the sources alone with ``same=True``.
        """
        size, rows = self.precision.itemsize, max(self.keep, self.batch)
        held = size * (self.keep + self.batch + 1) * sum(feature_counts)
        grams = 8 * len(feature_counts) * rows**2
        return held + grams + count_working_bytes(rows, max(feature_counts), self.precision)

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> None:
        """Add one batch: for each site a tensor (N, ...) of any dtype, of the same N examples on both sides.

        With ``same=True``, `ys` is not read.

        Raises:
            NonFiniteError: NaN or inf in one of them; everything is then as it was before the call.
            SutureError: another number of sites, of examples or of features than before.
        """
        tensors = self._check_tensors(xs, ys)
        if not len(tensors[0]):
            return
        if not self._sites:
            self._sites = [_SiteExamples(x, self.keep, self.batch, self.precision) for x in tensors]
        rows = [site.flatten(x) for site, x in zip(self._sites, tensors, strict=True)]
        keeps = min(self.keep - self.kept, len(rows[0]))
        for site, x in zip(self._sites, rows, strict=True):
            site.notice_variation(x, keeps)
            site.kept[self.kept:self.kept + keeps].copy_(x[:keeps])
        self._count_kept(keeps)
        self._fill_minibatches(rows)
        self.examples += len(rows[0])

    def _check_tensors(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[Tensor]:
        """Check the tensors of one batch and return those of all held sites."""
        if len(xs) != self.sources or (not self._same and len(ys) != self.targets):
            raise SutureError(f"expected {self.sources} sources and {self.targets} targets, got {len(xs)} "
                              f"and {len(ys)}; pass one tensor for each site")
        tensors = [*xs] if self._same else [*xs, *ys]
        if len({len(x) for x in tensors}) > 1:
            raise SutureError("expected the same examples at every site, got "
                              f"{sorted({len(x) for x in tensors})} of them; run both networks on one batch")
        for site, x in zip(self._sites, tensors, strict=bool(self._sites)):
            if x.shape[1:] != site.shape:
                raise SutureError(f"expected examples of shape {tuple(site.shape)} as before, got "
                                  f"{tuple(x.shape[1:])}; pad or crop to one size, or compare "
                                  "without flattening")
        sums = torch.stack([x.sum(dtype=self.precision).cpu() for x in tensors])
        for k in (~torch.isfinite(sums)).nonzero().flatten().tolist():
            # Check the elements too, because a sum may overflow where no element does.
            if not torch.isfinite(tensors[k].to(self.precision)).all():
                raise (NonFiniteError("source", k) if k < self.sources
                       else NonFiniteError("target", k - self.sources))
        return tensors

    def _count_kept(self, more: int) -> None:
        """Count more kept examples; once there are enough, free their features."""
        if not more:
            return
        self.kept += more
        self._of_kept = None
        if self.kept == self.keep:
            self._of_kept = self._compute_kept_tables()
            for site in self._sites:
                site.kept = site.kept[:0].clone()

    def _fill_minibatches(self, rows: Sequence[Tensor]) -> None:
        """Put examples into minibatches and add the sums of each full one."""
        self._closed = None
        for start in self._find_starts(len(rows[0])):
            place = slice(self._waiting, min(self.batch, self._waiting + len(rows[0]) - start))
            for site, x in zip(self._sites, rows, strict=True):
                site.waiting[place].copy_(x[start:start + place.stop - place.start])
            self._waiting = place.stop % self.batch
            if not self._waiting:
                self._sums += self._compute_tables([site.waiting for site in self._sites])[1]
                self.minibatches += 1

    def _find_starts(self, n: int) -> list[int]:
        """Find the places in the next `n` examples where a piece for a minibatch begins."""
        return [0, *range(self.batch - self._waiting, n, self.batch)] if n else []

    def _compute_tables(self, rows: Sequence[Tensor]) -> tuple[HsicTable, HsicTable]:
        grams = [Gram.of(x) for x in rows]
        return compute_tables(grams[:self.sources], grams if self._same else grams[self.sources:])

    def _compute_kept_tables(self) -> tuple[HsicTable, HsicTable]:
        if not self.kept:
            nothing = HsicTable.from_value(self.sources, self.targets, math.nan)
            return nothing, nothing
        return self._compute_tables([site.kept[:self.kept] for site in self._sites])

    def _sum_with_last(self) -> tuple[HsicTable, int, int]:
        """Return the sums with the last minibatch, the number of minibatches, and the examples left out.

        The last minibatch is added where it is large enough for the unbiased estimator.
        """
        if self._waiting < LEAST_EXAMPLES:
            return self._sums, self.minibatches, self._waiting
        last = self._compute_tables([site.waiting[:self._waiting] for site in self._sites])[1]
        return self._sums + last, self.minibatches + 1, 0

    @torch.no_grad()
    def merge(self, other: FlatKernels) -> None:
        """Add the minibatches of another accumulator (a shard), which stays as it is.

        Its examples that do not fill a minibatch are put into the minibatches of this one. Kept examples stay
        those of this one.

        Raises:
            SutureError: not an accumulator of the same sites with the same minibatches.
        """
        if self._like != other._like or (self.examples and other.examples and self._shapes != other._shapes):
            raise SutureError("expected an accumulator of the same sites, with the same batch and precision; "
                              "make both with the same arguments")
        if not other.examples:
            return
        if not self.examples:
            vars(self).update(copy.deepcopy(vars(other)))
            return
        self._sums += other._sums
        self.minibatches += other.minibatches
        for mine, theirs in zip(self._sites, other._sites, strict=True):
            mine.varies = mine.varies or theirs.varies
            mine.notice_variation(mine.flatten(theirs.unflatten(theirs.first)).to(mine.first.device), 0)
        self._fill_minibatches([mine.flatten(theirs.unflatten(theirs.waiting[:other._waiting]))
                    for mine, theirs in zip(self._sites, other._sites, strict=True)])
        self.examples += other.examples

    @property
    def _like(self) -> tuple[object, ...]:
        return self.sources, self.targets, self._same, self.batch, self.precision

    @property
    def _shapes(self) -> list[torch.Size]:
        return [site.shape for site in self._sites]

    def get_kernels(self, i: int, j: int) -> Kernels:
        """Return the kernels of one cell, of the examples so far.

        Raises:
            SutureError: nothing was added yet.
        """
        if not self.examples:
            raise SutureError("expected at least one batch, got none; call update first")
        self._closed = self._closed or self._sum_with_last()
        self._of_kept = self._of_kept or self._compute_kept_tables()
        sums, minibatches, left_out = self._closed
        sides = {"source": self._sites[i], "target": self._sites[j if self._same else self.sources + j]}
        first, second = (table.get_hsic(i, j) for table in self._of_kept)
        return Kernels(self.examples, tuple(s for s, site in sides.items() if not site.varies), self.batch,
                       minibatches, left_out, sums.get_hsic(i, j), self.kept,
                       tuple(s for s, site in sides.items() if not site.kept_varies), first, second)
