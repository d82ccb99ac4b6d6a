"""Indices of the nearest neighbours of every row, by cosine similarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from suture.indices.definition import ORTHOGONAL, SCALING, Argument, Index, Needs, expand_invariances
from suture.indices.sample import Sample
from suture.numbers import Floats, Ints, make_index_measure

_K = Argument("k", 10, 1, 10000,
              "Number of neighbours of a row. Larger values look at coarser structure; keep it well below "
              "the number of rows, for with all of them as neighbours every pair is alike.", whole=True)
_RAYS = expand_invariances(SCALING, ORTHOGONAL)
# Largest share of tied neighbours. Above it the rule for ties, the same on both sides, chose most of them.
_SHARE = 0.5
_ZERO = 1e-12  # largest cosine that rounding gives to orthogonal rows


def explain_no_cosine(sample: Sample) -> str:
    """Return the sides with rows of zeros, which have no direction, or an empty string."""
    found = [f"rows of zeros in the {name} ({side.zeros})" for name, side in sample.sides if side.zeros]
    return f"{' and '.join(found)}: no cosine" if found else ""


def _rank_neighbours(sample: Sample, k: int) -> Ints:
    """Rank every neighbour in the target by its place in the source, (n, k).

    Ranks start at 1. A neighbour in the target that is not a neighbour in the source has 0.
    """
    table = np.zeros((sample.n, sample.n), np.int32)
    np.put_along_axis(table, sample.x.find_nearest(k).order, np.arange(1, k + 1, dtype=np.int32)[None], 1)
    return np.take_along_axis(table, sample.y.find_nearest(k).order, 1).astype(np.int64)


def jaccard(sample: Sample, k: float) -> float:
    """Compute the mean over rows of |N ∩ N'| / |N ∪ N'|, N and N' the k nearest rows in source and target."""
    shared = (_rank_neighbours(sample, int(k)) > 0).sum(1)
    return float((shared / (2 * int(k) - shared)).mean())


def rank_similarity(sample: Sample, k: float) -> float:
    """Compute the agreement of the ranks r and r' of common neighbours, averaged over rows.

    For a row it is the sum over N ∩ N' of 2 / ((1 + |r - r'|) (r + r')), divided by the sum of 1 / m for m =
    1 to |N ∩ N'|. A row without common neighbours has 0.
    """
    source = _rank_neighbours(sample, int(k))
    target = np.arange(1, int(k) + 1)
    shared = source > 0
    terms = np.where(shared, 2 / ((1 + np.abs(source - target)) * (source + target)), 0.0)
    largest = np.concatenate([[1.0], np.cumsum(1 / target)])
    return float((terms.sum(1) / largest[shared.sum(1)]).mean())


def second_order_cosine(sample: Sample, k: float) -> float:
    """Compute the mean over rows of the cosine between two vectors of cosines.

    For a row these are its cosines with the rows of N ∪ N', in the source and in the target.
    """
    a, b = _collect_cosines(sample, int(k))
    return float((_multiply_rows(a, b) / np.sqrt(_multiply_rows(a, a) * _multiply_rows(b, b))).mean())


def _collect_cosines(sample: Sample, k: int) -> tuple[Floats, Floats]:
    """Collect the cosines (n, 2k) of every row with N and N', in source and target.

    A row of N' that is in N as well has 0, so that it is used once.
    """
    first, second = sample.x.find_nearest(k).order, sample.y.find_nearest(k).order
    union = np.concatenate([first, second], 1)
    once = np.concatenate([np.ones(first.shape), _rank_neighbours(sample, k) == 0], 1)
    return sample.x.compute_cosines(union) * once, sample.y.compute_cosines(union) * once


