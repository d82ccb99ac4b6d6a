"""Tests of indices against their nulls: in closed form, or by permutations of kept rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import FOREIGN
from suture.indices.definition import FROM_MOMENTS, Index, Needs, UndefinedError, Value
from suture.indices.entries import FOLDS
from suture.indices.nulls.classes import ClassedRows
from suture.indices.nulls.record import NullTest
from suture.indices.sample import Sample
from suture.numbers import (
    FEWEST_ROWS,
    Cross,
    DrawnNull,
    Exchange,
    Floats,
    Ints,
    MomentBlock,
    Moments,
    NumericalError,
    Pair,
    Spectra,
    UnitRowSums,
    standardise_rows,
)

LEAST_PERMUTATIONS = 20
"""Smallest number of permutations by which a value can be above the null's 95 % point."""
_DEFINED = 0.9  # smallest share of permutations in which an index must have a value
UNPAIRED = "it does not see which row of one side belongs to which of the other"


@dataclass(frozen=True, eq=False)
class PermutedRows:
    """Rows x (n, p) and y (n, q) of one cell for permutations.

    Attributes:
        exchange: which rows may change places.
        unit: what a permutation moves, as in ``"examples"``.
        share: share of the rows that are independent, see `suture.numbers.Pair`.
        precision: dtype in which the rows were computed.
        sample: the same rows for indices of rows, if they were made before.
        classes: the rows with their classes, if x and y are about class means.
        examples: number (n,) of the example of each row, whose rows are in one fold; None if each is a row.
    """

    x: Tensor
    y: Tensor
    exchange: Exchange
    unit: str
    share: float = 1.0
    precision: torch.dtype = torch.float64
    sample: Sample | None = None
    classes: ClassedRows | None = None
    examples: Ints | None = None


@dataclass(frozen=True, eq=False)
class NullSource:
    """What the nulls of one cell in one alignment are made from.

    Attributes:
        draws, seed: number of permutations, 0 for closed forms alone, and their seed.
        dependent: why rows are not independent, so that closed forms do not hold; "" if they are.
        rows: kept rows, or the reason why there are none.
        grams: data of closed forms, if they are not those of the value.
        refused: kinds of data for whose indices `rows` are not the rows, with the reason.
    """

    draws: int = 0
    seed: int = 0
    dependent: str = ""
    rows: PermutedRows | str = "no rows were kept"
    grams: ClassedRows | None = None
    refused: Mapping[Needs, str] = field(default_factory=dict)


def add_nulls(indices: Mapping[str, Index], values: Mapping[str, Value], inputs: Mapping[Needs, Any],
                source: NullSource) -> dict[str, Value]:
    """Return the values of one cell in one alignment with their nulls."""
    found: dict[str, NullTest] = {}
    drawn = {}
    for name, index in indices.items():
        value = values[name]
        if value.reason or not index.paired:
            found[name] = NullTest.missing(value.reason or UNPAIRED)
            continue
        test = _test_closed(index, value, source.grams or inputs[index.needs], source)
        found[name] = test
        why = source.refused.get(index.needs, source.rows if isinstance(source.rows, str) else "")
        if source.draws and not why:
            drawn[name] = index
        elif test.reason and (source.draws or index.needs in source.refused):
            found[name] = NullTest.missing(why)
    if drawn and isinstance(source.rows, PermutedRows):
        for name, test in _test_drawn(drawn, source.rows, source.draws, source.seed).items():
            closed = found[name]
            found[name] = test if closed.reason else replace(closed, z=test.z, draws=test.draws)
    return {name: replace(values[name], null=test) for name, test in found.items()}


def _test_closed(index: Index, value: Value, data: Any, source: NullSource) -> NullTest:
    """Test a value by the closed form of its null, or return why there is none."""
    ask = "; ask for 200 permutations by nulls=200"
    if index.null_form is None:
        return NullTest.missing(f"{index.name} has no null in closed form{ask}")
    if source.dependent:
        return NullTest.missing(source.dependent + ask)
    if data.n < FEWEST_ROWS:
        return NullTest.missing(f"{data.n} rows: a null needs at least {FEWEST_ROWS}")
    null = index.null_form(data)
    if math.isnan(null.std):
        return NullTest.missing(f"the sums for the null of {index.name} are missing{ask}")
    larger = index.measure.larger_is_more_similar
    return NullTest.of(value.value, null, index.best, larger, data.n, "closed form")


def _test_drawn(indices: Mapping[str, Index], kept: PermutedRows, count: int,
                seed: int) -> dict[str, NullTest]:
    """Test indices by permutations of the kept rows, the same for all of them."""
    exchange = kept.exchange
    if exchange.permutations < LEAST_PERMUTATIONS:
        why = (f"{exchange.blocks} {kept.unit} can change places, in {exchange.permutations:.0f} ways: a "
               f"null needs {LEAST_PERMUTATIONS}")
        return dict.fromkeys(indices, NullTest.missing(why))
    # A user's function of a pair may read all of its sums.
    users = {Needs.HIGHER} if any(i.user and i.needs in FROM_MOMENTS for i in indices.values()) else set()
    shuffled = _Shuffled(kept, {i.needs for i in indices.values()} | users)
    own = shuffled.make_inputs(None)
    values = {name: index(own[index.needs]) for name, index in indices.items()}
    drawn: dict[str, list[float]] = {name: [] for name in indices}
    for order in exchange.draw(count, seed):
        inputs = shuffled.make_inputs(torch.from_numpy(np.searchsorted(exchange.rows, order)))
        for name, index in indices.items():
            drawn[name].append(_compute(index, inputs[index.needs]))
    return {name: _describe_draws(index, values[name], np.array(drawn[name]), kept)
            for name, index in indices.items()}


