"""Procrustes distances: distances after the best rotation, or the best reordering of columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.indices.definition import (
    ORTHOGONAL,
    PERMUTATION,
    RIGID,
    SCALING,
    TRANSLATION,
    Argument,
    Index,
    expand_invariances,
)
from suture.numbers import Pair, Spectrum, make_index_measure


def opd(pair: Pair) -> float:
    """Compute the squared Procrustes distance at unit Frobenius norm (Ding et al. 2021).

    It is 2 - 2 |Sxy|_* / sqrt(tr Sxx tr Syy), in [0, 2]; 0 for matrices that are equal up to rotation, scale
    and shift. Widths may differ: the narrower matrix is padded with zeros, which does not change the nuclear
    norm.
    """
    return 2 - 2 * nuclear(pair)


def opd_root(pair: Pair) -> float:
    """Compute the square root of `opd`, a metric. Rounding leaves about 1e-8 of a zero."""
    return math.sqrt(max(0.0, opd(pair)))


def nuclear(pair: Pair) -> float:
    """Compute |Sxy|_* / sqrt(tr Sxx tr Syy), the cosine of the angular shape distance (Tang et al. 2020)."""
    return pair.nuclear / pair.scale


def shape_angular(pair: Pair) -> float:
    """Compute the angle between the matrices after the best rotation, a metric (Williams et al. 2021)."""
    return math.acos(min(1.0, nuclear(pair)))


def shape_distance(pair: Pair, alpha: float) -> float:
    """Compute the angular shape distance of partly whitened matrices (Williams et al. 2021).

    X becomes X (alpha I + (1 - alpha) (X'X)^(-1/2)), and Y likewise. Each side is first scaled so that the
    mean eigenvalue of its scatter over its columns is one. Otherwise the mixture would depend on units and on
    n.
    """
    wx, wy = (_compute_weights(s, alpha) for s in (pair.x, pair.y))
    cross = torch.linalg.svdvals(pair.rotated * torch.outer(wx, wy)).sum()
    norms = math.sqrt(float((pair.x.values * wx.square()).sum()) * float((pair.y.values * wy.square()).sum()))
    return math.acos(min(1.0, float(cross) / norms))


def _compute_weights(side: Spectrum, alpha: float) -> Tensor:
    mean = side.values.sum() / side.width
    return alpha + (1 - alpha) * (mean / side.values).sqrt()


def size_and_shape(pair: Pair) -> float:
    """Compute the root mean square distance of rows after the best rotation and shift (Schonemann 1966).

    Sizes are kept.
    """
    m = pair.moments
    total = float(torch.trace(m.sxx) + torch.trace(m.syy)) - 2 * pair.nuclear
    return math.sqrt(max(0.0, total) / m.n)


def permutation(pair: Pair) -> float:
    """Compute 2 - 2 max_P tr(Sxy P) / sqrt(tr Sxx tr Syy), over assignments P of columns.

    All columns of the narrower side are assigned.
    """
    from scipy.optimize import linear_sum_assignment

    m = pair.moments
    rows, columns = linear_sum_assignment(m.sxy.cpu().numpy(), maximize=True)
    return 2 - 2 * float(m.sxy[rows, columns].sum()) / pair.scale


_SHIFT = expand_invariances(TRANSLATION, ORTHOGONAL)
_ORDER = expand_invariances(TRANSLATION, SCALING, PERMUTATION)
_ALPHA = Argument("alpha", 0.5, 0.0, 1.0,
                  "1: no whitening (`shape_angular`); 0: whitened fully, the arc cosine of the sum of the "
                  "canonical correlations over the root of the product of the ranks")
_COST = "pq min(p, q)"
ENTRIES = (
    Index(make_index_measure("opd", "OPD (squared)",
                             "Squared orthogonal Procrustes distance of the centred matrices at unit "
                             "Frobenius norm, 2 - 2 nuclear norm (Ding et al. 2021).", high=2.0, larger=False,
                             form="half"),
          opd, "2 - 2 |Sxy|_* / sqrt(tr Sxx tr Syy)", "Ding et al. 2021", RIGID, RIGID, cost=_COST),
    Index(make_index_measure("opd_root", "OPD (root)",
                             "Orthogonal Procrustes distance: the root of OPD, a metric (Ding et al. 2021; "
                             "Williams et al. 2021).", high=math.sqrt(2), larger=False, form="negative"),
          opd_root, "sqrt(opd)", "Williams et al. 2021", RIGID, RIGID, cost=_COST),
    Index(make_index_measure("shape_angular", "angular shape distance",
                             "Angle between the centred matrices after the best rotation, in radians "
                             "(Williams et al. 2021).", high=math.pi / 2, larger=False, form="cosine"),
          shape_angular, "arccos(nuclear)", "Williams et al. 2021", RIGID, RIGID, cost=_COST),
    Index(make_index_measure("nuclear", "nuclear similarity",
                             "Nuclear norm of the cross scatter over the Frobenius norms of the centred "
                             "matrices (Tang et al. 2020, normalised Bures similarity)."),
          nuclear, "|Sxy|_* / sqrt(tr Sxx tr Syy)", "Tang et al. 2020", RIGID, RIGID, cost=_COST),
    Index(make_index_measure("shape", "shape distance (partly whitened)",
                             "Angle after partial whitening with alpha 0.5, or the given one, and the best "
                             "rotation, in radians (Williams et al. 2021).", high=math.pi / 2,
                             larger=False, form="cosine"),
          shape_distance,
          "arccos(|Wx Sxy Wy|_* / norms), W = alpha I + (1 - alpha) S^(-1/2), S of mean eigenvalue 1",
          "Williams et al. 2021", RIGID, RIGID, argument=_ALPHA, cost="p³ + q³ per site, " + _COST),
    Index(make_index_measure("size_and_shape", "size-and-shape distance",
                             "Root mean square distance of rows after the best rotation and shift, without "
                             "rescaling (Schonemann 1966; Williams et al. 2021). No upper limit.",
                             larger=False, form="inverse", span=(0.0, math.inf)),
          size_and_shape, "sqrt((tr Sxx + tr Syy - 2 |Sxy|_*) / n)", "Schonemann 1966", _SHIFT, _SHIFT,
          cost=_COST),
    Index(make_index_measure("permutation", "permutation Procrustes (squared)",
                             "Squared distance at unit Frobenius norm after the best assignment of columns "
                             "to columns (Williams et al. 2021).", high=2.0, larger=False, form="half"),
          permutation, "2 - 2 max_P tr(Sxy P) / sqrt(tr Sxx tr Syy)", "Williams et al. 2021", _ORDER, _ORDER,
          cost="pq min(p, q), by assignment", smooth=False),
)
