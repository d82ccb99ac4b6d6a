"""Intervals of indices by the delete-one-block jackknife, from moments of blocks without another pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from suture.indices.definition import Index, Value
from suture.indices.entries import FOLDS, merge_into_folds
from suture.numbers import MomentBlock, Pair


def leave_out_each(blocks: Sequence[MomentBlock]) -> list[Pair]:
    """Make the pair of all blocks but one, for each block in turn; the others stay in their folds."""
    totals = merge_into_folds(blocks)
    found = []
    for k in range(len(blocks)):
        rest = [b for i, b in enumerate(blocks) if i % FOLDS == k % FOLDS and i != k]
        others = [t for f, t in enumerate(totals) if f != k % FOLDS]
        folds = [*others, reduce(MomentBlock.merge, rest)] if rest else others
        found.append(Pair.of_block(reduce(MomentBlock.merge, folds), blocks=folds))
    return found


def add_intervals(values: dict[str, Value], indices: Sequence[Index], pair: Pair) -> dict[str, Value]:
    """Add 95 % intervals to values (Quenouille 1956; Tukey 1958; Shao and Tu 1995, section 2.2).

    The interval of a smooth index is bias-corrected. Its centre is B v - (B - 1) mean(v without each block),
    and its width uses the t quantile of B - 1 degrees of freedom. So it need not be symmetric about the
    value, and may not hold it where few rows bias the value. The interval of an index that is not smooth is
    centred on the value: there the correction adds more noise than it removes bias (docs/indices.md).

    The interval covers other examples of the same kind only. It does not cover other seeds or trainings.
    There is no interval where leaving out a block changes what the index decides by a threshold
    (`Index.regime`).

    Args:
        values: of the pair, by name.
        indices: those from moments whose intervals are wanted.
        pair: with its blocks, disjoint ones of whole examples; no intervals from fewer than two.
    """
    if len(pair.blocks) < 2:
        return values
    left = leave_out_each(pair.blocks)
    return values | {i.name: _add_interval(values[i.name], [i(p) for p in left], i.smooth) for i in indices
                     if not values[i.name].reason and all(i.regime_of(p) == i.regime_of(pair) for p in left)}


def _add_interval(value: Value, left: Sequence[Value], smooth: bool) -> Value:
    from scipy import stats

    if any(v.reason for v in left):
        return value
    b, estimates = len(left), np.array([v.value for v in left])
    centre = b * value.value - (b - 1) * estimates.mean() if smooth else value.value
    error = math.sqrt((b - 1) / b * float(((estimates - estimates.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.975, b - 1)) * error
    return replace(value, low=float(centre - half), high=float(centre + half))
