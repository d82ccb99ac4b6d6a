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
"""Candidate strengths of ridge:cv."""
SPARSE_TOLERANCE = 1e-9
"""Largest violation of the optimality conditions of sparse, relative to its penalty."""
SPARSE_STEPS = 10_000
"""Largest number of steps for sparse."""


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
        family: the requested family.
        strength: of the penalty; with ridge:cv the chosen one; None without a penalty.
    """

    weight: Tensor
    bias: Tensor
    rank: int
    condition: float
    residual: float
    family: Family = FULL
    strength: float | None = None


def direct_match(pair: Pair, family: Family = FULL, folds: Sequence[Moments] | None = None) -> DirectMatch:
    """Return the W and b of `family` that minimise sum |W x + b - y|² over all rows, plus its penalty.

    - full: W = Syx Sxx^+. The pseudo-inverse drops the directions below
      `suture.numbers.spectra.compute_rank_cut`. For a rank-deficient source this is the minimiser of least
      norm. (Balogh and Jelasity 2025, direct matching; Csiszarik et al. 2021, section 3.2.)
    - ridge: the penalty is lambda |W|² with lambda = strength * tr(Sxx) / p. It is relative to the mean
      scatter of a source channel, so the units of the source and the number of rows do not matter. It is the
      ``alpha`` of scikit-learn's ``Ridge``: alpha = strength * sum |x - mean|² / p. (Hoerl and Kennard 1970.)
    - rank: W = V_k V_k' Syx Sxx^+, with V_k the first k eigenvectors of the scatter of the fitted values.
      This is the minimiser among the maps of rank at most k (reduced-rank regression, Izenman 1975).
    - orthogonal: W = s U V' with U D V' = Syx and s = tr D / tr Sxx; s = 1 without free scale (Schonemann
      1966). It is exact also for isometries (p < q), because |Q x| = |x| for every Q with orthonormal
      columns. Without free shift the second moments are about zero.
    - diagonal: the regression of each target channel on the source channel of the same number.
    - permutation: the assignment of source to target channels with the largest sum of correlations, by
      `scipy.optimize.linear_sum_assignment` (Li et al. 2015). A constant channel has correlation 0. b is the
      difference of the means.
    - identity: W = I, b = 0.
    - sparse: the lasso, which minimises half the mean squared error plus alpha sum |W|. alpha = strength *
      max |Syx| / n; at strength 1, W becomes 0. It is the ``alpha`` of scikit-learn's ``Lasso``. The solver
      is the accelerated proximal gradient with restarts (Beck and Teboulle 2009; O'Donoghue and Candes 2015).
      It stops when no entry violates the optimality conditions by more than `SPARSE_TOLERANCE` alpha, after
      at most `SPARSE_STEPS` steps.

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
    """Return sum |W x + b - y|² / sum |y - mean|² over the rows of `moments`.

    The map may come from anywhere. The result is exact algebra on second moments, so it is as precise as they
    are. It is nan for a constant target.

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
    """Return the strength with the smallest held-out squared error.

    Each fold in turn is left out of the fit. The errors follow in closed form from the moments and are summed
    over the folds. Among equal strengths the first one wins.

    Args:
        folds: moments of at least two disjoint parts of the data, whole examples in each.
        strengths: candidates, each above 0.

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
    # The scatter of the fitted values is the square of this matrix. The matrix itself keeps twice the digits.
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
    # Drop the directions below the rank cut: rounding could make the objective concave along them.
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
        # than twice this value. At the solution it is exactly zero.
        if float(moved.abs().max()) <= step * alpha * SPARSE_TOLERANCE / 2:
            return new
        # Rows are independent problems: each restarts by itself where its momentum points uphill.
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
