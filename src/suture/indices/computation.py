"""Computation of indices: of two matrices, at once or in batches of rows, of moments, and of one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from suture._base import Count, Draws, Seed, SutureError, Whole, check_free_memory, checked, expect
from suture.indices.definition import FROM_MOMENTS, STITCH, WITHIN, Index, Needs, Value
from suture.indices.entries import FOLDS
from suture.indices.gram_matrices import FlatKernels
from suture.indices.jackknife import add_intervals
from suture.indices.nulls.labels import Groups, Labels, check_count
from suture.indices.nulls.permutation import NullSource, add_nulls
from suture.indices.nulls.preparation import GROUPED, keep_rows, prepare_within
from suture.indices.nulls.shuffled_rows import PermutedRows
from suture.indices.requests import Names, Request, chosen
from suture.indices.sample import Sample, as_matrix
from suture.numbers import (
    SAMPLE_ROWS,
    ChosenRows,
    Ints,
    MomentBlock,
    Moments,
    Pair,
    Reservoir,
    choose_groups,
    merge_all,
)

_MOST_BLOCKS = 1000
"""Largest number of blocks; intervals hardly change from a few dozen on."""
Inputs = Mapping[Needs, Any]
"""Data of one cell, by the kind of data that an index needs."""


def compute_indices(requests: Sequence[Request], data: Mapping[str, Inputs | str], *, intervals: bool = False,
                    nulls: Mapping[str, NullSource] | None = None) -> dict[str, Value]:
    """Compute the requested indices of one cell, by name.

    `data` holds the inputs of each alignment, or the reason why there are none; requests of other alignments
    are left out. With `intervals`, indices from moments have 95 % intervals by the jackknife. Values have the
    nulls that `nulls` are made for, by alignment.
    """
    found: dict[str, Value] = {}
    for alignment, inputs in data.items():
        asked = [r for r in requests if r.alignment == alignment]
        if isinstance(inputs, str):
            found |= {r.name: Value.missing(inputs) for r in asked}
            continue
        found |= {r.name: r.index(inputs[r.index.needs]) for r in asked}
        if Needs.CLASSES in inputs:
            found |= {r.name: inputs[Needs.CLASSES].mark(found[r.name]) for r in asked}
        if nulls and alignment in nulls and asked:
            found |= add_nulls({r.name: r.index for r in asked}, found, inputs, nulls[alignment])
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
    return compute_indices(requests, {STITCH: dict.fromkeys(FROM_MOMENTS, pair)}, intervals=intervals,
                           nulls={STITCH: NullSource()})


@checked
def of_matrices(x: Any, y: Any, names: Names = "default", *, jackknife: Whole = 0,
                sample: Count = SAMPLE_ROWS, seed: Seed = 0, nulls: Draws = 0, groups: Groups = None,
                within: Labels = None) -> dict[str, Value]:
    """Compute indices, by name, for two matrices with the same rows, and what they say by chance.

    `Value.null` compares each value with those of permuted rows. Rows must be independent, or in `groups`.

    Args:
        x, y: (n, p) source and (n, q) target, arrays or tensors of any float type, computed in float64.
        names: names (`INDICES`, `GROUPS`), entries, and functions of a `suture.numbers.Pair` or of two
            matrices. Default: those of `DEFAULT`.
        jackknife: blocks of rows for 95 % intervals of indices from moments, such as 20. Default 0: none.
        sample: number of rows for indices of rows, for nulls by permutation and for ``@within``, drawn with
            `seed`. Default 2000.
        nulls: number of permutations for indices whose null has no closed form, such as 200. Default 0: none.
        groups: group of each row, such as the example that a position is of. Whole groups are permuted, those
            of one size among each other. Default None: rows are independent.
        within: class of each row, for ``@within``.

    Raises:
        SutureError: not two matrices with the same rows, NaN or inf, an unknown index.
    """
    streaming = Streaming(names, jackknife=jackknife, sample=sample, seed=seed, nulls=nulls, groups=groups,
                          within=within)
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


def _as_tensor(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor) and not given.is_complex():
        return given.detach()
    return torch.from_numpy(as_matrix(name, given))


class _PairedSample:
    """Rows of both matrices that a sample of the stream keeps, by slot, on the CPU as their labels."""

    def __init__(self, sample: Reservoir | ChosenRows) -> None:
        self.sample = sample
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, x: Tensor, y: Tensor) -> None:
        for row, slot in zip(*(part.tolist() for part in self.sample.offer(len(x))), strict=True):
            self._rows[slot] = x[row].to("cpu", copy=True), y[row].to("cpu", copy=True)

    @property
    def matrices(self) -> tuple[Tensor, Tensor]:
        x, y = (torch.stack(side) for side in zip(*(self._rows[k] for k in sorted(self._rows)), strict=True))
        return x, y


class Streaming:
    """Indices of two matrices with the same rows, accumulated batch by batch.

    Arguments are those of `of_matrices`. `n` rows were seen so far; row r is in block r modulo their number.
    Moments are accumulated where `keeps_moments`: by default, if an index needs them.
    """

    @checked
    def __init__(self, names: Names = "default", *, jackknife: Whole = 0, sample: Count = SAMPLE_ROWS,
                 seed: Seed = 0, nulls: Draws = 0, groups: Groups = None, within: Labels = None) -> None:
        self.requests = chosen(names)
        for r in self.requests:
            expect(r.alignment in (STITCH, WITHIN, "flatten"), "indices of two matrices as they are",
                   f"{r.name!r}", f"write {r.index.name!r}")
        indices = [r.index for r in self.requests if r.alignment != WITHIN]
        needs = {i.needs for i in indices}
        self.keeps_moments = bool(needs & FROM_MOMENTS)
        self._jackknife, self._nulls, self._seed = jackknife, nulls, seed
        self._groups, self._within = groups, within
        self._blocks: list[MomentBlock | None] = [None] * count_blocks(jackknife, indices)
        self._units = Needs.UNITS in needs
        self._kept = _PairedSample(Reservoir(sample, seed)) if Needs.ROWS in needs else None
        self._permuted: _PairedSample | None = None
        if nulls or len(indices) < len(self.requests):
            free = self._kept or _PairedSample(Reservoir(sample, seed))
            self._permuted = free if groups is None else _PairedSample(choose_groups(groups, sample, seed))
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
        for kept in {id(k): k for k in (self._kept, self._permuted) if k is not None}.values():
            kept.update(a, b)
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
                part, before = MomentBlock.of(x[rows], y[rows], units=self._units), self._blocks[k]
                self._blocks[k] = part if before is None else before.merge(part)

    @property
    def blocks(self) -> list[MomentBlock]:
        """Blocks of moments with rows in them; none unless `keeps_moments`."""
        return [p for p in self._blocks if p is not None]

    def values(self) -> dict[str, Value]:
        """Compute the indices of all rows so far, by name; without rows, raise `SutureError`."""
        expect(self.n > 0, "at least one batch of rows", "none", "call update first")
        check_count(self._groups, self.n, "groups")
        check_count(self._within, self.n, "within")
        inputs: dict[Needs, Any] = {}
        if self.keeps_moments:
            inputs |= dict.fromkeys(FROM_MOMENTS, _make_pair(self.blocks))
        if self._kept is not None:
            inputs[Needs.ROWS] = Sample.of(*self._kept.matrices)
        data: dict[str, Inputs | str] = {STITCH: inputs}
        nulls = {STITCH: self._make_source(inputs.get(Needs.ROWS))}
        if self._kernels is not None:
            data["flatten"] = self._kernels.get_kernels(0, 0)
            nulls["flatten"] = replace(nulls[STITCH], rows="flattened examples are not kept; write the index "
                                                           "without @flatten")
        if any(r.alignment == WITHIN for r in self.requests) and self._permuted is not None:
            numbers = self._permuted.sample.numbers
            data[WITHIN], nulls[WITHIN] = prepare_within(
                *self._permuted.matrices, _pick(self._within, numbers), _pick(self._groups, numbers),
                self._nulls, self._seed)
        return compute_indices(self.requests, data, intervals=self._jackknife > 0, nulls=nulls)

    def _make_source(self, sample: Sample | None) -> NullSource:
        rows: PermutedRows | str = "no rows were kept"
        if self._nulls and self._permuted is not None:
            groups = _pick(self._groups, self._permuted.sample.numbers)
            rows = keep_rows(*self._permuted.matrices, groups, sample=None if groups is not None else sample)
        return NullSource(self._nulls, self._seed, "" if self._groups is None else GROUPED, rows)


def _pick(labels: Ints | None, numbers: Ints) -> Ints | None:
    return None if labels is None else labels[numbers]


def _make_pair(blocks: Sequence[MomentBlock]) -> Pair:
    """Make the pair of all rows of disjoint blocks; it keeps the blocks if there are several."""
    return Pair.of_block(merge_all(blocks), blocks if len(blocks) > 1 else ())
