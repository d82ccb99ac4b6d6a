"""Indices of all distances between rows: rank RSA, distance correlation, CKA with RBF kernels."""

from __future__ import annotations

import math

import numpy as np

from suture.indices.definition import Argument, Needs, define_index
from suture.indices.sample import Rows, Sample
from suture.indices.transformations import RIGID
from suture.numbers import Floats

_FRACTION = Argument("fraction", 1.0, 0.1, 10,
                     "Bandwidth of the kernel over the median distance. Kornblith et al. 2019 tried 0.2, 0.4 "
                     "and 0.8; small ones look at close rows only, large ones approach linear CKA.")
_PAPER = "Kriegeskorte et al. 2008, Representational similarity analysis"
_COST = "n² p once per site, n² per cell"


def _compute_centred_cosine(a: Floats, b: Floats) -> float:
    """Compute the cosine between two symmetric (n, n) matrices that are centred in rows and columns.

    `a` and `b` are the (n (n - 1) / 2,) elements above the diagonal before centring. The diagonals are zero.
    """
    from scipy.spatial.distance import squareform

    sides = [(pairs, squareform(pairs).mean(1)) for pairs in (a, b)]

    def sum_products(i: int, j: int) -> float:
        (x, mx), (y, my) = sides[i], sides[j]
        n = len(mx)
        return float(2 * x @ y - 2 * n * mx @ my + n**2 * mx.mean() * my.mean())

    return sum_products(0, 1) / math.sqrt(sum_products(0, 0) * sum_products(1, 1))


def _rank_distances(sample: Sample) -> tuple[Floats, Floats]:
    """Rank the distances of both sides; they must differ by more than rounding of sums of many squares."""
    sample.require_sides(lambda side: bool(np.ptp(side.squared) > 1e-12 * side.squared.max()),
                         "all distances are equal")
    return sample.x.ranks, sample.y.ranks


@define_index("rsa_spearman", "RSA (Spearman)", RIGID, source=_PAPER, needs=Needs.ROWS, least=3,
              formula="Spearman's rho, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
              cost="n² (p + log n) once per site, n² per cell",
              span=(-1.0, 1.0))
def rsa_spearman(sample: Sample) -> float:
    """Spearman's rank correlation of the squared Euclidean distances between rows, each pair once
    (Kriegeskorte et al. 2008).

    Tied ranks are averaged.
    """
    a, b = (ranks - ranks.mean() for ranks in _rank_distances(sample))
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


@define_index("rsa_kendall", "RSA (Kendall)", RIGID, source=_PAPER, needs=Needs.ROWS, least=3,
              formula="Kendall's tau-b, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
              cost="n² (p + log n) once per site, n² log n per cell",
              span=(-1.0, 1.0))
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
    found = _compute_centred_cosine(np.sqrt(sample.x.squared), np.sqrt(sample.y.squared))
    return math.sqrt(max(found, 0.0))  # never negative (Székely et al. 2007) but by rounding


@define_index("cka_rbf", "CKA (RBF)", RIGID, needs=Needs.ROWS, least=3, argument=_FRACTION, cost=_COST,
              formula="tr(KHLH) / sqrt(tr(KHKH) tr(LHLH)), K_ij = exp(-|x_i - x_j|² / (2 σ²)), σ = fraction "
                      "× median of |x_i - x_j| over i < j, L the same of y",
              source="Kornblith et al. 2019, section 3")
def cka_rbf(sample: Sample, fraction: float) -> float:
    """Centred kernel alignment, biased HSIC, with RBF kernels whose bandwidth is a fraction of the median
    distance between different rows (Kornblith et al. 2019).
    """
    sample.require_sides(lambda side: np.median(side.squared) > 0, "the median distance is zero")
    return _compute_centred_cosine(_compute_kernel(sample.x, fraction), _compute_kernel(sample.y, fraction))


def _compute_kernel(side: Rows, fraction: float) -> Floats:
    """Compute K - 1, which centres to the same matrix as K and is precise where K is near one."""
    sigma = fraction * float(np.median(np.sqrt(side.squared)))
    return np.asarray(np.expm1(-side.squared / (2 * sigma**2)))
