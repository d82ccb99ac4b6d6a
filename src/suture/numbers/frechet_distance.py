"""Fréchet distance between a target's own representation and a stitched one, from the moments of the cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suture._base import expect
from suture.numbers.factorisations import svdvals
from suture.numbers.intervals import Estimate, make_missing_estimate
from suture.numbers.spectra import Pair, Spectrum


@dataclass(frozen=True)
class FrechetDistance:
    """Squared Fréchet distance of two Gaussians and its parts, in units of the target's total variance.

    Each is at least 0, without upper limit. All are missing together.

    Attributes:
        total: |m_s - m_t|² + tr C_s + tr C_t - 2 |C_t^½ C_s^½|_*, the sum of the parts.
        shift: part of the means, |m_s - m_t|².
        shrinkage: part of the spectra, sum of (sqrt(s) - sqrt(t))² over the sorted eigenvalues of C_s and
            C_t, zeros added.
        rotation: part of other principal directions, which is left when the spectra are equal.
    """

    total: Estimate
    shift: Estimate
    shrinkage: Estimate
    rotation: Estimate


def frechet(weight: Tensor, bias: Tensor, pair: Pair) -> FrechetDistance:
    """Compute the squared 2-Wasserstein distance of Gaussians with the moments of T and of S = W X + b.

    It is in units of tr C_t (Dowson and Landau 1982; Heusel et al. 2017). It needs no pass over the data,
    because m_s = W m_x + b and C_s = W C_x W'. It is at most the mean of |S - T|² over tr C_t, another
    coupling of the same two distributions.

    It is computed in float64 from factors C = A A', because matrix square roots lose half of the digits.
    Singular values of A_s and A_t are the roots of the eigenvalues; those of A_t' A_s add up to the nuclear
    norm. The rotation 2 (sum of sqrt(s t) - nuclear norm) is at least 0 (von Neumann's trace inequality);
    below 0 by rounding, it is set to 0.

    Args:
        weight, bias: W (q, p) and b (q,), any float type.
        pair: moments of source (n, p) and target (n, q) with their spectra; covariances have the divisor n.
            Directions that `Spectrum` drops are constant.

    Returns:
        Missing values with the reason where the target is constant or the moments of S are not finite.

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
    s, t = svdvals(stitched), (pair.y.values / m.n).sqrt() / unit
    k = min(len(s), len(t))
    shrinkage = (s[:k] - t[:k]).square().sum() + s[k:].square().sum() + t[k:].square().sum()
    rotation = 2 * (s[:k] @ t[:k] - svdvals(own.T @ stitched).sum())
    if -_bound_rounding(s, t) <= rotation < 0:
        rotation = torch.zeros_like(rotation)
    parts = [float(off @ off), float(shrinkage), float(rotation)]
    return FrechetDistance(Estimate(sum(parts)), *map(Estimate, parts))


def _factor_covariance(spectrum: Spectrum, n: int) -> Tensor:
    """Compute the factor A (width, rank) of the covariance A A'."""
    return torch.mul(spectrum.vectors, (spectrum.values / n).sqrt())


def _bound_rounding(s: Tensor, t: Tensor) -> float:
    """Bound the error of the rotation: each singular value is off by a few eps of the largest."""
    return (float(16 * torch.finfo(torch.float64).eps * max(len(s), len(t)) * s.amax() * t.amax())
            if len(s) else 0.0)


def _make_missing(reason: str) -> FrechetDistance:
    return FrechetDistance(*[make_missing_estimate(reason)] * 4)
