"""Procrustes distances: distances after the best rotation, or the best reordering of columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.indices.definition import RIGID, Argument, define_index, expand_invariances
from suture.numbers import Pair, Spectrum, find_assignment, svdvals

_SHIFT = expand_invariances("translation", "orthogonal")
_ORDER = expand_invariances("translation", "scaling", "permutation")
_COST = "pq min(p, q)"
_ALPHA = Argument("alpha", 0.5, 0.0, 1.0,
                  "1: no whitening (`shape_angular`); 0: whitened fully, the arc cosine of the sum of the "
                  "canonical correlations over the root of the product of the ranks")


def _expect_nuclear(pair: Pair) -> float:
    """Estimate the nuclear similarity of unrelated data from participation ratios, up to 30 %."""
    return min(1.0, math.sqrt(min(pair.participation) / pair.freedom))


@define_index("opd", "OPD (squared)", RIGID, formula="2 - 2 |Sxy|_* / sqrt(tr Sxx tr Syy)",
              source="Ding et al. 2021", cost=_COST, high=2.0, larger=False, form="half", null=2.0,
              paper=True, chance=_expect_nuclear, metric="root")
def opd(pair: Pair) -> float:
    """Squared orthogonal Procrustes distance of the centred matrices at unit Frobenius norm, 2 - 2 nuclear
    norm (Ding et al. 2021).

    Widths may differ: the narrower matrix is padded with zeros, which does not change the nuclear norm.
    """
    return 2 - 2 * nuclear.fn(pair)


@define_index("opd_root", "OPD (root)", RIGID, formula="sqrt(opd)", source="Williams et al. 2021", cost=_COST,
              high=math.sqrt(2), larger=False, form="negative", null=math.sqrt(2),
              chance=lambda pair: 1 - math.sqrt(1 - _expect_nuclear(pair)))
def opd_root(pair: Pair) -> float:
    """Orthogonal Procrustes distance: the root of OPD, a metric (Ding et al. 2021; Williams et al. 2021).

    Rounding leaves about 1e-8 of a zero.
    """
    return math.sqrt(max(0.0, opd.fn(pair)))


@define_index("shape_angular", "angular shape distance", RIGID, formula="arccos(nuclear)",
              source="Williams et al. 2021", cost=_COST, high=math.pi / 2, larger=False, form="cosine",
              null=math.pi / 2, chance=lambda pair: 1 - math.acos(_expect_nuclear(pair)) * 2 / math.pi)
def shape_angular(pair: Pair) -> float:
    """Angle between the centred matrices after the best rotation, in radians (Williams et al. 2021).

    It is a metric.
    """
    return math.acos(min(1.0, nuclear.fn(pair)))


@define_index("nuclear", "nuclear similarity", RIGID, formula="|Sxy|_* / sqrt(tr Sxx tr Syy)",
              source="Tang et al. 2020", cost=_COST, chance=_expect_nuclear)
def nuclear(pair: Pair) -> float:
    """Nuclear norm of the cross scatter over the Frobenius norms of the centred matrices (Tang et al. 2020,
    normalised Bures similarity).
    """
    return pair.nuclear / pair.scale


@define_index("shape", "shape distance (partly whitened)", RIGID, source="Williams et al. 2021",
              formula="arccos(|Wx Sxy Wy|_* / norms), W = alpha I + (1 - alpha) S^(-1/2), S of mean "
                      "eigenvalue 1", argument=_ALPHA, cost="p³ + q³ per site, " + _COST, high=math.pi / 2,
              larger=False, form="cosine", null=math.pi / 2, metric="same")
def shape(pair: Pair, alpha: float) -> float:
    """Angle after partial whitening with alpha 0.5, or the given one, and the best rotation, in radians
    (Williams et al. 2021).

    X becomes X (alpha I + (1 - alpha) (X'X)^(-1/2)), and Y likewise. Each side is first scaled so that the
    mean eigenvalue over its columns is one; otherwise the mixture would depend on units and on n.
    """
    wx, wy = (_compute_weights(s, alpha) for s in (pair.x, pair.y))
    cross = svdvals(pair.rotated * torch.outer(wx, wy)).sum()
    norms = math.sqrt(float((pair.x.values * wx.square()).sum()) * float((pair.y.values * wy.square()).sum()))
    return math.acos(min(1.0, float(cross) / norms))


def _compute_weights(side: Spectrum, alpha: float) -> Tensor:
    mean = side.values.sum() / side.width
    return alpha + (1 - alpha) * (mean / side.values).sqrt()


@define_index("size_and_shape", "size-and-shape distance", _SHIFT, source="Schonemann 1966", cost=_COST,
              formula="sqrt((tr Sxx + tr Syy - 2 |Sxy|_*) / n)", larger=False, form="inverse",
              span=(0.0, math.inf), metric="same")
def size_and_shape(pair: Pair) -> float:
    """Root mean square distance of rows after the best rotation and shift, without rescaling (Schonemann
    1966; Williams et al. 2021). No upper limit.
    """
    m = pair.moments
    total = float(torch.trace(m.sxx) + torch.trace(m.syy)) - 2 * pair.nuclear
    return math.sqrt(max(0.0, total) / m.n)


@define_index("permutation", "permutation Procrustes (squared)", _ORDER, source="Williams et al. 2021",
              formula="2 - 2 max_P tr(Sxy P) / sqrt(tr Sxx tr Syy)", cost="pq min(p, q), by assignment",
              smooth=False, high=2.0, larger=False, form="half", null=2.0)
def permutation(pair: Pair) -> float:
    """Squared distance at unit Frobenius norm after the best assignment of columns to columns (Williams et
    al. 2021).

    All columns of the narrower side are assigned.
    """
    m = pair.moments
    rows, columns = find_assignment(m.sxy)
    return 2 - 2 * float(m.sxy[rows, columns].sum()) / pair.scale
