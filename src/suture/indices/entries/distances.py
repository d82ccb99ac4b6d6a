"""Indices of all distances between rows: rank RSA, distance correlation, CKA with RBF kernels, uniformity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from suture.indices.definition import ORTHOGONAL, RIGID, SCALING, Argument, Index, Needs, expand_invariances
from suture.indices.entries import neighbours
from suture.indices.sample import Rows, Sample
from suture.numbers import Floats, make_index_measure

_FRACTION = Argument("fraction", 1.0, 0.1, 10,
                     "Bandwidth of the kernel over the median distance. Kornblith et al. 2019 tried 0.2, 0.4 "
                     "and 0.8; small ones look at close rows only, large ones approach linear CKA.")


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


def _compute_cosine(a: CentredMatrix, b: CentredMatrix) -> float:
    return a.sum_products(b) / math.sqrt(a.sum_products(a) * b.sum_products(b))


def rsa_spearman(sample: Sample) -> float:
    """Compute the Pearson correlation of the ranks of the distances, ties averaged."""
    a, b = (side.ranks - side.ranks.mean() for side in (sample.x, sample.y))
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def rsa_kendall(sample: Sample) -> float:
    """Compute Kendall's tau-b of the distances."""
    from scipy.stats import kendalltau

    return float(kendalltau(sample.x.ranks, sample.y.ranks, variant="b").statistic)


def distance_correlation(sample: Sample) -> float:
    """Compute the distance correlation, sqrt(V²(x, y) / sqrt(V²(x, x) V²(y, y))).

    V² is the mean product of centred distance matrices, a V-statistic.
    """
    squared = _compute_cosine(*(CentredMatrix.of(np.sqrt(side.squared)) for side in (sample.x, sample.y)))
    return math.sqrt(max(squared, 0.0))  # V² >= 0 (Székely et al. 2007), rounding may be below


def cka_rbf(sample: Sample, fraction: float) -> float:
    """Compute tr(K H L H) / sqrt(tr(K H K H) tr(L H L H)), with K and L RBF kernels."""
    return _compute_cosine(_compute_kernel(sample.x, fraction), _compute_kernel(sample.y, fraction))


def _compute_kernel(side: Rows, fraction: float) -> CentredMatrix:
    """Compute K - 1, which centres to the same matrix as K and is precise where K is near one."""
    sigma = fraction * float(np.median(np.sqrt(side.squared)))
    return CentredMatrix.of(np.expm1(-side.squared / (2 * sigma**2)))


def uniformity(sample: Sample) -> float:
    """Compute |u(x) - u(y)|, u the logarithm of the mean Gaussian potential of rows at unit length."""
    return abs(sample.x.uniformity - sample.y.uniformity)


def explain_equidistant(sample: Sample) -> str:
    """Return the sides whose distances are all equal and so have no order, or an empty string."""
    found = [name for name, side in sample.sides if side.equidistant]
    return f"{' and '.join(found)}: all distances are equal" if found else ""


def explain_no_median(sample: Sample) -> str:
    """Return the sides without a kernel bandwidth, or an empty string.

    There is no bandwidth where at least half of the distances are zero.
    """
    found = [name for name, side in sample.sides if np.median(side.squared) == 0]
    return f"{' and '.join(found)}: the median distance is zero" if found else ""


_RSA = "of the squared Euclidean distances between rows, each pair once (Kriegeskorte et al. 2008)"

ENTRIES: tuple[Index, ...] = (
    Index(make_index_measure("rsa_spearman", "RSA (Spearman)", f"Spearman's rank correlation {_RSA}.",
                             span=(-1.0, 1.0)),
          rsa_spearman, "Spearman's rho, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
          "Kriegeskorte et al. 2008, Representational similarity analysis", RIGID, RIGID, Needs.ROWS, 3,
          explain_equidistant, cost="n² (p + log n) once per site, n² per cell"),
    Index(make_index_measure("rsa_kendall", "RSA (Kendall)", f"Kendall's tau-b {_RSA}.", span=(-1.0, 1.0)),
          rsa_kendall, "Kendall's tau-b, over pairs i < j, of |x_i - x_j|² and |y_i - y_j|²",
          "Kriegeskorte et al. 2008, Representational similarity analysis", RIGID, RIGID, Needs.ROWS, 3,
          explain_equidistant, cost="n² (p + log n) once per site, n² log n per cell"),
    Index(make_index_measure("distance_correlation", "distance correlation",
                             "Distance correlation, not its square; the biased V-statistic, which is above 0 "
                             "for independent rows and nears 1 where there are many more columns than rows "
                             "(Székely et al. 2007)."), distance_correlation,
          "sqrt(sum A∘B / sqrt(sum A∘A sum B∘B)), with A and B the matrices of Euclidean distances |x_i - "
          "x_j| and |y_i - y_j|, centred in rows and columns",
          "Székely, Rizzo and Bakirov 2007", RIGID, RIGID, Needs.ROWS, 3,
          cost="n² p once per site, n² per cell"),
    Index(make_index_measure("cka_rbf", "CKA (RBF)",
                             "Centred kernel alignment, biased HSIC, with RBF kernels whose bandwidth is a "
                             "fraction of the median distance between different rows "
                             "(Kornblith et al. 2019)."),
          cka_rbf, "tr(KHLH) / sqrt(tr(KHKH) tr(LHLH)), K_ij = exp(-|x_i - x_j|² / (2 σ²)), σ = fraction × "
                   "median of |x_i - x_j| over i < j, L the same of y", "Kornblith et al. 2019, section 3",
          RIGID, RIGID, Needs.ROWS, 3, explain_no_median, _FRACTION, cost="n² p once per site, n² per cell"),
    *neighbours.ENTRIES,
    Index(make_index_measure("uniformity", "difference of uniformities",
                             "Difference of the uniformities of source and target, rows at length one; it "
                             "does not look at which row of one is which of the other (Wang and Isola 2020).",
                             high=4.0, larger=False, span=(0.0, 8.0), judged=False),
          uniformity,
          "|u(x) - u(y)|, u(x) = log of the mean over i < j of exp(-2 |x_i / |x_i| - x_j / |x_j||²)",
          "Wang and Isola 2020 (t = 2); as a difference, Klabunde et al. 2023 (arXiv 2305.06329)",
          expand_invariances(SCALING, ORTHOGONAL), expand_invariances(SCALING, ORTHOGONAL), Needs.ROWS, 2,
          neighbours.explain_no_cosine, cost="n² p once per site"),
)
"""Every index of a kept sample of rows."""
