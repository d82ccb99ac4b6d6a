"""Direct matching: the affine map that best reproduces the target's own representation, from moments."""

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
        weight: (q, p) float64.
        bias: (q,) float64.
        rank: number of source directions above the rank cut. The fit uses only these.
        condition: largest over smallest eigenvalue of the source's scatter along them.
        residual: 1 - R² = |S - T|² / |T - mean|² of this map on the fitting data. It is above 1 where the map
            is worse than the target's mean. That is possible in families without free scale or shift.
        family: family of the map; of ridge:cv, the one with the chosen strength.
    """

    weight: Tensor
    bias: Tensor
    rank: int
    condition: float
    residual: float
    family: Family


def direct_match(pair: Pair, family: Family = FULL, folds: Sequence[Moments] | None = None) -> DirectMatch:
    """Return the W and b of `family` that minimise sum |W x + b - y|² over all rows, plus its penalty.

    All computations are in float64. A constant source gives W = 0 and b = mean y if the family holds that
    map.

    Args:
        pair: moments of the cell. One `Spectrum` of the source serves all its cells of the same alignment.
        family: default: every affine map.
        folds: moments of disjoint parts of the data; ridge:cv alone uses them (`choose_ridge`).

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
    """Return sum |W x + b - y|² / sum |y - mean|² over the rows of `moments`.

    The map may come from anywhere. The result is exact algebra on second moments, so it is as precise as they
    are. It is nan for a constant target.

    Args:
        weight: (q, p), any float type; computed in float64.
        bias: (q,).
        moments: of source (n, p) and target (n, q).
    """
    total = torch.trace(moments.syy)
    return float(compute_squared_error(weight, bias, moments) / total) if float(total) > 0 else float("nan")
