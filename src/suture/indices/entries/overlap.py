"""Overlap of two representations: GULP, eigenspace overlap, effective number of shared dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.indices.definition import AFFINE, RIGID, Argument, Index
from suture.indices.entries import cca
from suture.numbers import Pair, make_index_measure


def gulp(pair: Pair, strength: float) -> float:
    """Compute the GULP distance: how far ridge predictions from the two can differ (Boix-Adsera et al. 2022).

    It is the root of tr((Cx + l)^-1 Cx (Cx + l)^-1 Cx) + the same of y - 2 tr((Cx + l)^-1 Cxy (Cy + l)^-1
    Cyx). C are the covariances of both sides, scaled to trace 1 as its authors do.
    """
    m = pair.moments
    tx, ty = torch.trace(m.sxx), torch.trace(m.syy)
    a, b = pair.x.values / tx, pair.y.values / ty
    cross = (pair.rotated.square() / (tx * ty) / torch.outer(a + strength, b + strength)).sum()
    return math.sqrt(max(0.0,
                         float(_compute_own_term(a, strength) + _compute_own_term(b, strength) - 2 * cross)))


def _compute_own_term(values: Tensor, strength: float) -> Tensor:
    return (values / (values + strength)).square().sum()


def eigenspace_overlap(pair: Pair) -> float:
    """Compute |Ux' Uy|² / max(rank x, rank y), U the left singular vectors (May et al. 2019).

    Rows are centred.
    """
    return float(pair.canonical[1].square().sum()) / max(pair.x.rank, pair.y.rank)


def ensd(pair: Pair) -> float:
    """Compute ENSD: |Sxy|² tr Sxx tr Syy / (|Sxx|² |Syy|²) (Giaffar et al. 2024).

    For equal sides it is the participation ratio.
    """
    m = pair.moments
    own = float(m.sxx.square().sum() * m.syy.square().sum())
    return float(m.sxy.square().sum()) * pair.scale**2 / own


_STRENGTH = Argument("lambda", 0.01, 1e-9, 1e6, "ridge penalty at total variance 1; large ones look at the "
                                                "leading directions, small ones at all")
ENTRIES = (
    Index(make_index_measure("gulp", "GULP distance",
                             "How far ridge predictions of any task from the two can be apart, penalty 0.01 "
                             "of the total variance or the given share (Boix-Adsera et al. "
                             "2022). No upper limit.",
                             high=5.0, larger=False, form="negative", span=(0.0, math.inf)),
          gulp,
          "sqrt(tr (Cx(λ)⁻¹Cx)² + tr (Cy(λ)⁻¹Cy)² - 2 tr Cx(λ)⁻¹ Cxy Cy(λ)⁻¹ Cyx), C(λ) = C + λ, tr C = 1",
          "Boix-Adsera et al. 2022", RIGID, RIGID, argument=_STRENGTH, cost="p³ + q³ per site, p²q"),
    Index(make_index_measure("eigenspace_overlap", "eigenspace overlap",
                             "Overlap of the column spaces of the centred matrices; its authors do not "
                             "centre (May et al. 2019)."),
          eigenspace_overlap, "Σρ² / max(rank X, rank Y)", "May et al. 2019", AFFINE, AFFINE, least=4,
          undefined=cca.explain_too_few_rows, cost="p³ + q³ per site, pq min(p, q)"),
    Index(make_index_measure("ensd", "effective number of shared dimensions",
                             "Participation ratio of what both have in common, CKA times the root of the "
                             "product of their own (Giaffar et al. 2024). No upper limit.",
                             high=20.0, span=(0.0, math.inf), judged=False),
          ensd, "|Sxy|² tr Sxx tr Syy / (|Sxx|² |Syy|²)", "Giaffar et al. 2024", RIGID, RIGID),
)
