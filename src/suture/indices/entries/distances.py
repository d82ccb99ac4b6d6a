"""Indices of distances and angles between rows: RSA, distance correlation, CKA with RBF kernels, mean rows.

RSA (Kriegeskorte et al. 2008) compares dissimilarities of rows. Those with Pearson and cosine need no matrix
of distances, but moments. Rows are centred, a = |x|², b = |y|² and D = a_i + a_j - 2 x_i x_j'. Then the sum
of Dx Dy over ordered pairs is 2n sum ab + 2 sum a sum b + 4 |Sxy|². A correlation distance is half the
squared distance of two rows z that are centred and at unit length: 1 - z_i z_j' = |z_i - z_j|² / 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from suture.indices.definition import (
    RIGID,
    Argument,
    Needs,
    UndefinedError,
    define_index,
    expand_invariances,
    require,
)
from suture.indices.sample import Rows, Sample
from suture.numbers import Floats, Moments, Pair, Side, UnitRowSums

_PAPER = "Kriegeskorte et al. 2008"
_TITLED = f"{_PAPER}, Representational similarity analysis"
_ROUNDING = 1e-12
_ROWS = expand_invariances("scaling", "permutation")
_FRACTION = Argument("fraction", 1.0, 0.1, 10,
                     "Bandwidth of the kernel over the median distance. Kornblith et al. 2019 tried 0.2, 0.4 "
                     "and 0.8; small ones look at close rows only, large ones approach linear CKA.")
_COST = "n² p once per site, n² per cell"


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


@define_index("magnitude", "difference of magnitudes", expand_invariances("orthogonal"), least=1,
              formula="| |mean x| - |mean y| |", source="Wang et al. 2020", cost="p + q", larger=False,
              form="inverse", span=(0.0, math.inf), judged=False, paired=False)
def magnitude(pair: Pair) -> float:
    """Difference of the lengths of the mean rows (Wang et al. 2020). No upper limit."""
    m = pair.moments
    return abs(float(m.x.mean.norm()) - float(m.y.mean.norm()))


@define_index("concentricity", "difference of concentricities", expand_invariances("scaling", "orthogonal"),
              formula="| mean cos(x, mean x) - mean cos(y, mean y) |", source="Wang et al. 2020",
              needs=Needs.UNITS, cost="p + q", larger=False, form="negative", span=(0.0, 2.0), judged=False,
              paired=False)
def concentricity(pair: Pair) -> float:
    """Difference of the mean cosine similarities of rows with their mean (Wang et al. 2020)."""
    require(pair.unit is not None, "cosines with the mean compare examples, and the rows of these matrices "
                                   "are positions: ask for @pool")
    sides = zip(("source", "target"), pair.unit or (), (pair.moments.x, pair.moments.y), strict=True)
    x, y = (_compute_concentricity(*side) for side in sides)
    return abs(x - y)


def _compute_concentricity(name: str, unit: UnitRowSums, side: Side) -> float:
    size = float(side.mean.norm())
    require(size > 1e-12 * math.sqrt(float(side.gram.trace()) / side.n),
            f"the mean row of the {name} is zero: no row has an angle with it")
    require(not unit.zeros, f"rows of the {name} are zero: they have no angle with the mean row")
    return float(unit.total @ side.mean) / (unit.n * size)


def _compute_centred_cosine(sample: Sample, key: Hashable, compute: Callable[[Rows], Floats]) -> float:
    """Compute the cosine between two symmetric (n, n) matrices that are centred in rows and columns.

    `compute` finds the (n (n - 1) / 2,) elements above the diagonal before centring. The diagonals are zero.
    `key` is its name.
    """
    from scipy.spatial.distance import squareform

    def average(rows: Rows) -> Floats:
        return np.asarray(squareform(rows.find_pairs(key, compute)).mean(1))

    x, y = ((rows.find_pairs(key, compute), rows.find_by_row((key, "means"), average))
            for _, rows in sample.sides)
    own = [rows.find((key, "own"), lambda rows: _sum_centred(
        *[(rows.find_pairs(key, compute), rows.find_by_row((key, "means"), average))] * 2))
        for _, rows in sample.sides]
    return _sum_centred(x, y) / math.sqrt(own[0] * own[1])


def _sum_centred(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> float:
    """Sum the products of two centred matrices, from elements above the diagonal and means of rows."""
    (x, mx), (y, my) = one, other
    n = len(mx)
    return float(2 * x @ y - 2 * n * mx @ my + n**2 * mx.mean() * my.mean())


def _rank_distances(sample: Sample) -> tuple[Floats, Floats]:
    """Rank the distances of both sides; they must differ by more than rounding of sums of many squares."""
    sample.require_sides(lambda side: side.find("varied", _are_varied), "all distances are equal")
    return sample.x.ranks, sample.y.ranks


def _are_varied(rows: Rows) -> bool:
    return bool(np.ptp(rows.squared) > 1e-12 * rows.squared.max())


@define_index("rsa_spearman", "RSA (Spearman)", RIGID, source=_TITLED, needs=Needs.ROWS, least=3,
              formula="Spearman's rho, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
              cost="n² (p + log n) once per site, n² per cell", span=(-1.0, 1.0))
def rsa_spearman(sample: Sample) -> float:
    """Spearman's rank correlation of the squared Euclidean distances between rows, each pair once
    (Kriegeskorte et al. 2008).

    Tied ranks are averaged.
    """
    a, b = (ranks - ranks.mean() for ranks in _rank_distances(sample))
    own = (side.find("spread of ranks", lambda rows: float(np.square(rows.ranks - rows.ranks.mean()).sum()))
           for _, side in sample.sides)
    return float(a @ b / math.sqrt(math.prod(own)))


@define_index("rsa_kendall", "RSA (Kendall)", RIGID, source=_TITLED, needs=Needs.ROWS, least=3,
              formula="Kendall's tau-b, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
              cost="n² (p + log n) once per site, n² log n per cell", span=(-1.0, 1.0))
def rsa_kendall(sample: Sample) -> float:
    """Kendall's tau-b of the squared Euclidean distances between rows, each pair once (Kriegeskorte et al.
    2008).
    """
    from scipy.stats import kendalltau

    return float(kendalltau(*_rank_distances(sample), variant="b").statistic)


@define_index("distance_correlation", "distance correlation", RIGID, needs=Needs.ROWS, least=3, cost=_COST,
              formula="sqrt(sum A∘B / sqrt(sum A∘A sum B∘B)), with A and B the matrices of Euclidean "
                      "distances |x_i - x_j| and |y_i - y_j|, centred in rows and columns",
              source="Székely, Rizzo and Bakirov 2007")
def distance_correlation(sample: Sample) -> float:
    """Distance correlation, not its square; the biased V-statistic, which is above 0 for independent rows and
    nears 1 where there are many more columns than rows (Székely et al. 2007).
    """
    found = _compute_centred_cosine(sample, "distances", lambda rows: np.sqrt(rows.squared))
    return math.sqrt(max(found, 0.0))  # never negative (Székely et al. 2007) but by rounding


@define_index("cka_rbf", "CKA (RBF)", RIGID, needs=Needs.ROWS, least=3, argument=_FRACTION, cost=_COST,
              formula="tr(KHLH) / sqrt(tr(KHKH) tr(LHLH)), K_ij = exp(-|x_i - x_j|² / (2 σ²)), σ = fraction "
                      "× median of |x_i - x_j| over i < j, L the same of y",
              source="Kornblith et al. 2019, section 3")
def cka_rbf(sample: Sample, fraction: float) -> float:
    """Centred kernel alignment, biased HSIC, with RBF kernels whose bandwidth is a fraction of the median
    distance between different rows (Kornblith et al. 2019).
    """
    sample.require_sides(lambda side: side.find("median", lambda rows: np.median(rows.squared)) > 0,
                         "the median distance is zero")
    return _compute_centred_cosine(sample, ("kernel", fraction), lambda rows: _compute_kernel(rows, fraction))


def _compute_kernel(side: Rows, fraction: float) -> Floats:
    """Compute K - 1, which centres to the same matrix as K and is precise where K is near one."""
    sigma = fraction * float(np.median(np.sqrt(side.squared)))
    return np.asarray(np.expm1(-side.squared / (2 * sigma**2)))
