"""Indices of one cell from its moments, kept rows or Gram matrices, with jackknife intervals.

The jackknife leaves out blocks of rows (Quenouille 1956; Tukey 1958; Shao and Tu 1995, 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from suture._base import SutureError, expect
from suture.indices.definition import FROM_MOMENTS, STITCH, Index, Needs, Value
from suture.indices.entries import FOLDS
from suture.indices.gram_matrices import Kernels
from suture.indices.requests import Named, Request, chosen
from suture.indices.sample import Sample
from suture.numbers import MomentBlock, Moments, Pair, leave_out, merge_blocks

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
            left = _leave_out_each(pair.blocks)
            found |= {r.name: _add_interval(found[r.name], r.index, pair, left) for r in of_pair}
    return {r.name: found[r.name] for r in requests if r.name in found}


def of_moments(moments: Moments, names: Iterable[Named] | Named = "default") -> dict[str, Value]:
    """Compute indices, by name, from the moments of one pair of matrices about the means; see `of_blocks`."""
    return of_blocks([MomentBlock(moments)], names)


def of_blocks(blocks: Sequence[MomentBlock], names: Iterable[Named] | Named = "default", *,
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
    pair = make_pair(blocks)
    return compute_indices(requests, {STITCH: dict.fromkeys(FROM_MOMENTS, pair)}, intervals=intervals)


def make_pair(blocks: Sequence[MomentBlock]) -> Pair:
    """Make the pair of all rows of disjoint blocks; it keeps the blocks if there are several."""
    return Pair.of_block(reduce(MomentBlock.merge, blocks), blocks=blocks if len(blocks) > 1 else ())


def _leave_out_each(blocks: Sequence[MomentBlock]) -> list[Pair]:
    """Make the pair of all blocks but one, for each block in turn; the others stay in their folds."""
    totals = merge_blocks(blocks, FOLDS)
    found = []
    for k in range(len(blocks)):
        own = blocks[k % FOLDS::FOLDS]
        rest = [leave_out(own, k // FOLDS)] if len(own) > 1 else []
        found.append(make_pair([*(t for f, t in enumerate(totals) if f != k % FOLDS), *rest]))
    return found


def _add_interval(value: Value, index: Index, pair: Pair, left: Sequence[Pair]) -> Value:
    """Add the 95 % interval to the value of an index on `pair`, from the pairs of `_leave_out_each`.

    The interval of a smooth index is bias-corrected: its centre is B v - (B - 1) mean(v without each block).
    It may therefore not contain a value that is biased by few rows. Other indices have the value as centre,
    because there the correction adds more noise than it removes bias (docs/indices.md). The width uses the t
    quantile for B - 1 degrees of freedom. There is no interval if leaving out a block makes the index
    undefined or changes its `Index.regime`. The interval covers other examples of the same kind, not other
    seeds or trainings.
    """
    from scipy import stats

    if value.reason or any(index.find_regime(p) != index.find_regime(pair) for p in left):
        return value
    values = [index(p) for p in left]
    if any(v.reason for v in values):
        return value
    b, estimates = len(left), np.array([v.value for v in values])
    centre = b * value.value - (b - 1) * estimates.mean() if index.smooth else value.value
    error = math.sqrt((b - 1) / b * float(((estimates - estimates.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.975, b - 1)) * error
    return replace(value, low=float(centre - half), high=float(centre + half))
