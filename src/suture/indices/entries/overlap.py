"""Overlap of two representations: GULP, eigenspace overlap, effective number of shared dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.indices.definition import Argument, define_index
from suture.indices.entries.cca import compute_correlations
from suture.indices.transformations import AFFINE, RIGID
from suture.numbers import Pair

_STRENGTH = Argument("lambda", 0.01, 1e-9, 1e6, "ridge penalty at total variance 1; large ones look at the "
                                                "leading directions, small ones at all")


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
              source="May et al. 2019", least=4,
              cost="p³ + q³ per site, pq min(p, q)")
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
