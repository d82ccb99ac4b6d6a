"""Intervals of indices from moments, by leaving out blocks of rows.

This is the jackknife (Quenouille 1956; Tukey 1958; Shao and Tu 1995, 2.2). Only one pair without a block is
in memory at a time, and all indices are computed on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from suture.indices.definition import Index, Needs, Value
from suture.indices.entries import FOLDS
from suture.numbers import MomentBlock, NumericalError, Pair, leave_out, merge_all, merge_blocks


class Jackknife:
    """Values of indices of one cell, and what they are without each block of examples.

    The interval of a smooth index is bias-corrected: its centre is B v - (B - 1) mean(v without each block).
    It may therefore not contain a value that is biased by few rows. Other indices have the value as centre,
    because there the correction adds more noise than it removes bias (docs/indices.md). The width uses the t
    quantile for B - 1 degrees of freedom. There is no interval if leaving out a block makes the index
    undefined or changes its `Index.regime`. If numbers without a result are the reason, the value's mark says
    so. The interval covers other examples of the same kind, not other seeds or trainings.

    Args:
        values: of the indices, by name.
        pair: of all blocks.

    Attributes:
        state: the values, marked where there is no interval, and the numbers without each block so far.
    """

    def __init__(self, values: Mapping[str, Value], indices: Mapping[str, Index], pair: Pair) -> None:
        self._indices = indices
        self._regimes = {name: _try_regime(index, pair) for name, index in indices.items()
                         if not values[name].reason}
        self._values = dict(values)
        self._left: dict[str, list[float]] = {name: [] for name in self._regimes}
        self.state: dict[str, dict[str, Any]] = {"values": self._values, "left": self._left}

    @property
    def is_open(self) -> bool:
        """False if no index can have an interval any more."""
        return bool(self._left)

    def add(self, pair: Pair) -> None:
        """Add the pair without one block."""
        for name in list(self._left):
            index = self._indices[name]
            value = index(pair)
            if not value.reason and _try_regime(index, pair) == self._regimes[name]:
                self._left[name].append(value.value)
                continue
            del self._left[name]
            if value.unsolved:
                self._values[name] = _mark(self._values[name], f"no interval: {value.reason}")

    def compute_values(self) -> dict[str, Value]:
        """Return the values with 95 % intervals, after the pair without each block was added."""
        return self._values | {name: _make_interval(self._values[name], self._indices[name].smooth,
                                                    np.array(left)) for name, left in self._left.items()}


def add_intervals(values: Mapping[str, Value], indices: Mapping[str, Index], pair: Pair) -> dict[str, Value]:
    """Add 95 % intervals to the values of indices on a pair whose blocks were kept apart (`Jackknife`)."""
    jackknife = Jackknife(values, indices, pair)
    for left in _leave_out_each(pair, any(i.needs is Needs.BLOCKS for i in indices.values())):
        jackknife.add(left)
        if not jackknife.is_open:
            break
    return jackknife.compute_values()


def _try_regime(index: Index, pair: Pair) -> object:
    """Return the regime of an index; None where it cannot be computed, as the index cannot be either."""
    try:
        return index.find_regime(pair)
    except NumericalError:
        return None


def _mark(value: Value, why: str) -> Value:
    return replace(value, mark="; ".join(filter(None, (value.mark, why))))


def _make_interval(value: Value, smooth: bool, estimates: np.ndarray) -> Value:
    from scipy.special import stdtrit  # scipy.stats takes 50 MB more

    b = len(estimates)
    centre = b * value.value - (b - 1) * estimates.mean() if smooth else value.value
    error = math.sqrt((b - 1) / b * float(((estimates - estimates.mean()) ** 2).sum()))
    half = float(stdtrit(b - 1, 0.975)) * error
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
    """Yield the merged blocks without each in turn; nothing is subtracted.

    A subtraction would leave rounding where a column varies in the left-out block alone. The blocks outside
    of a group are merged once for the group.
    """
    size = choose_group_size(len(blocks))
    for start in range(0, len(blocks), size):
        group, outside = blocks[start:start + size], [*blocks[:start], *blocks[start + size:]]
        others = [merge_all(outside)] if outside else []
        for k in range(len(group)):
            yield merge_all([*others, *group[:k], *group[k + 1:]])


def choose_group_size(blocks: int) -> int:
    """Choose the number of blocks that are left out with the same others merged: the root of all."""
    return math.isqrt(max(0, blocks - 1)) + 1
