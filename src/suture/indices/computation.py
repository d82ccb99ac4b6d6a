"""Indices of one cell from its moments, kept rows or Gram matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from suture._base import SutureError, expect
from suture.indices.definition import FROM_MOMENTS, STITCH, Needs, Value
from suture.indices.gram_matrices import Kernels
from suture.indices.jackknife import add_interval, leave_out_each, make_pair
from suture.indices.requests import Named, Request, chosen
from suture.indices.sample import Sample
from suture.numbers import MomentBlock, Moments, Pair

Inputs = Mapping[Needs, Pair | Sample | Kernels]
"""Data of one cell, by the kind of data that an index needs."""


def compute_indices(requests: Sequence[Request], data: Mapping[str, Inputs], *,
                    intervals: bool = False) -> dict[str, Value]:
    """Compute the requested indices of one cell, by name.

    `data` holds the inputs of each alignment; requests of other alignments are left out. With `intervals`,
    indices from moments have 95 % intervals (`suture.indices.jackknife`).
    """
    found: dict[str, Value] = {}
    for alignment, inputs in data.items():
        asked = [r for r in requests if r.alignment == alignment]
        found |= {r.name: r.index(inputs[r.index.needs]) for r in asked}
        pair = inputs.get(Needs.MOMENTS)
        if intervals and isinstance(pair, Pair) and len(pair.blocks) > 1:
            left = leave_out_each(pair.blocks)
            found |= {r.name: add_interval(found[r.name], r.index, pair, left) for r in asked
                      if r.index.needs in FROM_MOMENTS}
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
