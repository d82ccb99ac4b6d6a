"""Intervals of indices from moments, by leaving out blocks of rows.

This is the jackknife (Quenouille 1956; Tukey 1958; Shao and Tu 1995, 2.2). Only one pair without a block is
in memory at a time, and all indices are computed on it. Its spectra are shared with the cells that have the
same `Pair.spectra`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from suture.indices.definition import Index, Needs, Value
from suture.indices.entries import FOLDS
from suture.numbers import MomentBlock, NumericalError, Pair, leave_out, merge_all, merge_blocks


def add_intervals(values: Mapping[str, Value], indices: Mapping[str, Index], pair: Pair) -> dict[str, Value]:
    """Add 95 % intervals to the values of indices on a pair whose blocks were kept apart.

    The interval of a smooth index is bias-corrected: its centre is B v - (B - 1) mean(v without each block).
    It may therefore not contain a value that is biased by few rows. Other indices have the value as centre,
    because there the correction adds more noise than it removes bias (docs/indices.md). The width uses the t
    quantile for B - 1 degrees of freedom. There is no interval if leaving out a block makes the index
    undefined or changes its `Index.regime`. If numbers without a result are the reason, the value's mark says
    so. The interval covers other examples of the same kind, not other seeds or trainings.
    """
    found = dict(values)
    regimes = {name: _try_regime(index, pair) for name, index in indices.items() if not values[name].reason}
    estimates: dict[str, list[float]] = {name: [] for name in regimes}
    for left in _leave_out_each(pair, any(i.needs is Needs.BLOCKS for i in indices.values())):
        for name in list(estimates):
            value = indices[name](left)
            if not value.reason and _try_regime(indices[name], left) == regimes[name]:
                estimates[name].append(value.value)
                continue
            del estimates[name]
            if value.unsolved:
                found[name] = _mark(found[name], f"no interval: {value.reason}")
    return found | {name: _make_interval(found[name], indices[name].smooth, np.array(of))
                    for name, of in estimates.items()}


def _try_regime(index: Index, pair: Pair) -> object:
    """Return the regime of an index; None where it cannot be computed, as the index cannot be either."""
    try:
        return index.find_regime(pair)
    except NumericalError:
        return None


def _mark(value: Value, why: str) -> Value:
    return replace(value, mark="; ".join(filter(None, (value.mark, why))))


def _make_interval(value: Value, smooth: bool, estimates: np.ndarray) -> Value:
    from scipy import stats

    b = len(estimates)
    centre = b * value.value - (b - 1) * estimates.mean() if smooth else value.value
    error = math.sqrt((b - 1) / b * float(((estimates - estimates.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.975, b - 1)) * error
    return replace(value, low=float(centre - half), high=float(centre + half))


def _leave_out_each(pair: Pair, folded: bool) -> Iterator[Pair]:
    """Yield the pair of all blocks but one, for each block in turn.

    With `folded` the other blocks stay in their folds, for indices that leave out folds.
    """
    blocks = pair.blocks
    totals = merge_blocks(blocks, FOLDS) if folded else []
    for k, rest in enumerate(_merge_rests(blocks)):
        own = blocks[k % FOLDS::FOLDS]
        parts = [t for f, t in enumerate(totals) if f != k % FOLDS]
        if folded and len(own) > 1:
            parts.append(leave_out(own, k // FOLDS))
        yield pair.leave_out(k, rest, parts)


def _merge_rests(blocks: Sequence[MomentBlock]) -> Iterator[MomentBlock]:
    """Yield the merged blocks without each in turn, by two merges each; nothing is subtracted.

    A subtraction would leave rounding where a column varies in the left-out block alone.
    """
    after = [blocks[-1]]
    for block in reversed(blocks[1:-1]):
        after.append(block.merge(after[-1]))
    before: list[MomentBlock] = []
    for block in blocks:
        rest = [*before, *after[-1:]]
        yield merge_all(rest)
        before = [merge_all([*before, block])]
        del after[-1:]
