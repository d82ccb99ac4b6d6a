"""Fréchet distance between representations of the same examples, with its interval over examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from suture._base import expect
from suture.numbers.factorisations import eigh, svd
from suture.numbers.intervals import Estimate, make_missing_estimate

NORMAL_95 = 1.959963984540054
"""The normal distribution's 97.5 % point, for 95 % intervals."""


@dataclass(frozen=True)
class RowMoments:
    """Rows of n examples, with the mean of all rows and a factor of their covariance.

    Attributes:
        rows: (n, L, q) float64 rows minus their mean, equally many for each example.
        mean: (q,).
        factor: A (q, rank), with A A' the covariance (divisor n L).
        left_inverse: its pseudo-inverse (rank, q).
        variance: total variance, the trace of the covariance.
    """

    rows: Tensor
    mean: Tensor
    factor: Tensor
    left_inverse: Tensor
    variance: float

    @classmethod
    def of(cls, rows: Tensor) -> RowMoments:
        """Compute the moments of rows (n, L, q) of any float type.

        Raises:
            NumericalError: NaN or inf, or no algorithm converges.
        """
        given = rows.detach().double()
        mean = given.mean((0, 1))
        centred = given - mean
        flat = centred.flatten(0, 1)
        values, vectors = eigh(flat.T @ flat / len(flat))
        kept = values > max(flat.shape) * torch.finfo(torch.float64).eps * values.amax().clamp(min=0)
        roots, vectors = values[kept].sqrt(), vectors[:, kept]
        return cls(centred, mean, vectors * roots, (vectors / roots).T,
                   float(flat.square().sum() / len(flat)))


def estimate_frechet(native: RowMoments, other: RowMoments) -> Estimate:
    """Estimate the squared Fréchet distance of Gaussians with the moments of two sets of rows.

    It is in units of the native total variance (see `frechet`). The 95 % interval is the delta method's over
    examples: the derivative of the nuclear norm by a covariance is the optimal transport map from it to the
    other (Gelbrich 1990), so that each example's influence is a quadratic form of its rows. Both ends are at
    least 0. Rows of one example may depend on each other.

    Args:
        native, other: of the same examples, in the same order.

    Returns:
        A missing value with its reason where the native rows are constant.

    Raises:
        NumericalError: no algorithm factorises the covariances.
    """
    expect(native.rows.shape == other.rows.shape, f"rows {tuple(native.rows.shape)}",
           tuple(other.rows.shape), "give rows of the same examples")
    if not native.variance or not native.factor.shape[1]:
        return make_missing_estimate("the target's representation is constant")
    shift, n = other.mean - native.mean, len(native.rows)
    if other.factor.shape[1]:
        u, s, vh = svd(native.factor.T @ other.factor)
        norm, turn = float(s.sum()), u @ vh
    else:
        norm, turn = 0.0, native.factor.new_zeros(native.factor.shape[1], 0)
    total = float(shift @ shift) + other.variance + native.variance - 2 * norm
    value = max(0.0, total) / native.variance
    own, theirs = _transport(native, other, turn.T), _transport(other, native, turn)
    eye = torch.eye(len(own), dtype=own.dtype, device=own.device)
    influence = (_average(native.rows, (1 - value) * eye - own) - (1 - value) * native.variance + norm
                 + _average(other.rows, eye - theirs) - other.variance + norm
                 + 2 * (other.rows.mean(1) - native.rows.mean(1)) @ shift) / native.variance
    half = NORMAL_95 * math.sqrt(float(influence.square().sum())) / n
    return Estimate(value, max(0.0, value - half), value + half)


def _transport(of: RowMoments, to: RowMoments, turn: Tensor) -> Tensor:
    """Return the optimal map (q, q) from one Gaussian to the other.

    It is A_to R A_of^+, with the turn R = U V' of the singular value decomposition of A_to' A_of.
    """
    return to.factor @ turn @ of.left_inverse


def _average(rows: Tensor, form: Tensor) -> Tensor:
    """Return the mean of x'Fx over the rows x of each example, (n,)."""
    return ((rows @ form) * rows).sum(2).mean(1)
