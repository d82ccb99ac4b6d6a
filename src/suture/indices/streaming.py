"""Indices of two matrices that come in batches of rows: moments of blocks, a kept sample, Gram matrices."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, check_free_memory
from suture.indices.definition import Index, Needs, Value
from suture.indices.entries import FOLDS
from suture.indices.flat_kernels import FlatKernels
from suture.indices.jackknife import add_intervals
from suture.indices.sample import Sample, as_matrix
from suture.indices.table import FROM_MOMENTS, STITCH, Named, Request, chosen
from suture.numbers import (
    SAMPLE_ROWS,
    MomentBlock,
    Moments,
    Pair,
    Reservoir,
    UnitRowSums,
    standardise_rows,
)


def count_blocks(jackknife: int, indices: Iterable[Index]) -> int:
    """Return the number of blocks of examples to keep apart.

    Args:
        jackknife: blocks for intervals; 0 for none.
        indices: those that are wanted.

    Raises:
        SutureError: `jackknife` is not 0 or a multiple of `FOLDS`.
    """
    try:
        number = -1 if isinstance(jackknife, bool) else operator.index(jackknife)
    except TypeError:
        number = -1
    if number < 0 or number % FOLDS:
        raise SutureError(f"expected jackknife to be 0 or a multiple of {FOLDS} (blocks of examples), got "
                          f"{jackknife!r}; write jackknife=20")
    return number or (FOLDS if any(i.needs is Needs.BLOCKS for i in indices) else 1)


def compute_block(x: Tensor, y: Tensor, *, units: bool = False) -> MomentBlock:
    """Compute the block of some rows: moments, and those of rows at unit length if `units` are wanted."""
    if not units:
        return MomentBlock(Moments.of(x, y))
    x, y = x.double(), y.double()
    return MomentBlock(Moments.of(x, y), (UnitRowSums.of(x), UnitRowSums.of(y)),
                       Moments.of(standardise_rows(x), standardise_rows(y)))


def compute_indices(pair: Pair, requests: Sequence[Request], *, intervals: bool = False) -> dict[str, Value]:
    """Compute the indices from moments; the keys are the names of the requests."""
    entries = {r.name: r.index for r in requests if r.index.needs in FROM_MOMENTS}
    found = {i.name: i(pair) for i in entries.values()}
    if intervals:
        found = add_intervals(found, list(entries.values()), pair)
    return {name: found[i.name] for name, i in entries.items()}


def _as_tensor(name: str, given: Any) -> Tensor:
    """Convert a matrix to a tensor; a tensor stays on its device."""
    if isinstance(given, Tensor) and not given.is_complex():
        return given.detach()
    return torch.from_numpy(as_matrix(name, given))


class Streaming:
    """Indices of two matrices with the same rows, accumulated batch by batch.

    Args:
        names: indices to compute.
        jackknife: blocks of rows for intervals; 0 (default) for none. Row r is in block r modulo their
            number.
        sample: rows kept for indices of rows. Default 2000.
        seed: of the sample.
    """

    def __init__(self, names: Iterable[Named] | Named = "default", *, jackknife: int = 0,
                 sample: int = SAMPLE_ROWS, seed: int = 0) -> None:
        self.requests = chosen(names)
        for r in self.requests:
            if r.alignment not in (STITCH, "flatten"):
                raise SutureError(f"expected indices of two matrices as they are, got {r.name!r}; write "
                                  f"{r.index.name!r}")
        needs = {r.index.needs for r in self.requests if r.alignment == STITCH}
        self._jackknife = jackknife
        self._blocks: list[MomentBlock | None] = ([None] * count_blocks(jackknife,
                                                                        (r.index for r in self.requests)))
        self._units = Needs.UNITS in needs
        self._reservoir = Reservoir(sample, seed) if Needs.ROWS in needs else None
        self._kept: list[tuple[Tensor, Tensor] | None] = []
        flat = any(r.alignment == "flatten" for r in self.requests)
        self._kernels = FlatKernels(1, 1, precision=torch.float64) if flat else None
        self._widths: tuple[int, int] | None = None
        self.n = 0
        """Number of rows seen."""

    def update(self, x: Any, y: Any) -> None:
        """Add rows: `x` (n, p) and `y` (n, q), numpy arrays or tensors of any float type.

        They are computed in float64.

        Raises:
            SutureError: not two matrices with the same rows, or other widths than before; NaN or inf.
        """
        a, b = (_as_tensor(name, m) for name, m in (("x", x), ("y", y)))
        Moments.check(a, b)
        widths = a.shape[1], b.shape[1]
        if 0 in widths or widths != (self._widths or widths):
            wanted = "at least one" if self._widths is None else "{} and {}".format(*self._widths)
            raise SutureError(f"expected {wanted} columns, got {widths[0]} and {widths[1]}; pass "
                              "(n, p) and (n, q)")
        count = len(self._blocks)
        if self._widths is None:
            self._check_memory(*widths)
        self._widths = widths
        for k in range(count):
            rows = slice((k - self.n) % count, None, count)
            if len(range(len(a))[rows]):
                part, before = compute_block(a[rows], b[rows], units=self._units), self._blocks[k]
                self._blocks[k] = part if before is None else before.merge(part)
        self._keep_rows(a, b)
        if self._kernels is not None:
            self._kernels.update([a], [b])
        self.n += len(a)

    def _check_memory(self, p: int, q: int) -> None:
        """Refuse sums that do not fit into the memory, before they are allocated."""
        needed = 8 * (p * p + q * q + p * q) * len(self._blocks) * (2 if self._units else 1)
        check_free_memory(needed, torch.device("cpu"), f"the sums of {p} and {q} columns",
                      "write jackknife=0, fewer columns, or cka@flatten")

    def _keep_rows(self, x: Tensor, y: Tensor) -> None:
        if self._reservoir is None:
            return
        kept, slots = self._reservoir.offer(len(x))
        self._kept += [None] * (int(np.max(slots, initial=-1)) + 1 - len(self._kept))
        for row, slot in zip(kept.tolist(), slots.tolist(), strict=True):
            self._kept[slot] = x[row].clone(), y[row].clone()

    @property
    def blocks(self) -> list[MomentBlock]:
        """Blocks with rows in them."""
        return [p for p in self._blocks if p is not None]

    def values(self) -> dict[str, Value]:
        """Compute the indices of all rows so far, by name.

        Raises:
            SutureError: no rows were given.
        """
        if not self.n:
            raise SutureError("expected at least one batch of rows, got none; call update first")
        pair = Pair.of_block(reduce(MomentBlock.merge, self.blocks),
                             blocks=self.blocks if len(self._blocks) > 1 else ())
        found = compute_indices(pair, self.requests, intervals=self._jackknife > 0)
        if self._reservoir is not None:
            rows = [k for k in self._kept if k is not None]
            sample = Sample.of(*(torch.stack(side) for side in zip(*rows, strict=True)))
            found |= {r.name: r.index(sample) for r in self.requests if r.index.needs is Needs.ROWS}
        if self._kernels is not None:
            cell = self._kernels.get_kernels(0, 0)
            found |= {r.name: r.index(cell) for r in self.requests if r.alignment == "flatten"}
        return {r.name: found[r.name] for r in self.requests}
