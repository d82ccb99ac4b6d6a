"""Indices of two matrices, at once or in batches of rows: moments of blocks, a kept sample, Gram matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, check_free_memory, expect
from suture.indices.computation import Inputs, compute_indices, make_pair
from suture.indices.definition import FROM_MOMENTS, STITCH, Index, Needs, Value
from suture.indices.entries import FOLDS
from suture.indices.gram_matrices import FlatKernels
from suture.indices.requests import Named, chosen
from suture.indices.sample import Sample, as_matrix
from suture.numbers import SAMPLE_ROWS, MomentBlock, Moments, Reservoir, UnitRowSums, standardise_rows


def of_matrices(x: Any, y: Any, names: Iterable[Named] | Named = "default", *, jackknife: int = 0,
                sample: int = SAMPLE_ROWS, seed: int = 0) -> dict[str, Value]:
    """Compute indices, by name, for two matrices with the same rows.

    Args:
        x, y: (n, p) source and (n, q) target, arrays or tensors of any float type, computed in float64.
        names: names (`INDICES`, `GROUPS`), entries, and functions of a `suture.numbers.Pair` or of two
            matrices. Default: those of `DEFAULT`.
        jackknife: blocks of rows for 95 % intervals of indices from moments, such as 20. Default 0: none.
        sample: number of rows for indices of rows, drawn with `seed`. Default 2000.

    Raises:
        SutureError: not two matrices with the same rows, NaN or inf, an unknown index.
    """
    streaming = Streaming(names, jackknife=jackknife, sample=sample, seed=seed)
    streaming.update(x, y)
    return streaming.values()


def count_blocks(jackknife: int, indices: Iterable[Index]) -> int:
    """Return the number of blocks of examples to keep apart for these indices and their intervals.

    Raises:
        SutureError: `jackknife` is not 0 (no intervals) or a multiple of `FOLDS`.
    """
    whole = hasattr(jackknife, "__index__") and not isinstance(jackknife, bool)
    expect(whole and jackknife >= 0 and jackknife % FOLDS == 0,
           f"jackknife to be 0 or a multiple of {FOLDS} (blocks of examples)", f"{jackknife!r}",
           "write jackknife=20")
    return jackknife or (FOLDS if any(i.needs is Needs.BLOCKS for i in indices) else 1)


def _compute_block(x: Tensor, y: Tensor, units: bool) -> MomentBlock:
    """Compute the moments of some rows, and those of rows at unit length if `units`."""
    if not units:
        return MomentBlock(Moments.of(x, y))
    x, y = x.double(), y.double()
    return MomentBlock(Moments.of(x, y), (UnitRowSums.of(x), UnitRowSums.of(y)),
                       Moments.of(standardise_rows(x), standardise_rows(y)))


def _as_tensor(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor) and not given.is_complex():
        return given.detach()
    return torch.from_numpy(as_matrix(name, given))


class Streaming:
    """Indices of two matrices with the same rows, accumulated batch by batch.

    Arguments are those of `of_matrices`. `n` rows were seen so far; row r is in block r modulo their number.
    Moments are accumulated where `keeps_moments`: by default, if an index needs them.
    """

    def __init__(self, names: Iterable[Named] | Named = "default", *, jackknife: int = 0,
                 sample: int = SAMPLE_ROWS, seed: int = 0) -> None:
        self.requests = chosen(names)
        for r in self.requests:
            expect(r.alignment in (STITCH, "flatten"), "indices of two matrices as they are", f"{r.name!r}",
                   f"write {r.index.name!r}")
        indices = [r.index for r in self.requests]
        needs = {i.needs for i in indices}
        self.keeps_moments = bool(needs & FROM_MOMENTS)
        self._jackknife = jackknife
        self._blocks: list[MomentBlock | None] = [None] * count_blocks(jackknife, indices)
        self._units = Needs.UNITS in needs
        self._reservoir = Reservoir(sample, seed) if Needs.ROWS in needs else None
        self._kept: list[tuple[Tensor, Tensor] | None] = []
        self._kernels = FlatKernels.for_indices(indices, 1, 1, precision=torch.float64)
        self._widths: tuple[int, int] | None = None
        self.n = 0

    def update(self, x: Any, y: Any) -> None:
        """Add rows: `x` (n, p) and `y` (n, q), arrays or tensors of any float type, computed in float64.

        Raises:
            SutureError: not two matrices with the same rows, other widths than before, NaN or inf.
        """
        a, b = (_as_tensor(name, m) for name, m in (("x", x), ("y", y)))
        Moments.check(a, b)
        widths = a.shape[1], b.shape[1]
        if 0 in widths or widths != (self._widths or widths):
            wanted = "at least one" if self._widths is None else "{} and {}".format(*self._widths)
            raise SutureError(f"expected {wanted} columns, got {widths[0]} and {widths[1]}; pass "
                              "(n, p) and (n, q)")
        if self.keeps_moments:
            self._add_moments(a, b)
        self._widths = widths
        self._keep_rows(a, b)
        if self._kernels is not None:
            self._kernels.update([a], [b])
        self.n += len(a)

    def _add_moments(self, x: Tensor, y: Tensor) -> None:
        count, p, q = len(self._blocks), x.shape[1], y.shape[1]
        if self._widths is None:
            needed = 8 * (p * p + q * q + p * q) * count * (2 if self._units else 1)
            check_free_memory(needed, torch.device("cpu"), f"the sums of {p} and {q} columns",
                              "write jackknife=0, fewer columns, or cka@flatten")
        for k in range(count):
            rows = slice((k - self.n) % count, None, count)
            if len(range(len(x))[rows]):
                part, before = _compute_block(x[rows], y[rows], self._units), self._blocks[k]
                self._blocks[k] = part if before is None else before.merge(part)

    def _keep_rows(self, x: Tensor, y: Tensor) -> None:
        if self._reservoir is None:
            return
        kept, slots = self._reservoir.offer(len(x))
        self._kept += [None] * (int(np.max(slots, initial=-1)) + 1 - len(self._kept))
        for row, slot in zip(kept.tolist(), slots.tolist(), strict=True):
            self._kept[slot] = x[row].clone(), y[row].clone()

    @property
    def blocks(self) -> list[MomentBlock]:
        """Blocks of moments with rows in them; none unless `keeps_moments`."""
        return [p for p in self._blocks if p is not None]

    def values(self) -> dict[str, Value]:
        """Compute the indices of all rows so far, by name; without rows, raise `SutureError`."""
        expect(self.n > 0, "at least one batch of rows", "none", "call update first")
        inputs: dict[Needs, Any] = {}
        if self.keeps_moments:
            inputs |= dict.fromkeys(FROM_MOMENTS, make_pair(self.blocks))
        if self._reservoir is not None:
            rows = [k for k in self._kept if k is not None]
            inputs[Needs.ROWS] = Sample.of(*(torch.stack(side) for side in zip(*rows, strict=True)))
        data: dict[str, Inputs] = {STITCH: inputs}
        if self._kernels is not None:
            data["flatten"] = self._kernels.get_kernels(0, 0)
        return compute_indices(self.requests, data, intervals=self._jackknife > 0)
