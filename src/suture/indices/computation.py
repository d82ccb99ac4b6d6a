"""Indices of two matrices, of their moments, or of blocks of moments, without any network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from suture._base import SutureError
from suture.indices.definition import Value
from suture.indices.streaming import Streaming, compute_indices
from suture.indices.table import FROM_MOMENTS, STITCH, Named, Request, chosen
from suture.numbers import SAMPLE_ROWS, MomentBlock, Moments, Pair


def of_moments(moments: Moments, names: Iterable[Named] | Named = "default") -> dict[str, Value]:
    """Compute indices, by name, from the moments of one pair of matrices.

    Args:
        moments: about the means.
        names: indices from moments. Default: those of `DEFAULT`.

    Raises:
        SutureError: an index that needs the rows.
    """
    return compute_indices(Pair.of(moments), _choose_from_moments(names))


def of_matrices(x: Any, y: Any, names: Iterable[Named] | Named = "default", *, jackknife: int = 0,
                sample: int = SAMPLE_ROWS, seed: int = 0) -> dict[str, Value]:
    """Compute indices, by name, for two matrices with the same rows.

    Args:
        x: (n, p) source: numpy array or tensor; any float type, computed in float64.
        y: (n, q) target.
        names: names (`INDICES`, `GROUPS`), entries, and functions of a `suture.numbers.spectra.Pair` or of
            two matrices. Default: those of `DEFAULT`.
        jackknife: blocks of rows for 95 % intervals of indices from moments. Default 0: none; 20 is a good
            number.
        sample: number of rows that indices of rows use. Default 2000.
        seed: of that sample.

    Raises:
        SutureError: not two matrices with the same rows, NaN or inf, an index that is not known.
    """
    streaming = Streaming(names, jackknife=jackknife, sample=sample, seed=seed)
    streaming.update(x, y)
    return streaming.values()


def of_blocks(blocks: Sequence[MomentBlock], names: Iterable[Named] | Named = "default", *,
              intervals: bool = False) -> dict[str, Value]:
    """Compute indices, by name, from moments of disjoint blocks of rows, of all of them together.

    Args:
        blocks: at least one; `Streaming.blocks` of several machines, one after the other.
        names: indices from moments.
        intervals: 95 % intervals by the jackknife over the blocks (`suture.indices.jackknife`).

    Raises:
        SutureError: an index that needs the rows; intervals from fewer than two blocks.
    """
    if intervals and len(blocks) < 2:
        raise SutureError(f"expected at least two blocks for intervals, got {len(blocks)}; save moments with "
                          "jackknife=20")
    pair = Pair.of_block(reduce(MomentBlock.merge, blocks), blocks=blocks if len(blocks) > 1 else ())
    return compute_indices(pair, _choose_from_moments(names), intervals=intervals)


def _choose_from_moments(names: Iterable[Named] | Named) -> list[Request]:
    requests = chosen(names)
    for r in requests:
        if r.index.needs not in FROM_MOMENTS or r.alignment != STITCH:
            raise SutureError(f"expected indices from moments, got {r.name!r}, which needs "
                              f"{r.index.needs.value}; use of_matrices")
    return requests
