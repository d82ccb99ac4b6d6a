"""Indices of the directions of rows: nearest neighbours by cosine similarity, and uniformity."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from suture.indices.definition import (
    LEAST_EXAMPLES,
    Argument,
    Needs,
    define_index,
    expand_invariances,
    require,
)
from suture.indices.sample import Sample
from suture.numbers import Floats, Ints

_K = Argument("k", 10, 1, 10000,
              "Number of neighbours of a row. Larger values look at coarser structure; keep it well below "
              "the number of rows, for with all of them as neighbours every pair is alike.", whole=True)
_RAYS = expand_invariances("scaling", "orthogonal")
_COST = "n² p once per site and k, n k per cell"
# Largest share of tied neighbours: above it the rule for ties chose most neighbours, alike on both sides.
_SHARE = 0.5
_ZERO = 1e-12  # largest cosine that rounding gives to orthogonal rows
_ADDED = 1e-6  # added to the denominator of CKNNA by Huh et al. 2024


def _require_directions(sample: Sample) -> None:
    zeros = [f"rows of zeros in the {name} ({side.zeros})" for name, side in sample.sides if side.zeros]
    require(not zeros, f"{' and '.join(zeros)}: no cosine")


def _find_neighbours(sample: Sample, k: int) -> tuple[Ints, Ints]:
    """Find the k nearest rows of every row, (n, k), in source and target.

    They must be determined: not mostly by the rule for ties.
    """
    _require_directions(sample)
    sample.require_sides(lambda side: side.values.shape[1] > 1,
                         "one column, of which cosines see only the sign")
    require(sample.n >= k + 2, f"{sample.n} rows: {k} neighbours of each need at least {k + 2}")
    sample.require_sides(lambda side: side.find_nearest(k)[1].mean() <= _SHARE * k,
                         "most nearest neighbours are no nearer than other rows")
    return sample.x.find_nearest(k)[0], sample.y.find_nearest(k)[0]


def _rank_neighbours(source: Ints, target: Ints) -> Ints:
    """Rank every neighbour in the target by its place in the source, (n, k).

    Ranks start at 1. A target neighbour that is no neighbour in the source has 0.
    """
    n, k = source.shape
    table = np.zeros((n, n), np.int32)
    np.put_along_axis(table, source, np.arange(1, k + 1, dtype=np.int32)[None], 1)
    return np.take_along_axis(table, target, 1).astype(np.int64)


@define_index("jaccard", "k-NN Jaccard", _RAYS, needs=Needs.ROWS, least=3, argument=_K, cost=_COST,
              formula="mean over rows of |N ∩ N'| / |N ∪ N'|, with N and N' the k nearest other rows in "
                      "source and target",
              source="Klabunde et al. 2023 (arXiv 2305.06329), k-NN Jaccard similarity")
def jaccard(sample: Sample, k: float) -> float:
    """Mean Jaccard similarity of the k nearest neighbours of each row, by cosine similarity, ties to the
    lower row number; depends on k and on the number of rows (Wang et al. 2020; Hryniowski and Wong 2020;
    Gwilliam and Shrivastava 2022).
    """
    shared = (_rank_neighbours(*_find_neighbours(sample, int(k))) > 0).sum(1)
    return float((shared / (2 * int(k) - shared)).mean())


@define_index("mutual_knn", "mutual k-NN", _RAYS, needs=Needs.ROWS, least=3, argument=_K, cost=_COST,
              formula="mean over rows of |N ∩ N'| / k, with N and N' the k nearest other rows in source and "
                      "target",
              source="Huh et al. 2024, The platonic representation hypothesis, eq. 11",
              chance=lambda sample, k: k / (sample.n - 1))
def mutual_knn(sample: Sample, k: float) -> float:
    """Mean share of the k nearest neighbours of each row that source and target have in common, by cosine
    similarity, ties to the lower row number; depends on k and on the number of rows (Huh et al. 2024).
    """
    shared = (_rank_neighbours(*_find_neighbours(sample, int(k))) > 0).sum(1)
    return float((shared / int(k)).mean())


@define_index("cknna", "CKNNA", _RAYS, needs=Needs.ROWS, least=LEAST_EXAMPLES, argument=replace(_K, low=2),
              formula="HSIC₁(M K, M L) / (sqrt(HSIC₁(Mx K, Mx K) HSIC₁(My L, My L)) + 1e-6), K and L the "
                      "cosine similarities, Mx and My 1 at the k nearest other rows, M = Mx My, HSIC₁ the "
                      "unbiased estimator of Song et al. 2012",
              source="Huh et al. 2024, appendix A, and their code (platonic-rep, metrics.py)",
              cost="n² p once per site and k, n² per cell", span=(-1.0, 1.0), symmetric=None,
              identical=None)
def cknna(sample: Sample, k: float) -> float:
    """CKA of the cosine similarities of neighbours alone: pairs of rows of which the second is among the k
    nearest of the first, in both source and target (Huh et al. 2024). As in the authors' code, 1e-6 is added
    to the denominator, so identical representations come below 1.
    """
    source, target = _find_neighbours(sample, int(k))
    masks = [_mask_neighbours(found) for found in (source, target)]
    x, y = (side.unit @ side.unit.T * mask for (_, side), mask in zip(sample.sides, masks, strict=True))
    own = [_estimate_masked_hsic(m, m) for m in (x, y)]
    require(min(own) > 0, "HSIC of neighbours with themselves is not positive")
    return _estimate_masked_hsic(masks[1] * x, masks[0] * y) / (math.sqrt(own[0] * own[1]) + _ADDED)


def _mask_neighbours(found: Ints) -> Floats:
    """Return a matrix (n, n) with 1 at the neighbours (n, k) of every row, 0 elsewhere."""
    mask = np.zeros((len(found), len(found)))
    np.put_along_axis(mask, found, 1.0, 1)
    return mask


def _estimate_masked_hsic(a: Floats, b: Floats) -> float:
    """Estimate HSIC without bias from matrices (n, n) with a zero diagonal (Song et al. 2012, eq. 5)."""
    n = len(a)
    crossed = a.sum(0) @ b.sum(1)
    return float(((a * b.T).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * crossed / (n - 2))
                 / (n * (n - 3)))


@define_index("rank_similarity", "rank similarity", _RAYS, needs=Needs.ROWS, least=3, argument=_K, cost=_COST,
              formula="mean over rows of [sum over j in N ∩ N' of 2 / ((1 + |r_j - r'_j|) (r_j + r'_j))] / "
                      "[sum of 1/m for m = 1 to |N ∩ N'|], 0 where N ∩ N' is empty; r_j and r'_j are the "
                      "ranks of j, from 1",
              source="Wang et al. 2020, Towards understanding the instability of network embedding; Klabunde "
                     "et al. 2023 (arXiv 2305.06329), rank similarity")
def rank_similarity(sample: Sample, k: float) -> float:
    """Agreement of the ranks of common nearest neighbours, close ones counting more, by cosine similarity,
    ties to the lower row number; depends on k and on the number of rows (Wang et al. 2020).
    """
    source = _rank_neighbours(*_find_neighbours(sample, int(k)))
    target = np.arange(1, int(k) + 1)
    shared = source > 0
    terms = np.where(shared, 2 / ((1 + np.abs(source - target)) * (source + target)), 0.0)
    largest = np.concatenate([[1.0], np.cumsum(1 / target)])
    return float((terms.sum(1) / largest[shared.sum(1)]).mean())


def _multiply_rows(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


@define_index("second_order_cosine", "second-order cosine", _RAYS, needs=Needs.ROWS, least=3, argument=_K,
              formula="mean over rows i of cos(s_i, s'_i), with s_i and s'_i the cosine similarities of row "
                      "i with the rows of N ∪ N' in source and target",
              source="Hamilton et al. 2016, Cultural shift or linguistic drift?, local neighborhood measure; "
                     "Klabunde et al. 2023 (arXiv 2305.06329)",
              cost="n² p once per site and k, n k (p + q) per cell", span=(-1.0, 1.0), null=None)
def second_order_cosine(sample: Sample, k: float) -> float:
    """Mean over rows of the cosine between the row's cosine similarities with its neighbours in either side,
    by cosine similarity, ties to the lower row number; depends on k and on the number of rows (Hamilton et
    al. 2016). Of similarities, as in the paper, not of cosine distances.
    """
    source, target = _find_neighbours(sample, int(k))
    union = np.concatenate([source, target], 1)
    # A neighbour in both source and target would otherwise be used twice.
    once = np.concatenate([np.ones(source.shape), _rank_neighbours(source, target) == 0], 1)
    a, b = (side.compute_cosines(union) * once for _, side in sample.sides)
    flat = [name for name, v in (("source", a), ("target", b)) if np.abs(v).max(1).min() <= _ZERO]
    require(not flat, f"{' and '.join(flat)}: a row is orthogonal to all its neighbours")
    return float((_multiply_rows(a, b) / np.sqrt(_multiply_rows(a, a) * _multiply_rows(b, b))).mean())


@define_index("uniformity", "difference of uniformities", _RAYS, needs=Needs.ROWS, cost="n² p once per site",
              formula="|u(x) - u(y)|, u(x) = log of the mean over i < j of exp(-2 |x_i / |x_i| - x_j / "
                      "|x_j||²)",
              source="Wang and Isola 2020 (t = 2); as a difference, Klabunde et al. 2023 (arXiv 2305.06329)",
              high=4.0, larger=False, span=(0.0, 8.0), judged=False,
              paired=False)
def uniformity(sample: Sample) -> float:
    """Difference of the uniformities of source and target, rows at length one; it does not look at which row
    of one is which of the other (Wang and Isola 2020).
    """
    _require_directions(sample)
    return abs(sample.x.uniformity - sample.y.uniformity)
