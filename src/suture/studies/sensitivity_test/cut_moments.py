"""Moments of a cut representation with the whole one, from those of the whole one alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from suture.numbers import Cross, MomentBlock, Moments, Pair, Side, Spectra
from suture.studies.probes.principal_components import Basis


def cut_side(side: Side, basis: Basis, rank: int) -> Moments:
    """Return the moments of cut rows with the whole rows, in float64.

    With x' = m + P (x - m), their scatter is P S P and their cross scatter with x is P S.
    Sums of third and fourth order are no functions of second moments: they are nan.
    """
    nan = side.gram.new_full((), float("nan"))
    each = nan.expand(len(side.shift))
    whole = replace(side, cubic=each, quartic=nan)
    if rank >= len(basis.mean):
        cut, cross = whole, side.gram
    else:
        p = basis.project(rank).to(side.gram)
        mean = basis.mean.to(p)
        cross = p @ side.gram
        gram = cross @ p
        cut = Side(side.n, mean + p @ (side.mean - mean), torch.zeros_like(side.shift),
                   (gram + gram.T) / 2, each, nan)
    return Moments(cut, whole, Cross(cross, each, each, nan))


@dataclass(frozen=True, eq=False)
class CutMoments:
    """Moments of one site by fold, from which those at every rank follow.

    Attributes:
        sides: sums about the mean of each fold.
        basis: principal components of the site.
        precision: dtype of the products that the sums are made of.
    """

    sides: Sequence[Side]
    basis: Basis
    precision: torch.dtype
    _spectra: Spectra = field(default_factory=Spectra)

    def get_folds(self, rank: int) -> list[Moments]:
        """Return the moments of each fold, cut and whole."""
        return [replace(cut_side(s, self.basis, rank), precision=self.precision) for s in self.sides]

    def get_pair(self, rank: int) -> Pair:
        """Return the pair of the cut and the whole representation of all rows."""
        first, *others = self.sides
        whole = first.merge(*others) if others else first
        moments = replace(cut_side(whole, self.basis, rank), precision=self.precision)
        blocks: tuple[Any, ...] = ()
        if others:
            blocks = tuple(map(MomentBlock, self.get_folds(rank)))
        return Pair(moments, blocks=blocks, spectra=self._spectra,
                    keys=(("rank", rank), ("rank", len(self.basis.mean))))
