"""Gram matrices of flattened representations, and HSIC for CKA from them, accumulated batch by batch.

A flattened map has C*H*W features per example, too many for second moments, which are features by features.
Gram matrices are examples by examples. They are computed for each minibatch (Nguyen, Raghu and Kornblith
2021), and once for the first examples together. The mean of the examples at hand is subtracted first: this
does not change a centred Gram matrix, and a large mean then costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import Tensor

from suture._base import SutureError, exact_products, expect
from suture.indices.definition import LEAST_EXAMPLES, Index, Needs
from suture.indices.hsic import Hsic, Kernels, estimate_hsic
from suture.numbers import GramSums, NonFiniteError

PAPER_EXAMPLES = 1000
"""Number of test examples of the alignment ``paper`` (Balogh and Jelasity 2025)."""
# Features in one block: this keeps the centred copy small and the sums of float32 products short.
_COLUMNS_AT_ONCE = 8192


@exact_products()
def _compute_gram(rows: Tensor) -> Tensor:
    """Compute the centred Gram matrix (n, n) of rows (n, features), in float64; its rows sum to zero."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in torch.split(rows, _COLUMNS_AT_ONCE, 1):
        centred = part - part.mean(0)
        total += (centred @ centred.T).cpu().double()
    # Removes what the rounding of the mean left.
    total -= total.mean(0)
    return total - total.mean(1, keepdim=True)


def _compute_both(pairs: Iterable[tuple[Tensor, Tensor]], n: int) -> Tensor:
    """Compute tr(KHLH) and the unbiased HSIC of each of m pairs of Gram matrices, (2, m)."""
    sums = []
    for a, b in pairs:
        k, m = a.diagonal().clone(), b.diagonal().clone()
        sums.append((a.flatten() @ b.flatten(), k @ m, k.sum() * m.sum()))
    products, joint, traces = torch.tensor(sums, dtype=torch.float64).T
    unbiased = (torch.full_like(products, math.nan) if n < LEAST_EXAMPLES
                else estimate_hsic(n, products, joint, traces))
    return torch.stack([products, unbiased])


