"""Direct matching: the affine map from source to target that minimises the squared error, from moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from suture.numbers import Moments, Pair, compute_squared_error
from suture.stitching.families import FULL
from suture.stitching.family import Family


@dataclass(frozen=True)
class DirectMatch:
    """The least-squares affine map of one cell, with diagnostics of the fit.

    Attributes:
        weight, bias: W (q, p) and b (q,), float64.
        rank: number of source directions above the rank cut. Only these are used in the fit.
        condition: largest over smallest eigenvalue of the source's scatter along them.
        residual: 1 - R² = |S - T|² / |T - mean|² on the fitting data. It can exceed 1 in families without
            free scale or shift.
        family: family of the map; for ridge:cv, ridge with the chosen strength.
    """

    weight: Tensor
    bias: Tensor
    rank: int
    condition: float
    residual: float
    family: Family


def direct_match(pair: Pair, family: Family = FULL, folds: Sequence[Moments] | None = None) -> DirectMatch:
    """Return the W and b of `family` that minimise sum |W x + b - y|² over all rows, plus its penalty.

    A constant source gives W = 0 and b = mean y if the family contains that map.

    Args:
        pair: moments of the cell, in float64. Cells with the same source and alignment can share a
            `Spectrum`.
        family: default: every affine map.
        folds: moments of disjoint parts of the data, for ridge:cv only (`choose_ridge`).

    Raises:
        SutureError: widths that the family does not allow, ridge:cv without folds, sparse without
            convergence.
    """
    m = pair.moments
    family.check(*m.sxy.shape)
    chosen = family.choose(folds)
    weight = chosen.solve(pair)
    bias = chosen.find_shift(weight, m)
    return DirectMatch(weight, bias, pair.x.rank, pair.x.condition, compute_residual(weight, bias, m), chosen)


def compute_residual(weight: Tensor, bias: Tensor, moments: Moments) -> float:
    """Return sum |W x + b - y|² / sum |y - mean|² of any map W (q, p), b (q,); nan for a constant target."""
    total = torch.trace(moments.syy)
    return float(compute_squared_error(weight, bias, moments) / total) if float(total) > 0 else float("nan")
