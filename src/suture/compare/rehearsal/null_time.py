"""The time of nulls by permutation, predicted from a few permutations of noise in the shapes of kept rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.compare.rehearsal.timing import measure_seconds
from suture.compare.setup import Setup
from suture.indices import (
    FOLDS,
    FROM_MOMENTS,
    STITCH,
    WITHIN,
    Needs,
    NullSource,
    Request,
    Sample,
    compute_indices,
    keep_rows,
    prepare_within,
)
from suture.numbers import MomentBlock, Pair, merge_all
from suture.representations import Accumulators

_CLASSES = 10
_FEW, _MORE = 1, 9
"""Numbers of permutations that are timed: what is computed once for a cell is no part of their difference."""
_MOST_ROWS = 4096
_TINY = (40, 3, 3)
_Shape = tuple[int, int, int]


def predict_nulls(setup: Setup, accumulators: Accumulators, examples: int | None) -> dict[str, float | None]:
    """Return the seconds of nulls by permutation as ``{"nulls": seconds}``; empty without permutations.

    They are timed on noise of the smallest and of the largest shape (n, p, q) of kept rows. Between them,
    time grows with the operations of a permutation. Indices of the user are left out.
    """
    settings = setup.settings
    asked = [r for r in settings.requests if r.index.user is None and r.index.paired]
    if not settings.nulls or not asked:
        return {}
    if examples is None:
        return {"nulls": None}
    shapes: dict[tuple[str, bool], list[_Shape]] = {}
    for alignment in {r.alignment for r in asked} & {STITCH, "pool", WITHIN}:
        for i, j in setup.cells:
            rows, single = accumulators.count_permuted(i, j, alignment, examples)
            if rows:
                shapes.setdefault((alignment, single), []).append(
                    (rows, setup.source.shapes[i].width, setup.target.shapes[j].width))
    seconds, cells = 0.0, 1
    for (alignment, single), of in shapes.items():
        some = [r for r in asked if r.alignment == alignment and (single or r.index.needs is not Needs.ROWS)]
        if some:
            seconds, cells = seconds + _time_cells(some, alignment, of, settings.nulls), max(cells, len(of))
    return {"nulls": seconds / min(torch.get_num_threads(), cells)} if seconds else {}


def _time_cells(requests: Sequence[Request], alignment: str, shapes: Sequence[_Shape], draws: int) -> float:
    """Return the seconds of cells whose rows have these shapes."""
    ends = min(shapes, key=_count_operations), max(shapes, key=_count_operations)
    _time_cell(requests, alignment, _TINY, 0)  # imports
    took = {shape: _time_cell(requests, alignment, shape, draws) for shape in dict.fromkeys(ends)}
    low, high = (_count_operations(shape) for shape in ends)
    rise = max(0.0, took[ends[1]] - took[ends[0]]) / max(1, high - low)
    return sum(took[ends[0]] + rise * (_count_operations(shape) - low) for shape in shapes)


def _count_operations(shape: _Shape) -> int:
    n, p, q = shape
    return p * q * (n + p + q)


def _time_cell(requests: Sequence[Request], alignment: str, shape: _Shape, draws: int) -> float:
    """Return the seconds of the permutations of one cell."""
    n, p, q = shape
    needs = {r.index.needs for r in requests}
    rows = n if Needs.ROWS in needs else min(n, _MOST_ROWS)  # sums grow with the rows, distances with n²
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, width, generator=generator, dtype=torch.float64) for width in (p, q))
    data, source = _prepare(x, y, alignment, needs)
    first, few, more = (measure_seconds(lambda count: compute_indices(
        requests, {alignment: data}, nulls={alignment: replace(source, draws=count)}), count,
        torch.device("cpu")) for count in (_FEW, _FEW, _MORE))
    return (first + (draws - _FEW) * max(0.0, more - few) / (_MORE - _FEW)) * n / rows


def _prepare(x: Tensor, y: Tensor, alignment: str, needs: set[Needs]) -> tuple[Any, NullSource]:
    """Return the inputs of indices of rows, and what their nulls are made from."""
    if alignment == WITHIN:
        return prepare_within(x, y, np.arange(len(x)) % _CLASSES, None, 0, 0)
    units = Needs.UNITS in needs
    blocks = [MomentBlock.of(x[k::FOLDS], y[k::FOLDS], units=units) for k in range(FOLDS)]
    data: dict[Needs, Any] = dict.fromkeys(FROM_MOMENTS, Pair.of_block(merge_all(blocks), blocks))
    return data | {Needs.ROWS: Sample.of(x, y)}, NullSource(rows=keep_rows(x, y, None))
