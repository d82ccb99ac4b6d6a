"""Direct matching: the affine map that best reproduces the target's own representation, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suture.spectra import Pair


@dataclass(frozen=True)
class DirectMatch:
    """The least-squares affine map of one cell and how it was found.

    Attributes:
        weight: (q, p) float64.
        bias: (q,) float64.
        rank: directions of the source that were used.
        condition: largest over smallest eigenvalue used.
        residual: |S - T|² / |T - mean|² on the data it was fitted to: 1 - R².
    """

    weight: Tensor
    bias: Tensor
    rank: int
    condition: float
    residual: float


def direct_match(pair: Pair) -> DirectMatch:
    """W = Syx Sxx^+, b = mean y - W mean x: minimises sum |W x + b - y|² over all rows.

    The pseudo-inverse drops the directions below `suture.spectra.rank_cut`; among the minimisers of a
    rank-deficient source it is the one of least norm. A constant source gives W = 0, b = mean y.
    (Balogh and Jelasity 2025, direct matching; Csiszarik et al. 2021, section 3.2.)

    Args:
        pair: moments of the cell; a `Spectrum` of the source serves all cells of that source and alignment.
    """
    m = pair.moments
    loadings = pair.x.vectors.T @ m.sxy
    weight = (pair.x.vectors @ (loadings / pair.x.values[:, None])).T
    bias = m.y.mean - weight @ m.x.mean
    total = torch.trace(m.syy)
    explained = (loadings.square().sum(1) / pair.x.values).sum()
    residual = float(1 - explained / total) if float(total) > 0 else float("nan")
    return DirectMatch(weight, bias, pair.x.rank, pair.x.condition, residual)
