"""Computation of indices: of two matrices, at once or in batches of rows, of moments, and of one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from suture._base import Count, Seed, SutureError, Whole, check_free_memory, checked, expect
from suture.indices.definition import FROM_MOMENTS, STITCH, Index, Needs, Value
from suture.indices.entries import FOLDS
from suture.indices.gram_matrices import FlatKernels
from suture.indices.hsic import Kernels
from suture.indices.jackknife import add_intervals
from suture.indices.requests import Names, Request, chosen
from suture.indices.sample import Sample, as_matrix
from suture.numbers import (
    SAMPLE_ROWS,
    MomentBlock,
    Moments,
    Pair,
    Reservoir,
    UnitRowSums,
    merge_all,
    standardise_rows,
    to_double,
)

_MOST_BLOCKS = 1000
"""Largest number of blocks; intervals hardly change from a few dozen on."""
Inputs = Mapping[Needs, Pair | Sample | Kernels]
"""Data of one cell, by the kind of data that an index needs."""


def compute_indices(requests: Sequence[Request], data: Mapping[str, Inputs], *,
                    intervals: bool = False) -> dict[str, Value]:
    """Compute the requested indices of one cell, by name.

    `data` holds the inputs of each alignment; requests of other alignments are left out. With `intervals`,
    indices from moments have 95 % intervals by the jackknife.
    """
    found: dict[str, Value] = {}
    for alignment, inputs in data.items():
        asked = [r for r in requests if r.alignment == alignment]
        found |= {r.name: r.index(inputs[r.index.needs]) for r in asked}
        pair = inputs.get(Needs.MOMENTS)
        of_pair = [r for r in asked if r.index.needs in FROM_MOMENTS]
        if intervals and of_pair and isinstance(pair, Pair) and len(pair.blocks) > 1:
            found |= add_intervals({r.name: found[r.name] for r in of_pair},
                                   {r.name: r.index for r in of_pair}, pair)
    return {r.name: found[r.name] for r in requests if r.name in found}


@checked
def of_moments(moments: Moments, names: Names = "default") -> dict[str, Value]:
    """Compute indices, by name, from the moments of one pair of matrices about the means; see `of_blocks`."""
    return of_blocks([MomentBlock(moments)], names)


@checked
def of_blocks(blocks: Sequence[MomentBlock], names: Names = "default", *,
              intervals: bool = False) -> dict[str, Value]:
    """Compute indices, by name, from the merged moments of disjoint blocks of rows.

    Args:
        blocks: at least one, such as the `Streaming.blocks` of several machines joined.
        names: indices from moments. Default: those of `DEFAULT`.
        intervals: add 95 % intervals by the jackknife over the blocks.

    Raises:
        SutureError: an index needs rows, or there are fewer than two blocks for intervals.
    """
    expect(not intervals or len(blocks) > 1, "at least two blocks for intervals", len(blocks),
           "save moments with jackknife=20")
    requests = chosen(names)
    for r in requests:
        if r.index.needs not in FROM_MOMENTS or r.alignment != STITCH:
            raise SutureError(f"expected indices from moments, got {r.name!r}, which needs "
                              f"{r.index.needs.value}; use of_matrices")
    pair = _make_pair(blocks)
    return compute_indices(requests, {STITCH: dict.fromkeys(FROM_MOMENTS, pair)}, intervals=intervals)


@checked
def of_matrices(x: Any, y: Any, names: Names = "default", *, jackknife: Whole = 0,
                sample: Count = SAMPLE_ROWS, seed: Seed = 0) -> dict[str, Value]:
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
    expect(jackknife >= 0 and jackknife % FOLDS == 0,
           f"jackknife to be 0 or a multiple of {FOLDS} (blocks of examples)", f"{jackknife!r}",
           "write jackknife=20")
    expect(jackknife <= _MOST_BLOCKS, f"jackknife to be at most {_MOST_BLOCKS}", jackknife,
           "write jackknife=20")
    return jackknife or (FOLDS if any(i.needs is Needs.BLOCKS for i in indices) else 1)


def _compute_block(x: Tensor, y: Tensor, units: bool) -> MomentBlock:
    """Compute the moments of some rows, and those of rows at unit length if `units`."""
    if not units:
        return MomentBlock(Moments.of(x, y))
    x, y = to_double(x), to_double(y)
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

    @checked
    def __init__(self, names: Names = "default", *, jackknife: Whole = 0,
                 sample: Count = SAMPLE_ROWS, seed: Seed = 0) -> None:
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
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
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
        if self._reservoir is not None:
            for row, slot in zip(*(part.tolist() for part in self._reservoir.offer(len(x))), strict=True):
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
            inputs |= dict.fromkeys(FROM_MOMENTS, _make_pair(self.blocks))
        if self._reservoir is not None:
            rows = [self._kept[slot] for slot in sorted(self._kept)]
            inputs[Needs.ROWS] = Sample.of(*(torch.stack(side) for side in zip(*rows, strict=True)))
        data: dict[str, Inputs] = {STITCH: inputs}
        if self._kernels is not None:
            data["flatten"] = self._kernels.get_kernels(0, 0)
        return compute_indices(self.requests, data, intervals=self._jackknife > 0)


def _make_pair(blocks: Sequence[MomentBlock]) -> Pair:
    """Make the pair of all rows of disjoint blocks; it keeps the blocks if there are several."""
    return Pair.of_block(merge_all(blocks), blocks if len(blocks) > 1 else ())
