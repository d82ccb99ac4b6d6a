"""Direct matching: the affine map that best reproduces the target's own representation, from moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from suture._base import SutureError
from suture.numbers import (
    Moments,
    Pair,
    Spectrum,
    compute_squared_error,
    find_varying_columns,
    leave_out,
    solve_least_squares,
)
from suture.stitching.families import FULL, Family

RIDGE_STRENGTHS = tuple(10.0**k for k in range(-6, 3))
"""What ridge:cv chooses from."""
SPARSE_TOLERANCE = 1e-9
"""Largest violation of the optimality conditions of sparse, relative to its penalty."""
SPARSE_STEPS = 10_000
"""Most steps that sparse takes to get there."""


@dataclass(frozen=True)
class DirectMatch:
    """The least-squares affine map of one cell and how it was found.

    Attributes:
        weight: (q, p) float64.
        bias: (q,) float64.
        rank: directions of the source above the rank cut, which are all that was used.
        condition: largest over smallest eigenvalue of the source's scatter along them.
        residual: |S - T|² / |T - mean|² of this map on the data it was fitted to: 1 - R². Above 1 where the
            map is worse than the target's mean, which families without free scale or shift may be.
        family: as it was asked for.
        strength: of the penalty, with ridge:cv the one that was chosen; None without a penalty.
    """

    weight: Tensor
    bias: Tensor
    rank: int
    condition: float
    residual: float
    family: Family = FULL
    strength: float | None = None


def direct_match(pair: Pair, family: Family = FULL, folds: Sequence[Moments] | None = None) -> DirectMatch:
    """The W and b of `family` that minimise sum |W x + b - y|² over all rows, plus the family's penalty.

    - full: W = Syx Sxx^+. The pseudo-inverse drops the directions below
      `suture.numbers.spectra.compute_rank_cut`; among the minimisers of a rank-deficient source it is the one
      of least norm. (Balogh and Jelasity 2025, direct matching; Csiszarik et al. 2021, section 3.2.)
    - ridge: the penalty is lambda |W|², lambda = strength * tr(Sxx) / p: relative to the mean scatter of a
      source channel, so that it does not depend on the units of the source or the number of rows. It is the
      ``alpha`` of scikit-learn's ``Ridge``: alpha = strength * sum |x - mean|² / p. (Hoerl and Kennard 1970.)
    - rank: W = V_k V_k' Syx Sxx^+, V_k the first k eigenvectors of the scatter of the fitted values: the
      minimiser among the maps of rank at most k (reduced-rank regression, Izenman 1975).
    - orthogonal: W = s U V' with U D V' = Syx and s = tr D / tr Sxx, or 1 without free scale (Schonemann
      1966; exact also for isometries, p < q, because |Q x| = |x| for every Q with orthonormal columns).
      Without free shift the second moments are those about zero.
    - diagonal: the regression of each target channel on the source channel of the same number.
    - permutation: the assignment of source to target channels with the largest sum of correlations (a
      constant channel has correlation 0), by `scipy.optimize.linear_sum_assignment` (Li et al. 2015); b the
      means' difference.
    - identity: W = I, b = 0.
    - sparse: the lasso. Half the mean squared error plus alpha sum |W|, alpha = strength * (the largest alpha
      at which W is not 0) = strength * max |Syx| / n; it is the ``alpha`` of scikit-learn's ``Lasso``.
      Accelerated proximal gradient with restarts (Beck and Teboulle 2009; O'Donoghue and Candes 2015) until
      no entry violates the optimality conditions by more than `SPARSE_TOLERANCE` alpha, for at most
      `SPARSE_STEPS` steps.

    Everything in float64. A constant source gives W = 0, b = mean y where the family holds that map.

    Args:
        pair: moments of the cell; a `Spectrum` of the source serves all cells of that source and alignment.
        family: default every affine map.
        folds: moments of disjoint parts of the data, for ridge:cv (`choose_ridge`); others do not look at
            them.

    Raises:
        SutureError: widths that the family does not allow, ridge:cv without folds, sparse that does not
            converge.
    """
    m = pair.moments
    family.check(*m.sxy.shape)
    strength = family.strength
    if strength == "cv":
        if folds is None:
            raise SutureError("expected moments of folds of the data to choose the strength of ridge:cv, got "
                              "none; pass folds, or write ridge:0.1")
        strength = choose_ridge(folds)
    weight = _SOLVERS[family.name](pair, replace(family, strength=strength))
    bias = m.y.mean - weight @ m.x.mean if family.shifts else torch.zeros_like(m.y.mean)
    return DirectMatch(weight, bias, pair.x.rank, pair.x.condition, compute_residual(weight, bias, m),
                       family, strength)


def compute_residual(weight: Tensor, bias: Tensor, moments: Moments) -> float:
    """sum |W x + b - y|² / sum |y - mean|² over the rows of `moments`, for any map, wherever it was fitted.

    Exact algebra on second moments, so as precise as they are. nan for a constant target.

    Args:
        weight: (q, p), any float type; computed in float64.
        bias: (q,).
        moments: of source (n, p) and target (n, q).

    Raises:
        SutureError: shapes that do not fit.
    """
    p, q = moments.sxy.shape
    if weight.shape != (q, p) or bias.shape != (q,):
        raise SutureError(f"expected weight {(q, p)} and bias {(q,)} for these moments, got "
                          f"{tuple(weight.shape)} and {tuple(bias.shape)}; weight is (target, "
                          "source) channels")
    total = torch.trace(moments.syy)
    return float(compute_squared_error(weight, bias, moments) / total) if float(total) > 0 else float("nan")


def choose_ridge(folds: Sequence[Moments], strengths: Sequence[float] = RIDGE_STRENGTHS) -> float:
    """The strength with the smallest held-out squared error: each fold in turn is left out of the fit.

    Closed form from the moments of the folds; errors are summed over the folds. The first of equals.

    Args:
        folds: moments of at least two disjoint parts of the data, whole examples in each.
        strengths: to choose from, each above 0.

    Raises:
        SutureError: fewer than two folds, or no strength above 0 to choose from.
    """
    if len(folds) < 2:
        raise SutureError("expected at least two folds to choose a ridge strength, got "
                          f"{len(folds)}; split the data")
    if not strengths or min(strengths) <= 0:
        raise SutureError(f"expected ridge strengths above 0, got {list(strengths)}; leave them "
                          "out for 1e-6 to 100")
    errors = [0.0] * len(strengths)
    for k, held in enumerate(folds):
        m = leave_out(folds, k)
        x = Spectrum.of(m.x, m.precision)
        for i, s in enumerate(strengths):
            weight = solve_least_squares(x, m, s)
            errors[i] += float(compute_squared_error(weight, m.y.mean - weight @ m.x.mean, held))
    return strengths[errors.index(min(errors))]


def _solve_full(pair: Pair, family: Family) -> Tensor:
    return solve_least_squares(pair.x, pair.moments)


def _solve_ridge(pair: Pair, family: Family) -> Tensor:
    return solve_least_squares(pair.x, pair.moments, cast(float, family.strength))


def _solve_rank(pair: Pair, family: Family) -> Tensor:
    # The fitted values' scatter is the square of this matrix, which holds twice the digits.
    fitted = (pair.x.vectors / pair.x.values.sqrt()).T @ pair.moments.sxy
    first: Tensor = torch.linalg.svd(fitted, full_matrices=False).Vh[:family.rank]
    scores: Tensor = first @ solve_least_squares(pair.x, pair.moments)
    return torch.mm(first.T, scores)


def _solve_orthogonal(pair: Pair, family: Family) -> Tensor:
    m = pair.moments
    syx, scatter = m.sxy.T, torch.trace(m.sxx)
    if not family.shift:
        syx = syx + m.n * torch.outer(m.y.mean, m.x.mean)
        scatter = scatter + m.n * m.x.mean @ m.x.mean
    u, d, vh = torch.linalg.svd(syx, full_matrices=False)
    rotation = torch.mm(u, vh)
    if not family.scale:
        return rotation
    constant = float(scatter) <= 0 or (family.shift and pair.x.rank == 0)
    return torch.zeros_like(syx) if constant else d.sum() / scatter * rotation


def _solve_diagonal(pair: Pair, family: Family) -> Tensor:
    m = pair.moments
    slopes = m.sxy.diagonal() / m.sxx.diagonal()
    return torch.where(find_varying_columns(m.x, m.precision), slopes, 0.0).diag()


def _solve_permutation(pair: Pair, family: Family) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    m = pair.moments
    rows, columns = linear_sum_assignment(pair.correlations.cpu().numpy(), maximize=True)
    weight = torch.zeros_like(m.sxy.T)
    weight[columns, rows] = 1
    return weight


def _solve_identity(pair: Pair, family: Family) -> Tensor:
    return torch.eye(pair.x.width).to(pair.moments.sxx)


def _solve_sparse(pair: Pair, family: Family) -> Tensor:
    x, n = pair.x, pair.moments.n
    # Without the directions below the rank cut: rounding must not make the objective concave along them.
    gram = (x.vectors * x.values) @ x.vectors.T / n
    cross = (x.vectors @ (x.vectors.T @ pair.moments.sxy)).T / n
    alpha = cast(float, family.strength) * float(cross.abs().max())
    weight = torch.zeros_like(cross)
    if alpha == 0:
        return weight
    step = n / float(x.values[0])
    ahead, momentum = weight, torch.ones_like(weight[:, :1])
    for _ in range(SPARSE_STEPS):
        new = torch.nn.functional.softshrink(ahead - step * (ahead @ gram - cross), step * alpha)
        moved = new - ahead
        # The subgradient at `new` is (I - step gram) moved / step, so no entry violates optimality by more
        # than twice this; it is exactly zero at the solution.
        if float(moved.abs().max()) <= step * alpha * SPARSE_TOLERANCE / 2:
            return new
        # Each row is a problem of its own, and restarts on its own where its momentum points uphill.
        momentum = torch.where((moved * (new - weight)).sum(1, keepdim=True) < 0, 1.0, momentum)
        grown = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = new + (momentum - 1) / grown * (new - weight)
        weight, momentum = new, grown
    raise SutureError(f"expected {family} to converge within {SPARSE_STEPS} steps, got a source of condition "
                      f"{x.condition:.1e}; write a larger strength, or ridge")


_SOLVERS: Mapping[str, Callable[[Pair, Family], Tensor]] = {
    "full": _solve_full, "ridge": _solve_ridge, "rank": _solve_rank, "orthogonal": _solve_orthogonal,
    "diagonal": _solve_diagonal,
    "permutation": _solve_permutation, "identity": _solve_identity, "sparse": _solve_sparse,
}
