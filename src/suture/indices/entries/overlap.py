"""Overlap of two representations: predictions (GULP), column spaces, dimensions, single columns (units)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.indices.definition import AFFINE, RIGID, Argument, define_index, expand_invariances
from suture.indices.entries.cca import compute_correlations
from suture.numbers import Pair, find_assignment

_STRENGTH = Argument("lambda", 0.01, 1e-9, 1e6, "ridge penalty at total variance 1; large ones look at the "
                                                "leading directions, small ones at all")
_UNITS = expand_invariances("translation", "permutation", "diagonal")


@define_index("gulp", "GULP distance", RIGID, source="Boix-Adsera et al. 2022", argument=_STRENGTH,
              formula="sqrt(tr (Cx(λ)⁻¹Cx)² + tr (Cy(λ)⁻¹Cy)² - 2 tr Cx(λ)⁻¹ Cxy Cy(λ)⁻¹ Cyx), C(λ) = C + λ, "
                      "tr C = 1",
              cost="p³ + q³ per site, p²q", high=5.0, larger=False, form="negative", span=(0.0, math.inf))
def gulp(pair: Pair, strength: float) -> float:
    """How far ridge predictions of any task from the two can be apart, penalty 0.01 of the total variance or
    the given share (Boix-Adsera et al. 2022). No upper limit.

    C are the covariances of both sides, scaled to trace 1 as its authors do.
    """
    m = pair.moments
    tx, ty = torch.trace(m.sxx), torch.trace(m.syy)
    a, b = pair.x.values / tx, pair.y.values / ty
    cross = (pair.rotated.square() / (tx * ty) / torch.outer(a + strength, b + strength)).sum()
    own = _compute_own_term(a, strength) + _compute_own_term(b, strength)
    return math.sqrt(max(0.0, float(own - 2 * cross)))


def _compute_own_term(values: Tensor, strength: float) -> Tensor:
    return (values / (values + strength)).square().sum()


@define_index("eigenspace_overlap", "eigenspace overlap", AFFINE, formula="Σρ² / max(rank X, rank Y)",
              source="May et al. 2019", least=4, cost="p³ + q³ per site, pq min(p, q)",
              chance=lambda pair: min(pair.x.rank, pair.y.rank) / pair.freedom)
def eigenspace_overlap(pair: Pair) -> float:
    """Overlap of the column spaces of the centred matrices; its authors do not centre (May et al. 2019)."""
    return float(compute_correlations(pair)[1].square().sum()) / max(pair.x.rank, pair.y.rank)


@define_index("ensd", "effective number of shared dimensions", RIGID, source="Giaffar et al. 2024",
              formula="|Sxy|² tr Sxx tr Syy / (|Sxx|² |Syy|²)", high=20.0, span=(0.0, math.inf), judged=False,
              identical=None)
def ensd(pair: Pair) -> float:
    """Participation ratio of what both have in common, CKA times the root of the product of their own
    (Giaffar et al. 2024). No upper limit.
    """
    m = pair.moments
    own = float(m.sxx.square().sum() * m.syy.square().sum())
    return float(m.sxy.square().sum()) * pair.scale**2 / own


@define_index("correlation_hard", "correlation matching (one to one)", _UNITS, source="Li et al. 2015",
              formula="max over matchings m of the mean of corr(x_i, y_m(i))", least=3, span=(-1.0, 1.0),
              cost="pq min(p, q), by assignment", smooth=False)
def correlation_hard(pair: Pair) -> float:
    """Mean correlation of the best one-to-one matching of columns; a column that does not vary has
    correlation 0 (Li et al. 2015).
    """
    r = pair.correlations
    rows, columns = find_assignment(r)
    return float(r[rows, columns].mean())


@define_index("correlation_soft", "correlation matching (best partner)", _UNITS, source="Li et al. 2015",
              formula="mean over i of max over j of corr(x_i, y_j)", least=3, span=(-1.0, 1.0),
              symmetric=False)
def correlation_soft(pair: Pair) -> float:
    """Mean over source columns of the largest correlation with a target column; a column that does not vary
    has correlation 0 (Li et al. 2015).
    """
    return float(pair.correlations.amax(1).mean())
