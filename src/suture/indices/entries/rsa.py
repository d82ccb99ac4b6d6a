"""Representational similarity analysis from moments (Kriegeskorte et al. 2008).

No matrix of dissimilarities is made. With centred rows, a = |x|², b = |y|² and D = a_i + a_j - 2 x_i x_j',
the sum of Dx Dy over ordered pairs is 2 n sum ab + 2 sum a sum b + 4 |Sxy|². For correlation distances a row
z has its mean subtracted and is scaled to unit length. They are half the squared distances of such rows: 1 -
z_i z_j' = |z_i - z_j|² / 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from suture.indices.definition import Needs, define_index
from suture.indices.transformations import RIGID, expand_invariances
from suture.numbers import Moments, Pair

_ROUNDING = 1e-12
_PAPER = "Kriegeskorte et al. 2008"
_ROWS = expand_invariances("scaling", "permutation")


@dataclass(frozen=True)
class _DissimilaritySums:
    """Sums over all pairs of different rows: dissimilarities of both sides, their products and squares.

    `pairs` is the number of pairs.
    """

    pairs: float
    x: float
    y: float
    xy: float
    xx: float
    yy: float

    @classmethod
    def of(cls, m: Moments) -> _DissimilaritySums:
        """Compute the sums of squared Euclidean distances from moments."""
        n, kx, ky = m.n, torch.trace(m.sxx), torch.trace(m.syy)

        def product(joint: Tensor, a: Tensor, b: Tensor, cross: Tensor) -> float:
            return float(2 * n * joint + 2 * a * b + 4 * cross.square().sum())

        return cls(n * (n - 1.0), float(2 * n * kx), float(2 * n * ky), product(m.cross.xx_yy, kx, ky, m.sxy),
                   product(m.x.quartic, kx, kx, m.sxx), product(m.y.quartic, ky, ky, m.syy))

    def pearson(self) -> float:
        x, y = self._variance(self.x, self.xx), self._variance(self.y, self.yy)
        return self._covariance(self.x, self.y, self.xy) / math.sqrt(x * y)

    def cosine(self) -> float:
        return self.xy / math.sqrt(self.xx * self.yy)

    def explain_equal(self) -> str:
        """Return the side whose dissimilarities do not vary, as a reason, or an empty string."""
        for name, total, square in (("source", self.x, self.xx), ("target", self.y, self.yy)):
            if self._variance(total, square) <= _ROUNDING * square / self.pairs:
                return f"all rows of the {name} are equally far from each other: nothing to correlate"
        return ""

    def _covariance(self, a: float, b: float, ab: float) -> float:
        return ab / self.pairs - (a / self.pairs) * (b / self.pairs)

    def _variance(self, total: float, square: float) -> float:
        return self._covariance(total, total, square)


def _get_standard(pair: Pair) -> Moments:
    assert pair.standard is not None
    return pair.standard


def explain_equal_distances(pair: Pair) -> str:
    """Return the reason why the distances have no correlation, or an empty string.

    Distances that are all equal correlate with nothing.
    """
    return _DissimilaritySums.of(pair.moments).explain_equal()


@define_index("rsa_pearson", "RSA (Pearson)", RIGID, needs=Needs.HIGHER, least=4, span=(-1.0, 1.0),
              formula="corr(Dx, Dy), D = |x_i - x_j|², over pairs of rows", source=_PAPER,
              undefined=explain_equal_distances)
def rsa_pearson(pair: Pair) -> float:
    """Pearson correlation of squared Euclidean distances (Kriegeskorte et al. 2008)."""
    return _DissimilaritySums.of(pair.moments).pearson()


@define_index("rsa_cosine", "RSA (cosine)", RIGID, needs=Needs.HIGHER, least=3, source=_PAPER,
              formula="⟨Dx, Dy⟩ / (|Dx| |Dy|), D = |x_i - x_j|²", null=None)
def rsa_cosine(pair: Pair) -> float:
    """Cosine similarity of squared Euclidean distances (Kriegeskorte et al. 2008)."""
    return _DissimilaritySums.of(pair.moments).cosine()


def explain_no_correlations(pair: Pair) -> str:
    """Return the reason why rows have no correlations, or an empty string.

    Rows must be examples, vary over at least three columns, and not all be equally far from each other.
    """
    if pair.standard is None:
        return ("correlation distances compare examples, and the rows of these matrices are "
                "positions: ask for @pool")
    m = pair.standard
    if min(m.sxy.shape) < 3:
        return f"{min(m.sxy.shape)} columns: correlations of rows are defined from 3 on"
    short = float(m.n) - min(float(torch.trace(s.gram)) + m.n * float(s.mean @ s.mean) for s in (m.x, m.y))
    if short > 0.5:
        return f"{round(short)} rows do not vary over their columns: they have no correlation with others"
    return _DissimilaritySums.of(m).explain_equal()


@define_index("rsa_correlation", "RSA of correlations (Pearson)", _ROWS, needs=Needs.UNITS, least=4,
              formula="corr(Dx, Dy), D = 1 - corr(x_i, x_j)", source=_PAPER,
              undefined=explain_no_correlations, span=(-1.0, 1.0))
def rsa_correlation(pair: Pair) -> float:
    """Pearson correlation of correlation distances (1 minus the correlation of two rows) (Kriegeskorte et al.
    2008).
    """
    return _DissimilaritySums.of(_get_standard(pair)).pearson()


@define_index("rsa_correlation_cosine", "RSA of correlations (cosine)", _ROWS, needs=Needs.UNITS, least=3,
              formula="⟨Dx, Dy⟩ / (|Dx| |Dy|), D = 1 - corr(x_i, x_j)", source=_PAPER,
              undefined=explain_no_correlations, null=None)
def rsa_correlation_cosine(pair: Pair) -> float:
    """Cosine similarity of correlation distances (1 minus the correlation of two rows) (Kriegeskorte et al.
    2008).
    """
    return _DissimilaritySums.of(_get_standard(pair)).cosine()
