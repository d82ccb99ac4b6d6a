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

from suture.indices.definition import PERMUTATION, RIGID, SCALING, Index, Needs, expand_invariances
from suture.numbers import Moments, Pair, make_index_measure

_ROUNDING = 1e-12


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

    def pearson(self) -> float:
        return (self._covariance(self.x, self.y, self.xy)
                / math.sqrt(self._variance("x") * self._variance("y")))

    def cosine(self) -> float:
        return self.xy / math.sqrt(self.xx * self.yy)

    def explain_equal(self) -> str:
        """Return the side whose dissimilarities do not vary, as a reason, or an empty string."""
        for side, name, square in (("x", "source", self.xx), ("y", "target", self.yy)):
            if self._variance(side) <= _ROUNDING * square / self.pairs:
                return f"all rows of the {name} are equally far from each other: nothing to correlate"
        return ""

    def _covariance(self, a: float, b: float, ab: float) -> float:
        return ab / self.pairs - (a / self.pairs) * (b / self.pairs)

    def _variance(self, side: str) -> float:
        return self._covariance(*((self.x, self.x, self.xx) if side == "x" else (self.y, self.y, self.yy)))


def _sum_dissimilarities(m: Moments) -> _DissimilaritySums:
    n, kx, ky = m.n, torch.trace(m.sxx), torch.trace(m.syy)

    def product(joint: Tensor, a: Tensor, b: Tensor, cross: Tensor) -> float:
        return float(2 * n * joint + 2 * a * b + 4 * cross.square().sum())

    return _DissimilaritySums(n * (n - 1.0), float(2 * n * kx), float(2 * n * ky),
                              product(m.cross.xx_yy, kx, ky, m.sxy),
                              product(m.x.quartic, kx, kx, m.sxx), product(m.y.quartic, ky, ky, m.syy))


def rsa_pearson(pair: Pair) -> float:
    """Compute the Pearson correlation of the squared Euclidean distances."""
    return _sum_dissimilarities(pair.moments).pearson()


def rsa_cosine(pair: Pair) -> float:
    """Compute the cosine similarity of the squared Euclidean distances."""
    return _sum_dissimilarities(pair.moments).cosine()


def rsa_correlation(pair: Pair) -> float:
    """Compute the Pearson correlation of the correlation distances.

    A correlation distance is 1 minus the correlation of two rows over their columns.
    """
    return _sum_dissimilarities(_get_standard(pair)).pearson()


def rsa_correlation_cosine(pair: Pair) -> float:
    """Compute the cosine similarity of the correlation distances."""
    return _sum_dissimilarities(_get_standard(pair)).cosine()


def _get_standard(pair: Pair) -> Moments:
    assert pair.standard is not None
    return pair.standard


def explain_equal_distances(pair: Pair) -> str:
    """Return the reason why the distances have no correlation, or an empty string.

    Distances that are all equal correlate with nothing.
    """
    return _sum_dissimilarities(pair.moments).explain_equal()


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
    return _sum_dissimilarities(m).explain_equal()


_ROWS = expand_invariances(SCALING, PERMUTATION)
_SQUARED = "squared Euclidean distances"
_CORRELATED = "correlation distances (1 minus the correlation of two rows)"
_PAPER = "Kriegeskorte et al. 2008"
ENTRIES = (
    Index(make_index_measure("rsa_pearson", "RSA (Pearson)", f"Pearson correlation of {_SQUARED} ({_PAPER}).",
                             span=(-1.0, 1.0)),
          rsa_pearson, "corr(Dx, Dy), D = |x_i - x_j|², over pairs of rows", _PAPER, RIGID, RIGID,
          Needs.HIGHER, 4, explain_equal_distances),
    Index(make_index_measure("rsa_cosine", "RSA (cosine)", f"Cosine similarity of {_SQUARED} ({_PAPER})."),
          rsa_cosine, "⟨Dx, Dy⟩ / (|Dx| |Dy|), D = |x_i - x_j|²", _PAPER, RIGID, RIGID, Needs.HIGHER, 3),
    Index(make_index_measure("rsa_correlation", "RSA of correlations (Pearson)",
                             f"Pearson correlation of {_CORRELATED} ({_PAPER}).", span=(-1.0, 1.0)),
          rsa_correlation, "corr(Dx, Dy), D = 1 - corr(x_i, x_j)", _PAPER, _ROWS, _ROWS, Needs.UNITS, 4,
          explain_no_correlations),
    Index(make_index_measure("rsa_correlation_cosine", "RSA of correlations (cosine)",
                             f"Cosine similarity of {_CORRELATED} ({_PAPER})."),
          rsa_correlation_cosine, "⟨Dx, Dy⟩ / (|Dx| |Dy|), D = 1 - corr(x_i, x_j)", _PAPER, _ROWS, _ROWS,
          Needs.UNITS, 3, explain_no_correlations),
)
