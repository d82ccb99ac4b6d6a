"""Fréchet distance between a target's own representation and a stitched one, from the moments of the cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suture._base import expect
from suture.numbers.intervals import Estimate, make_missing_estimate
from suture.numbers.spectra import Pair, Spectrum


@dataclass(frozen=True)
class FrechetDistance:
    """Squared Fréchet distance of two Gaussians and its parts, in units of the target's total variance.

    Each is at least 0 and has no upper limit. If one value is missing, all are, with the same reason.

    Attributes:
        total: |m_s - m_t|² + tr C_s + tr C_t - 2 |C_t^½ C_s^½|_*, the sum of the parts.
        shift: part of the means, |m_s - m_t|².
        shrinkage: part of the spectra, sum of (sqrt(s) - sqrt(t))² over the eigenvalues of C_s and C_t,
            largest with largest, the shorter list padded with zeros.
        rotation: part that is left when the spectra are equal: other principal directions.
    """

    total: Estimate
    shift: Estimate
    shrinkage: Estimate
    rotation: Estimate


def frechet(weight: Tensor, bias: Tensor, pair: Pair) -> FrechetDistance:
    """Compute the squared 2-Wasserstein distance of Gaussians with the moments of T and of S = W X + b.

    It is in units of tr C_t. m_s = W m_x + b and C_s = W C_x W', so there is no pass over the data (Dowson
    and Landau 1982; Heusel et al. 2017). The total is at most the mean of |S - T|² over tr C_t, because that
    is another coupling of the same two distributions.

    Computed in float64 from factors C = A A' instead of matrix square roots, so no singular value loses half
    of its digits: those of A_s and A_t are the roots of the eigenvalues, those of A_t' A_s add up to the
    nuclear norm. The rotation is 2 (sum of sqrt(s t) - nuclear norm), at least 0 by von Neumann's trace
    inequality. A rotation below 0 by no more than `_bound_rounding` is set to 0; nothing else is.

    Args:
        weight: (q, p), any float type.
        bias: (q,).
        pair: moments of source (n, p) and target (n, q) with their spectra. Directions that `Spectrum` drops
            are constant here. Covariances have the divisor n.

    Returns:
        Missing values with the reason where the target is constant or where the map or its product is not
            finite.

    Raises:
        SutureError: shapes that do not fit.
    """
    m = pair.moments
    p, q = m.sxy.shape
    expect(weight.shape == (q, p) and bias.shape == (q,), f"weight {(q, p)} and bias {(q,)}",
           f"{tuple(weight.shape)} and {tuple(bias.shape)}", "weight is (target, source) channels")
    if pair.y.rank == 0:
        return _make_missing("the target's representation is constant")
    w, b = weight.detach().to(m.sxx), bias.detach().to(m.sxx)
    own = _factor_covariance(pair.y, m.n)
    unit = own.square().sum().sqrt()
    own, stitched, off = (own / unit, w @ _factor_covariance(pair.x, m.n) / unit,
                          (w @ m.x.mean + b - m.y.mean) / unit)
    if not torch.isfinite(stitched.square().sum() + off @ off):
        return _make_missing("the stitched representation has no finite second moments")
    s, t = torch.linalg.svdvals(stitched), (pair.y.values / m.n).sqrt() / unit
    k = min(len(s), len(t))
    shrinkage = (s[:k] - t[:k]).square().sum() + s[k:].square().sum() + t[k:].square().sum()
    rotation = 2 * (s[:k] @ t[:k] - torch.linalg.svdvals(own.T @ stitched).sum())
    if -_bound_rounding(s, t) <= rotation < 0:
        rotation = torch.zeros_like(rotation)
    parts = [float(off @ off), float(shrinkage), float(rotation)]
    return FrechetDistance(Estimate(sum(parts)), *map(Estimate, parts))


def _factor_covariance(spectrum: Spectrum, n: int) -> Tensor:
    """Compute the factor A (width, rank) with A A' the covariance."""
    return torch.mul(spectrum.vectors, (spectrum.values / n).sqrt())


def _bound_rounding(s: Tensor, t: Tensor) -> float:
    """Bound the error of the rotation: each singular value is off by a few eps of the largest."""
    return (float(16 * torch.finfo(torch.float64).eps * max(len(s), len(t)) * s.amax() * t.amax())
            if len(s) else 0.0)


def _make_missing(reason: str) -> FrechetDistance:
    return FrechetDistance(*[make_missing_estimate(reason)] * 4)
