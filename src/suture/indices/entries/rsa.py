"""Representational similarity analysis from moments, without distance matrices (Kriegeskorte et al. 2008).

Rows are centred, a = |x|², b = |y|² and D = a_i + a_j - 2 x_i x_j'. Then the sum of Dx Dy over ordered pairs
is 2n sum ab + 2 sum a sum b + 4 |Sxy|². A correlation distance is half the squared distance of two rows z
that are centred and at unit length: 1 - z_i z_j' = |z_i - z_j|² / 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from suture.indices.definition import Needs, UndefinedError, define_index, require
from suture.indices.transformations import RIGID, expand_invariances
from suture.numbers import Moments, Pair

_ROUNDING = 1e-12
_PAPER = "Kriegeskorte et al. 2008"
_ROWS = expand_invariances("scaling", "permutation")


class _Dissimilarities(NamedTuple):
    """Means over all pairs of different rows: dissimilarities of both sides, their products and squares."""

    x: float
    y: float
    xy: float
    xx: float
    yy: float

    @classmethod
    def of(cls, m: Moments) -> _Dissimilarities:
        """Compute the means of squared Euclidean distances from moments."""
        n, kx, ky = m.n, torch.trace(m.sxx), torch.trace(m.syy)

        def product(joint: Tensor, a: Tensor, b: Tensor, cross: Tensor) -> float:
            return float(2 * n * joint + 2 * a * b + 4 * cross.square().sum()) / (n * (n - 1.0))

        return cls(float(2 * kx) / (n - 1), float(2 * ky) / (n - 1), product(m.cross.xx_yy, kx, ky, m.sxy),
                   product(m.x.quartic, kx, kx, m.sxx), product(m.y.quartic, ky, ky, m.syy))

    def pearson(self) -> float:
        self.require_variation()
        x, y = self.xx - self.x**2, self.yy - self.y**2
        return (self.xy - self.x * self.y) / math.sqrt(x * y)

    def cosine(self) -> float:
        return self.xy / math.sqrt(self.xx * self.yy)

    def require_variation(self) -> None:
        for name, mean, square in (("source", self.x, self.xx), ("target", self.y, self.yy)):
            require(square - mean**2 > _ROUNDING * square,
                    f"all rows of the {name} are equally far from each other: nothing to correlate")


def _compare_correlations(pair: Pair) -> _Dissimilarities:
    """Compute the dissimilarities of rows that are examples, from their correlations over columns."""
    m = pair.standard
    if m is None:
        raise UndefinedError("correlation distances compare examples, and the rows of these matrices are "
                             "positions: ask for @pool")
    width = min(m.sxy.shape)
    require(width >= 3, f"{width} columns: correlations of rows are defined from 3 on")
    short = m.n - min(float(torch.trace(s.gram)) + m.n * float(s.mean @ s.mean) for s in (m.x, m.y))
    require(short <= 0.5,
            f"{round(short)} rows do not vary over their columns: they have no correlation with others")
    found = _Dissimilarities.of(m)
    found.require_variation()
    return found


@define_index("rsa_pearson", "RSA (Pearson)", RIGID, needs=Needs.HIGHER, least=4, span=(-1.0, 1.0),
              formula="corr(Dx, Dy), D = |x_i - x_j|², over pairs of rows", source=_PAPER)
def rsa_pearson(pair: Pair) -> float:
    """Pearson correlation of squared Euclidean distances (Kriegeskorte et al. 2008)."""
    return _Dissimilarities.of(pair.moments).pearson()


@define_index("rsa_cosine", "RSA (cosine)", RIGID, needs=Needs.HIGHER, least=3, source=_PAPER,
              formula="⟨Dx, Dy⟩ / (|Dx| |Dy|), D = |x_i - x_j|²", null=None)
def rsa_cosine(pair: Pair) -> float:
    """Cosine similarity of squared Euclidean distances (Kriegeskorte et al. 2008)."""
    return _Dissimilarities.of(pair.moments).cosine()


@define_index("rsa_correlation", "RSA of correlations (Pearson)", _ROWS, needs=Needs.UNITS, least=4,
              formula="corr(Dx, Dy), D = 1 - corr(x_i, x_j)", source=_PAPER, span=(-1.0, 1.0))
def rsa_correlation(pair: Pair) -> float:
    """Pearson correlation of correlation distances (1 minus the correlation of two rows) (Kriegeskorte et al.
    2008).
    """
    return _compare_correlations(pair).pearson()


@define_index("rsa_correlation_cosine", "RSA of correlations (cosine)", _ROWS, needs=Needs.UNITS, least=3,
              formula="⟨Dx, Dy⟩ / (|Dx| |Dy|), D = 1 - corr(x_i, x_j)", source=_PAPER, null=None)
def rsa_correlation_cosine(pair: Pair) -> float:
    """Cosine similarity of correlation distances (1 minus the correlation of two rows) (Kriegeskorte et al.
    2008).
    """
    return _compare_correlations(pair).cosine()