def _compute_hsic(xs: Sequence[Tensor], ys: Sequence[Tensor], precision: torch.dtype) -> Tensor:
    """Compute HSIC of S sources and T targets from the Gram matrices of the same examples, (2, 5, S, T).

    The first axis is biased (times (n - 1)²) and unbiased HSIC, the second the fields of `Hsic`. `precision`
    is the dtype of the products, which sets the size of rounding.
    """
    n = len(xs[0])
    cross = _compute_both(product(xs, ys), n).view(2, len(xs), len(ys))
    own_x, own_y = (_compute_both(zip(side, side, strict=True), n) for side in (xs, ys))
    scale, eps = n / (n - 3) if n >= LEAST_EXAMPLES else math.nan, torch.finfo(precision).eps
    floor_x, floor_y = (scale * (4 * eps * torch.stack([g.diagonal().clone().mean() for g in side])).square()
                        for side in (xs, ys))
    parts = cross, own_x[:, :, None], own_y[:, None], floor_x[:, None], floor_y
    return torch.stack([part.expand_as(cross) for part in parts], 1)


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
        return x.permute(self._order).reshape(len(x), self.shape.numel())

    def notice_variation(self, rows: Tensor, kept: int) -> None:
        """Record if rows, and if the first `kept` of them, differ from the first example beyond rounding."""
        if not self.kept_varies and kept:
            self.kept_varies = self._has_other(rows[:kept])
        self.varies = self.varies or self.kept_varies or self._has_other(rows)

    def _has_other(self, rows: Tensor) -> bool:
        far = rows.new_zeros(len(rows), dtype=self.first.dtype)
        split = (torch.split(m, _COLUMNS_AT_ONCE, 1) for m in (rows, self.first))
        for part, first in zip(*split, strict=True):
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
        keep: number of first examples with one full Gram matrix; 0 for none. Default `PAPER_EXAMPLES`.
        batch: examples in a minibatch, at least 4. Minibatch CKA depends on it. Default 256.
        precision: dtype of the features and their products; sums are in float64. Default float32.

    Attributes:
        examples: number of examples seen.
        kept: number of examples kept.
    """

    def __init__(self, sources: int, targets: int, *, same: bool = False, keep: int = PAPER_EXAMPLES,
                 batch: int = 256, precision: torch.dtype = torch.float32) -> None:
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
        self._grams: list[GramSums] = []
        self._waiting = self.examples = self.kept = 0

    @classmethod
    def for_indices(cls, indices: Iterable[Index], sources: int, targets: int, *, same: bool = False,
                    precision: torch.dtype = torch.float32) -> FlatKernels | None:
        """Make the accumulator that indices of flattened examples need; None without such indices.

        Examples are kept only for an index of their one Gram matrix.
        """
        needs = {i.needs for i in indices} & {Needs.KERNELS, Needs.KEPT_KERNELS}
        keep = PAPER_EXAMPLES if Needs.KEPT_KERNELS in needs else 0
        return cls(sources, targets, same=same, keep=keep, precision=precision) if needs else None

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
        # Besides the Gram matrices, a centred block of features and two copies of its product.
        grams = (8 * len(feature_counts) + size + 8) * rows**2
        return held + grams + size * rows * min(_COLUMNS_AT_ONCE, max(feature_counts))

    @torch.no_grad()
    @exact_products()
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
        """Keep the first examples; once there are enough, compute their HSIC and free them."""
        for site, x in zip(self._sites, rows, strict=True):
            site.notice_variation(x, count)
            site.kept[self.kept:self.kept + count].copy_(x[:count])
        self.kept += count
        if count and self.kept == self.keep:
            self._of_kept = self._compare_kept()
            for site in self._sites:
                site.kept = site.kept[:0].clone()

    def _fill_minibatches(self, rows: Sequence[Tensor]) -> None:
        """Add examples to the minibatch, and HSIC of each full minibatch to the sums."""
        n = len(rows[0])
        for start in (0, *range(self.batch - self._waiting, n, self.batch)):
            place = slice(self._waiting, min(self.batch, self._waiting + n - start))
            for site, x in zip(self._sites, rows, strict=True):
                site.waiting[place].copy_(x[start:start + place.stop - place.start])
            self._waiting = place.stop % self.batch
            if not self._waiting:
                self._sums += self._compare_sites([site.waiting for site in self._sites])

    def _compare_sites(self, rows: Sequence[Tensor]) -> Tensor:
        return self._compare_grams([_compute_gram(x) for x in rows])

    def _compare_kept(self) -> Tensor:
        """Compare the kept examples, and note the sums of their Gram matrices."""
        grams = [_compute_gram(site.kept[:self.kept]) for site in self._sites]
        units = [g / g.trace() for g in grams]
        self._grams = [GramSums(len(g), 1.0, float(g.square().sum()), float(g.diagonal().square().sum()))
                       for g in units]
        return self._compare_grams(grams)

    def _compare_grams(self, grams: Sequence[Tensor]) -> Tensor:
        return _compute_hsic(grams[:self.sources], grams if self._same else grams[self.sources:],
                             self.precision)

    def _compute_tables(self) -> tuple[Tensor, Tensor]:
        """Compute HSIC of all minibatches, the last if it is large enough, and of the kept examples."""
        last, kept = self._sums, self._of_kept
        if self._waiting >= LEAST_EXAMPLES:
            last = last + self._compare_sites([site.waiting[:self._waiting] for site in self._sites])
        if 0 < self.kept < self.keep:
            kept = self._compare_kept()
        return last, kept

    @torch.no_grad()
    def get_kernels(self, i: int, j: int) -> dict[Needs, Kernels]:
        """Return the kernels of cell (i, j), by kind of data; before the first batch, raise `SutureError`."""
        expect(self.examples > 0, "at least one batch", "none", "call update first")
        self._tables = self._tables or self._compute_tables()
        numbers = i, j if self._same else self.sources + j
        sites = [(name, self._sites[k]) for name, k in zip(("source", "target"), numbers, strict=True)]
        constant = tuple(name for name, site in sites if not site.varies)
        kept_constant = tuple(name for name, site in sites if not site.kept_varies)
        batches, kept = ([Hsic(*part[:, i, j].tolist()) for part in table] for table in self._tables)
        grams = tuple(self._grams[k] for k in numbers) if self._grams else ()
        return {Needs.KERNELS: Kernels(self.examples, constant, batches[0], batches[1]),
                Needs.KEPT_KERNELS: Kernels(self.kept, kept_constant, kept[0], kept[1], grams)}
