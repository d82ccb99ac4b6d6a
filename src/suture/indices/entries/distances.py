"""Indices of all distances between rows: rank RSA, distance correlation, CKA with RBF kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from suture.indices.definition import Argument, Needs, define_index
from suture.indices.sample import Rows, Sample, explain_sides
from suture.indices.transformations import RIGID
from suture.numbers import Floats

_FRACTION = Argument("fraction", 1.0, 0.1, 10,
                     "Bandwidth of the kernel over the median distance. Kornblith et al. 2019 tried 0.2, 0.4 "
                     "and 0.8; small ones look at close rows only, large ones approach linear CKA.")
_PAPER = "Kriegeskorte et al. 2008, Representational similarity analysis"
_COST = "n² p once per site, n² per cell"


@dataclass(frozen=True)
class CentredMatrix:
    """A symmetric matrix with zeros on its diagonal, to be centred in rows and columns.

    Attributes:
        pairs: (n (n - 1) / 2,) elements above the diagonal, before centring.
        means: (n,) of its rows.
    """

    pairs: Floats
    means: Floats

    @classmethod
    def of(cls, pairs: Floats) -> CentredMatrix:
        """Make the matrix from its elements above the diagonal."""
        from scipy.spatial.distance import squareform

        return cls(pairs, squareform(pairs).mean(1))

    def sum_products(self, other: CentredMatrix) -> float:
        """Sum the products of the elements of both centred matrices."""
        n = len(self.means)
        return float(2 * self.pairs @ other.pairs - 2 * n * self.means @ other.means
                     + n**2 * self.means.mean() * other.means.mean())

    def compute_cosine(self, other: CentredMatrix) -> float:
        """Compute the cosine between the elements of both centred matrices."""
        return self.sum_products(other) / math.sqrt(self.sum_products(self) * other.sum_products(other))


def _is_equidistant(side: Rows) -> bool:
    """Return True if all distances are equal, up to rounding of sums of many squares."""
    return bool(np.ptp(side.squared) <= 1e-12 * side.squared.max())


_explain_equidistant = explain_sides(_is_equidistant, "all distances are equal")
_explain_no_median = explain_sides(lambda side, _: bool(np.median(side.squared) == 0),
                                   "the median distance is zero")


@define_index("rsa_spearman", "RSA (Spearman)", RIGID, source=_PAPER, needs=Needs.ROWS, least=3,
              formula="Spearman's rho, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
              undefined=_explain_equidistant, cost="n² (p + log n) once per site, n² per cell",
              span=(-1.0, 1.0))
def rsa_spearman(sample: Sample) -> float:
    """Spearman's rank correlation of the squared Euclidean distances between rows, each pair once
    (Kriegeskorte et al. 2008).

    Tied ranks are averaged.
    """
    a, b = (side.ranks - side.ranks.mean() for side in (sample.x, sample.y))
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


@define_index("rsa_kendall", "RSA (Kendall)", RIGID, source=_PAPER, needs=Needs.ROWS, least=3,
              formula="Kendall's tau-b, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
              undefined=_explain_equidistant, cost="n² (p + log n) once per site, n² log n per cell",
              span=(-1.0, 1.0))
def rsa_kendall(sample: Sample) -> float:
    """Kendall's tau-b of the squared Euclidean distances between rows, each pair once (Kriegeskorte et al.
    2008).
    """
    from scipy.stats import kendalltau

    return float(kendalltau(sample.x.ranks, sample.y.ranks, variant="b").statistic)


@define_index("distance_correlation", "distance correlation", RIGID, needs=Needs.ROWS, least=3, cost=_COST,
              formula="sqrt(sum A∘B / sqrt(sum A∘A sum B∘B)), with A and B the matrices of Euclidean "
                      "distances |x_i - x_j| and |y_i - y_j|, centred in rows and columns",
              source="Székely, Rizzo and Bakirov 2007")
def distance_correlation(sample: Sample) -> float:
    """Distance correlation, not its square; the biased V-statistic, which is above 0 for independent rows and
    nears 1 where there are many more columns than rows (Székely et al. 2007).
    """
    a, b = (CentredMatrix.of(np.sqrt(side.squared)) for side in (sample.x, sample.y))
    return math.sqrt(max(a.compute_cosine(b), 0.0))  # never negative (Székely et al. 2007) but by rounding


@define_index("cka_rbf", "CKA (RBF)", RIGID, needs=Needs.ROWS, least=3, argument=_FRACTION, cost=_COST,
              formula="tr(KHLH) / sqrt(tr(KHKH) tr(LHLH)), K_ij = exp(-|x_i - x_j|² / (2 σ²)), σ = fraction "
                      "× median of |x_i - x_j| over i < j, L the same of y",
              source="Kornblith et al. 2019, section 3", undefined=_explain_no_median)
def cka_rbf(sample: Sample, fraction: float) -> float:
    """Centred kernel alignment, biased HSIC, with RBF kernels whose bandwidth is a fraction of the median
    distance between different rows (Kornblith et al. 2019).
    """
    return _compute_kernel(sample.x, fraction).compute_cosine(_compute_kernel(sample.y, fraction))


def _compute_kernel(side: Rows, fraction: float) -> CentredMatrix:
    """Compute K - 1, which centres to the same matrix as K and is precise where K is near one."""
    sigma = fraction * float(np.median(np.sqrt(side.squared)))
    return CentredMatrix.of(np.expm1(-side.squared / (2 * sigma**2)))