def _compute(index: Index, data: Any) -> float:
    """Compute an index of permuted rows, whose sides vary as before; nan where it has no value."""
    try:
        return float(index.fn(data, *index.arguments))
    except (UndefinedError, NumericalError, ArithmeticError):
        return math.nan
    except FOREIGN:
        if index.user is None:
            raise
        return math.nan


def _describe_draws(index: Index, value: Value, draws: Floats, kept: PermutedRows) -> NullTest:
    if value.reason:
        return NullTest.missing(f"of the rows for permutations: {value.reason}")
    defined = draws[~np.isnan(draws)]
    if len(defined) < _DEFINED * len(draws):
        return NullTest.missing(f"{index.name} is missing in {len(draws) - len(defined)} of {len(draws)} "
                                "permutations")
    larger = index.measure.larger_is_more_similar
    null = DrawnNull(defined if larger else -defined)
    method = f"{len(defined)} permutations of {kept.unit}"
    found = NullTest.of(value.value, null, index.best, larger, len(kept.exchange.rows), method)
    sign, scale = 1 if larger else -1, null.std if not null.changes_nothing else math.inf
    standard = (sign * draws - null.mean) / scale
    return replace(found, z=(sign * value.value - null.mean) / scale, draws=standard)


class _Shuffled:
    """Inputs of indices for any order of the target's rows; sums of one side are computed once."""

    def __init__(self, kept: PermutedRows, needs: set[Needs]) -> None:
        rows = torch.from_numpy(kept.exchange.rows)
        everything = len(rows) == len(kept.x)
        self._needs, self._kept = needs, kept
        self._x, self._y = kept.x[rows].double(), kept.y[rows].double()
        self._classes = kept.classes
        if kept.classes is not None and not everything:
            self._classes = replace(kept.classes, x=kept.classes.x[rows], y=kept.classes.y[rows],
                                    classes=kept.classes.classes[rows], of_x={})
        if Needs.ROWS in needs:
            self._sample = (kept.sample if everything and kept.sample is not None
                            else Sample.of(self._x, self._y))
        if needs & FROM_MOMENTS:
            self._plain = _Crossed(self._x, self._y, kept.precision, Needs.HIGHER in needs)
            self._pair = Pair(self._plain.moments, share=kept.share, spectra=Spectra())
            examples = kept.exchange.rows if kept.examples is None else kept.examples[kept.exchange.rows]
            numbers = np.unique(examples, return_inverse=True)[1] % FOLDS
            self._folds = [torch.from_numpy(np.flatnonzero(numbers == k)) for k in np.unique(numbers)]
            if Needs.UNITS in needs:
                self._pair = replace(self._pair, unit=(UnitRowSums.of(self._x), UnitRowSums.of(self._y)))
                self._standard = _Crossed(standardise_rows(self._x), standardise_rows(self._y),
                                          kept.precision, True)

    def make_inputs(self, order: Tensor | None) -> dict[Needs, Any]:
        """Return the inputs with the target's rows in another order; None for their own."""
        order = torch.arange(len(self._x)) if order is None else order
        found: dict[Needs, Any] = {}
        if self._needs & FROM_MOMENTS:
            found |= dict.fromkeys(FROM_MOMENTS, self._make_pair(order))
        if Needs.ROWS in self._needs:
            found[Needs.ROWS] = replace(self._sample, y=self._sample.y.reorder(order.numpy()))
        if Needs.CLASSES in self._needs and self._classes is not None:
            found[Needs.CLASSES] = self._classes.reorder(order)
        return found

    def _make_pair(self, order: Tensor) -> Pair:
        blocks: Sequence[MomentBlock] = ()
        if Needs.BLOCKS in self._needs:
            y = self._y[order]
            blocks = [MomentBlock(Moments.of(self._x[fold], y[fold])) for fold in self._folds]
        standard = self._standard.reorder(order) if Needs.UNITS in self._needs else None
        return replace(self._pair, moments=self._plain.reorder(order), standard=standard,
                       blocks=tuple(blocks))


class _Crossed:
    """Moments of two matrices whose second has its rows in any order, with sums of `higher` order or not."""

    def __init__(self, x: Tensor, y: Tensor, precision: torch.dtype, higher: bool) -> None:
        self._higher = higher
        self.moments = replace(Moments.of(x, y), precision=precision)
        # In the precision of all moments: the value and its permutations are rounded alike.
        self._x, self._y = (x - x.mean(0)).to(precision), (y - y.mean(0)).to(precision)
        self._kx, self._ky = self._x.square().sum(1), self._y.square().sum(1)

    def reorder(self, order: Tensor) -> Moments:
        """Return the moments with another order; only the cross sums differ."""
        y = self._y[order]
        xy = (self._x.T @ y).double()
        if not self._higher:
            return replace(self.moments, cross=replace(self.moments.cross, xy=xy))
        sums = self._x.T @ self._ky[order], y.T @ self._kx, self._kx @ self._ky[order]
        return replace(self.moments, cross=Cross(xy, *(of.double() for of in sums)))