def _multiply_rows(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def explain_undetermined(sample: Sample, k: int) -> str:
    """Return the reason why the nearest neighbours are not determined, or an empty string.

    Reasons: rows without a direction, one column, too few rows, or mostly neighbours by the rule for ties.
    """
    if reason := explain_no_cosine(sample):
        return reason
    if narrow := [name for name, side in sample.sides if side.width == 1]:
        return f"{' and '.join(narrow)}: one column, of which cosines see only the sign"
    if sample.n < k + 2:
        return f"{sample.n} rows: {k} neighbours of each need at least {k + 2}"
    tied = [name for name, side in sample.sides if side.find_nearest(k).tied.mean() > _SHARE * k]
    return f"{' and '.join(tied)}: most nearest neighbours are no nearer than other rows" if tied else ""


def explain_orthogonal(sample: Sample, k: int) -> str:
    """Return the reason of `explain_undetermined`, or name the sides with a row orthogonal to its neighbours.

    Such a row has cosine zero with all rows of N ∪ N'. Return an empty string if there is neither.
    """
    if reason := explain_undetermined(sample, k):
        return reason
    if all(side.find_nearest(k).closest.min() > _ZERO for _, side in sample.sides):
        return ""
    vectors = zip(("source", "target"), _collect_cosines(sample, k), strict=True)
    found = [name for name, cosines in vectors if np.abs(cosines).max(1).min() <= _ZERO]
    return f"{' and '.join(found)}: a row is orthogonal to all its neighbours" if found else ""


@dataclass(frozen=True)
class NeighbourIndex(Index):
    """An index of the k nearest neighbours.

    Attributes:
        explain_lacking: returns the reason why given data have no such number for this k, or an empty string.
    """

    explain_lacking: Callable[[Sample, int], str] = explain_undetermined

    def _explain_too_few(self, data: Sample) -> str:
        k = int(_K.default if self.value is None else self.value)
        return super()._explain_too_few(data) or self.explain_lacking(data, k)


_ABOUT = "by cosine similarity, ties to the lower row number; depends on k and on the number of rows"
_COST = "n² p once per site and k, n k per cell"

ENTRIES: tuple[Index, ...] = (
    NeighbourIndex(
        make_index_measure("jaccard", "k-NN Jaccard",
                   f"Mean Jaccard similarity of the k nearest neighbours of each row, {_ABOUT} (Wang et al. "
                   "2020; Hryniowski and Wong 2020; Gwilliam and Shrivastava 2022)."),
        jaccard,
        "mean over rows of |N ∩ N'| / |N ∪ N'|, with N and N' the k nearest other rows in source and target",
        "Klabunde et al. 2023 (arXiv 2305.06329), k-NN Jaccard similarity", _RAYS, _RAYS, Needs.ROWS, 3,
        argument=_K, cost=_COST),
    NeighbourIndex(
        make_index_measure("rank_similarity", "rank similarity",
                           "Agreement of the ranks of common nearest neighbours, close ones counting more, "
                           f"{_ABOUT} (Wang et al. 2020)."),
        rank_similarity,
        "mean over rows of [sum over j in N ∩ N' of 2 / ((1 + |r_j - r'_j|) (r_j + r'_j))] / [sum of 1/m for "
        "m = 1 to |N ∩ N'|], 0 where N ∩ N' is empty; r_j and r'_j are the ranks of j, from 1",
        "Wang et al. 2020, Towards understanding the instability of network embedding; Klabunde et al. 2023 "
        "(arXiv 2305.06329), rank similarity", _RAYS, _RAYS, Needs.ROWS, 3, argument=_K, cost=_COST),
    NeighbourIndex(
        make_index_measure("second_order_cosine", "second-order cosine",
                   "Mean over rows of the cosine between the row's cosine similarities with its neighbours "
                   f"in either side, {_ABOUT} (Hamilton et al. 2016). Of similarities, as in the paper, not "
                   "of cosine distances.",
                           span=(-1.0, 1.0)),
        second_order_cosine, "mean over rows i of cos(s_i, s'_i), with s_i and s'_i the cosine similarities "
                             "of row i with the rows of N ∪ N' in source and target",
        "Hamilton et al. 2016, Cultural shift or linguistic drift?, local neighborhood measure; Klabunde et "
        "al. 2023 (arXiv 2305.06329)", _RAYS, _RAYS,
        Needs.ROWS, 3, argument=_K, explain_lacking=explain_orthogonal,
        cost="n² p once per site and k, n k (p + q) per cell"),
)
"""Indices of neighbours."""
