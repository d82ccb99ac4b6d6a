"""Gram matrices of flattened representations for CKA, accumulated batch by batch.

A flattened map has C*H*W features per example, too many for second moments, which are features by features.
Gram matrices are examples by examples. They are computed for each minibatch (Nguyen, Raghu and Kornblith
2021), and once for the first examples together. The mean of the examples at hand is subtracted first: this
does not change a centred Gram matrix, and a large mean then costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suture._base import SutureError, expect
from suture.indices.definition import LEAST_EXAMPLES, Needs
from suture.indices.gram_matrices import (
    Hsic,
    Kernels,
    compute_gram,
    compute_hsic,
    count_working_bytes,
    split_columns,
)
from suture.numbers import NonFiniteError


class _SiteExamples:
    """Examples of one site as rows of features: `waiting` for their minibatch, or `kept`."""

    def __init__(self, x: Tensor, keep: int, batch: int, precision: torch.dtype) -> None:
        self.shape = x.shape[1:]
        # Any order of features gives the same Gram matrix. Reordering channels-last maps costs more than
        # a copy.
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

    def notice_variation(self, rows: Tensor, kept: int) -> None:
        """Record if rows differ from the first example by more than rounding.

        The first `kept` of the rows are kept examples, for which it is recorded separately too.
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
    """Gram matrices for CKA of flattened representations of every cell, accumulated batch by batch.

    Results depend on the order of the examples, but not on the batches. Memory (`nbytes_planned`) holds the
    features of `keep` + `batch` + 1 examples of every site; the kept ones are freed once they are complete.
    Arguments out of range raise `SutureError`.

    Args:
        sources, targets: number of sites of each side.
        same: both lists hold the same tensors (self-stitching), which are stored once.
        keep: number of first examples with one full Gram matrix; 0 for none. Default 1,000 (Balogh and
            Jelasity 2025).
        batch: examples in a minibatch, at least 4. Minibatch CKA depends on it. Default 256.
        precision: dtype of the features and their products; sums are in float64. Default float32.

    Attributes:
        examples: number of examples seen.
        kept: number of examples kept.
    """

    def __init__(self, sources: int, targets: int, *, same: bool = False, keep: int = 1000, batch: int = 256,
                 precision: torch.dtype = torch.float32) -> None:
        expect(not same or sources == targets, "the same sites on both sides", f"{sources} and {targets}",
               "write same=False")
        expect(batch >= LEAST_EXAMPLES, f"minibatches of at least {LEAST_EXAMPLES} examples", batch,
               "write batch=256")
        expect(keep >= 0, "a number of examples to keep", keep, "write keep=0 for none")
        self.sources, self.targets, self.keep, self.batch = sources, targets, keep, batch
        self.precision, self._same = precision, same
        self._sites: list[_SiteExamples] = []
        self._sums = torch.zeros(2, 5, sources, targets, dtype=torch.float64)
        self._of_kept = torch.full_like(self._sums, math.nan)
        self._tables: tuple[Tensor, Tensor] | None = None
        self._waiting = 0
        self.examples = 0
        self.kept = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are used now."""
        return sum(site.nbytes for site in self._sites)

    def nbytes_planned(self, feature_counts: Sequence[int]) -> int:
        """Return the largest number of bytes that will be used.

        `feature_counts` holds the features of an example (C*H*W for a map) at each source, then at each
        target; with ``same=True``, at each source only.
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
            NonFiniteError: NaN or inf in a tensor. Nothing is added then.
            SutureError: another number of sites, of examples or of features than before.
        """
        tensors = self._check_tensors(xs, ys)
        if not len(tensors[0]):
            return
        if not self._sites:
            self._sites = [_SiteExamples(x, self.keep, self.batch, self.precision) for x in tensors]
        rows = [site.flatten(x) for site, x in zip(self._sites, tensors, strict=True)]
        self._keep_first(rows, min(self.keep - self.kept, len(rows[0])))
        self._fill_minibatches(rows)
        self.examples += len(rows[0])
        self._tables = None

    def _check_tensors(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[Tensor]:
        """Check the tensors of one batch and return those of all stored sites."""
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

    def _keep_first(self, rows: Sequence[Tensor], count: int) -> None:
        """Keep features of the first examples; once there are enough, compute their HSIC and free them."""
        for site, x in zip(self._sites, rows, strict=True):
            site.notice_variation(x, count)
            site.kept[self.kept:self.kept + count].copy_(x[:count])
        self.kept += count
        if count and self.kept == self.keep:
            self._of_kept = self._compute_hsic([site.kept for site in self._sites])
            for site in self._sites:
                site.kept = site.kept[:0].clone()

    def _fill_minibatches(self, rows: Sequence[Tensor]) -> None:
        """Fill minibatches with examples, and add the HSIC estimates of each full minibatch to the totals."""
        n = len(rows[0])
        for start in (0, *range(self.batch - self._waiting, n, self.batch)):
            place = slice(self._waiting, min(self.batch, self._waiting + n - start))
            for site, x in zip(self._sites, rows, strict=True):
                site.waiting[place].copy_(x[start:start + place.stop - place.start])
            self._waiting = place.stop % self.batch
            if not self._waiting:
                self._sums += self._compute_hsic([site.waiting for site in self._sites])

    def _compute_hsic(self, rows: Sequence[Tensor]) -> Tensor:
        grams = [compute_gram(x) for x in rows]
        return compute_hsic(grams[:self.sources], grams if self._same else grams[self.sources:],
                            self.precision)

    def _compute_tables(self) -> tuple[Tensor, Tensor]:
        """Compute HSIC of all minibatches, the last if it is large enough, and of the kept examples."""
        last, kept = self._sums, self._of_kept
        if self._waiting >= LEAST_EXAMPLES:
            last = last + self._compute_hsic([site.waiting[:self._waiting] for site in self._sites])
        if 0 < self.kept < self.keep:
            kept = self._compute_hsic([site.kept[:self.kept] for site in self._sites])
        return last, kept

    @torch.no_grad()
    def get_kernels(self, i: int, j: int) -> dict[Needs, Kernels]:
        """Return the kernels of cell (i, j), by kind of data; before the first batch, raise `SutureError`."""
        expect(self.examples > 0, "at least one batch", "none", "call update first")
        self._tables = self._tables or self._compute_tables()
        sites = (("source", self._sites[i]), ("target", self._sites[j if self._same else self.sources + j]))
        constant = tuple(name for name, site in sites if not site.varies)
        kept_constant = tuple(name for name, site in sites if not site.kept_varies)
        hsic = [[Hsic(*part[:, i, j].tolist()) for part in table] for table in self._tables]
        return {Needs.KERNELS: Kernels(self.examples, constant, *hsic[0]),
                Needs.KEPT_KERNELS: Kernels(self.kept, kept_constant, *hsic[1])}
