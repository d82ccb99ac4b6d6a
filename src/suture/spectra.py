"""Spectra of scatter matrices: the one factorisation that direct matching and the indices share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from suture.moments import Moments, Side


@dataclass(frozen=True)
class Spectrum:
    """Eigendecomposition of a scatter matrix, cut to its numerical rank.

    Attributes:
        values: (r,) eigenvalues kept, largest first, of the scatter (sum, not mean).
        vectors: (p, r) their eigenvectors.
        width: p.
    """

    values: Tensor
    vectors: Tensor
    width: int

    @property
    def rank(self) -> int:
        """Number of directions kept; 0 for a constant matrix."""
        return len(self.values)

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue kept; nan for a constant matrix."""
        return float(self.values[0] / self.values[-1]) if self.rank else float("nan")

    @classmethod
    def of(cls, side: Side, precision: torch.dtype = torch.float64) -> Spectrum:
        """Spectrum of ``side.gram``, which must be about the mean.

        Directions whose eigenvalue is below `rank_cut` times the largest are dropped: they hold rounding only.
        """
        values, vectors = torch.linalg.eigh(side.gram)
        values, vectors = values.flip(0), vectors.flip(1)
        floor = max(_constant_floor(side, precision),
                    rank_cut(len(values), side.n, precision) * max(float(values[0]), 0.0))
        rank = int((values > floor).sum())
        return cls(values[:rank], vectors[:, :rank], len(values))


def rank_cut(width: int, n: int, precision: torch.dtype) -> float:
    """Relative size below which an eigenvalue of a scatter of `n` rows and `width` columns is rounding.

    In float64 max(width, n) eps, as `numpy.linalg.matrix_rank`. Products in float32 are accumulated blockwise, so
    their error does not grow with n; it stays below 4 eps of the largest eigenvalue (benchmarks/precision.py).
    """
    eps = torch.finfo(precision).eps
    return max(width, n) * eps if precision == torch.float64 else 4 * eps


def _constant_floor(side: Side, precision: torch.dtype) -> float:
    """Scatter that rounding alone gives to a constant column: n (eps |mean|)²."""
    scale = float(side.mean.abs().max()) if len(side.shift) else 0.0
    eps = torch.finfo(precision).eps
    return side.n * (4 * eps * scale) ** 2


@dataclass(frozen=True)
class Pair:
    """One cell's moments with the spectra of both sides: what every index is a function of.

    Attributes:
        moments: about the means.
        x, y: spectra of the source's and of the target's scatter.
    """

    moments: Moments
    x: Spectrum
    y: Spectrum

    @classmethod
    def of(cls, moments: Moments, x: Spectrum | None = None, y: Spectrum | None = None) -> Pair:
        """The pair; spectra that are at hand (one serves many cells) are not computed again."""
        return cls(moments, x or Spectrum.of(moments.x, moments.precision),
                   y or Spectrum.of(moments.y, moments.precision))

    @cached_property
    def canonical(self) -> tuple[Tensor, Tensor, Tensor]:
        """(U, correlations, V'): canonical correlations and directions in the whitened coordinates of each side."""
        white = (self.x.vectors / self.x.values.sqrt()).T @ self.moments.sxy @ (self.y.vectors / self.y.values.sqrt())
        u, s, vh = torch.linalg.svd(white, full_matrices=False)
        return u, s, vh
