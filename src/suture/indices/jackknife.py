"""Jackknife intervals of indices over blocks of rows (Quenouille 1956; Tukey 1958; Shao and Tu 1995, 2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from suture.indices.definition import Index, Value
from suture.indices.entries import FOLDS
from suture.numbers import MomentBlock, Pair, leave_out, merge_all, merge_blocks


def make_pair(blocks: Sequence[MomentBlock]) -> Pair:
    """Make the pair of all rows of disjoint blocks; it keeps the blocks if there are several."""
    return Pair.of_block(merge_all(blocks), blocks if len(blocks) > 1 else ())


def leave_out_each(blocks: Sequence[MomentBlock]) -> list[Pair]:
    """Make the pair of all blocks but one, for each block in turn; the others stay in their folds."""
    totals = merge_blocks(blocks, FOLDS)
    found = []
    for k in range(len(blocks)):
        own = blocks[k % FOLDS::FOLDS]
        rest = [leave_out(own, k // FOLDS)] if len(own) > 1 else []
        found.append(make_pair([*(t for f, t in enumerate(totals) if f != k % FOLDS), *rest]))
    return found


def add_interval(value: Value, index: Index, pair: Pair, left: Sequence[Pair]) -> Value:
    """Add the 95 % interval to the value of an index on `pair`, from the pairs of `leave_out_each`.

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
