"""Inputs of indices for any order of the target's rows; what does not depend on it is computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.indices.definition import FROM_MOMENTS, Index, Needs
from suture.indices.nulls.classes import ClassedRows
from suture.indices.nulls.held_out import FOLDS, FoldedRows
from suture.indices.sample import Sample
from suture.numbers import (
    Exchange,
    Ints,
    MomentBlock,
    Moments,
    Pair,
    Spectra,
    UnitRowSums,
    standardise_rows,
)


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


class ShuffledRows:
    """Inputs of indices, by kind, for the rows that can change places, in any order of the target's."""

    def __init__(self, kept: PermutedRows, indices: Iterable[Index]) -> None:
        self._kept = kept
        self._rows = torch.from_numpy(kept.exchange.rows)
        self._x, self._y = kept.x[self._rows].double(), kept.y[self._rows].double()
        needs = {i.needs for i in indices}
        # A user's function of a pair may read all of its sums.
        self._higher = Needs.HIGHER in needs or any(i.user and i.needs in FROM_MOMENTS for i in indices)
        self._needs = needs

    @property
    def _everything(self) -> bool:
        return len(self._rows) == len(self._kept.x)

    @cached_property
    def own(self) -> dict[Needs, Any]:
        """The inputs with the rows as they are."""
        found: dict[Needs, Any] = {}
        if self._needs & FROM_MOMENTS:
            found |= dict.fromkeys(FROM_MOMENTS, self._make_pair(None, self._needs))
        if Needs.ROWS in self._needs:
            known = self._kept.sample if self._everything else None
            found[Needs.ROWS] = (known or Sample.of(self._x, self._y)).remembering()
        if Needs.CLASSES in self._needs and self._kept.classes is not None:
            found[Needs.CLASSES] = self._kept.classes.select(self._rows)
        return found

    @cached_property
    def _folded(self) -> FoldedRows:
        classes = torch.zeros(len(self._x), dtype=torch.int64)
        return FoldedRows.of(self._x, self._y, classes, torch.from_numpy(self._folds), self._kept.precision)

    @cached_property
    def _folds(self) -> Ints:
        """Fold (n,) of each row; those of one example are in one."""
        rows, examples = self._kept.exchange.rows, self._kept.examples
        return np.unique(rows if examples is None else examples[rows], return_inverse=True)[1] % FOLDS

    def reorder(self, order: Tensor, needs: set[Needs]) -> dict[Needs, Any]:
        """Return inputs of the kinds that are needed, with the target's rows in another order."""
        found: dict[Needs, Any] = {}
        if needs & FROM_MOMENTS:
            found |= dict.fromkeys(FROM_MOMENTS, self._make_pair(order, needs))
        if Needs.ROWS in needs:
            sample = self.own[Needs.ROWS]
            found[Needs.ROWS] = replace(sample, y=sample.y.reorder(order.numpy()))
        if Needs.CLASSES in needs:
            found[Needs.CLASSES] = self.own[Needs.CLASSES].reorder(order)
        if Needs.FOLDS in needs:
            found[Needs.FOLDS] = self._folded.reorder(order)
        return found

    @cached_property
    def _plain(self) -> _Crossed:
        return _Crossed(self._x, self._y, self._kept.precision, self._higher)

    @cached_property
    def _standard(self) -> _Crossed:
        return _Crossed(standardise_rows(self._x), standardise_rows(self._y), self._kept.precision, True)

    @cached_property
    def _pair(self) -> Pair:
        unit = (UnitRowSums.of(self._x), UnitRowSums.of(self._y)) if Needs.UNITS in self._needs else None
        return Pair(self._plain.moments, unit, share=self._kept.share, spectra=Spectra())

    def _make_pair(self, order: Tensor | None, needs: set[Needs]) -> Pair:
        return replace(self._pair, moments=self._plain.reorder(order),
                       standard=self._standard.reorder(order) if Needs.UNITS in needs else None,
                       blocks=self._make_blocks(order) if Needs.BLOCKS in needs else ())

    def _make_blocks(self, order: Tensor | None) -> tuple[MomentBlock, ...]:
        y = self._y if order is None else self._y[order]
        folds = (torch.from_numpy(np.flatnonzero(self._folds == k)) for k in np.unique(self._folds))
        return tuple(MomentBlock(Moments.of(self._x[rows], y[rows])) for rows in folds)


class _Crossed:
    """Moments of two matrices whose second has its rows in any order, with sums of `higher` order or not."""

    def __init__(self, x: Tensor, y: Tensor, precision: torch.dtype, higher: bool) -> None:
        self._higher = higher
        self.moments = replace(Moments.of(x, y), precision=precision)
        # In the precision of all moments: the value and its permutations are rounded alike.
        self._x, self._y = (x - x.mean(0)).to(precision), (y - y.mean(0)).to(precision)
        self._kx, self._ky = self._x.square().sum(1), self._y.square().sum(1)

    def reorder(self, order: Tensor | None) -> Moments:
        """Return the moments with another order; only the cross sums differ."""
        y, ky = (self._y, self._ky) if order is None else (self._y[order], self._ky[order])
        cross = replace(self.moments.cross, xy=(self._x.T @ y).double())
        if self._higher:
            sums = {"x_yy": self._x.T @ ky, "xx_y": y.T @ self._kx, "xx_yy": self._kx @ ky}
            cross = replace(cross, **{name: of.double() for name, of in sums.items()})
        return replace(self.moments, cross=cross)
