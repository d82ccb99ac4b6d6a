"""Direct matching: the affine map of least squared error, and solvers of families without a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import expect
from suture.numbers import Moments, Pair, Spectrum, compute_squared_error, find_assignment, leave_out
from suture.stitching.family import FULL, Family

RIDGE_STRENGTHS = tuple(10.0**k for k in range(-6, 3))
"""Candidate strengths of ridge:cv."""
LARGEST_DROP = 0.1
"""Largest fall of R² from fitting to new data that is not marked. On the digits, means over cells fall by 0.2
with 25 examples and by 0.04 with 100 (benchmarks/direct_matching.py)."""
LASSO_TOLERANCE = 1e-9
"""Largest violation of the lasso's optimality conditions, relative to its penalty."""
LASSO_STEPS = 10_000
"""Maximum number of steps of the lasso solver."""


@dataclass(frozen=True)
class DirectMatch:
    """The least-squares affine map of one cell, with diagnostics of the fit.

    Attributes:
        weight, bias: W (q, p) and b (q,), float64.
        rank: number of source directions above the rank cut. Only these are used in the fit.
        condition: largest over smallest eigenvalue of the source's scatter along them.
        residual: 1 - R² = |S - T|² / |T - mean|² on the fitting data. It can exceed 1 in families without
            free scale or shift.
        expected: the residual that new rows would have, residual (n + k) / (n - k) for n independent rows and
            k parameters per target channel (Akaike 1970); inf for n <= k.
        family: family of the map; for ridge:cv, ridge with the chosen strength.
    """

    weight: Tensor
    bias: Tensor
    rank: int
    condition: float
    residual: float
    expected: float
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
    chosen = family.choose(folds, pair)
    weight = chosen.solve(pair)
    bias = chosen.find_shift(weight, m)
    residual, n = compute_residual(weight, bias, m), pair.independent
    k = chosen.count_parameters(weight, pair) + chosen.shift
    # A fit without residual is exact, whatever the number of rows that it took, unless any rows are fitted.
    expected = residual * (n + k) / (n - k) if n > k else math.inf
    return DirectMatch(weight, bias, pair.x.rank, pair.x.condition, residual, expected, chosen)


def explain_overfit(residual: float, expected: float, tested: float | None) -> str:
    """Return the mark of a direct-matching cell whose fit does not carry over to new data; "" if it does.

    Args:
        residual, expected: of its `DirectMatch`.
        tested: R² on test data; None where the test data are the fitting data. Then `expected` decides.
    """
    fit, new = 1 - residual, 1 - expected if tested is None else tested
    if not fit - new > LARGEST_DROP:
        return ""
    where = "expected on new data, from the number of rows" if tested is None else "on the test data"
    worst = "below 0" if new < -9.99 else f"{new:.2f}"
    return f"does not generalise: R² {fit:.2f} on the fitting data, {worst} {where}"


def compute_residual(weight: Tensor, bias: Tensor, moments: Moments) -> float:
    """Return sum |W x + b - y|² / sum |y - mean|² of any map W (q, p), b (q,); nan for a constant target."""
    total = torch.trace(moments.syy)
    return float(compute_squared_error(weight, bias, moments) / total) if float(total) > 0 else float("nan")


def choose_ridge(folds: Sequence[Moments], pair: Pair | None = None) -> float:
    """Return the strength in `RIDGE_STRENGTHS` with the least held-out squared error.

    `folds` are the moments of two or more disjoint parts of the data, each of whole examples. Each is left
    out of the fit once, and the errors are summed. Cells that share the spectra of `pair`, that of all folds,
    share those of the source outside of each fold.
    """
    expect(len(folds) >= 2, "moments of at least two folds of the data for ridge:cv", len(folds),
           "pass folds, or write ridge:0.1")
    errors = []
    for k, held in enumerate(folds):
        m = leave_out(folds, k)
        errors.append(_compute_held_out((pair or Pair.of(m)).find_outside(k, m), m, held))
    return RIDGE_STRENGTHS[int(torch.stack(errors).sum(0).argmin())]


def _compute_held_out(x: Spectrum, m: Moments, held: Moments) -> Tensor:
    """Return the squared errors on `held` of ridge maps fitted to `m`, one for each of `RIDGE_STRENGTHS`.

    Along the principal directions V of the source, W' = V D A with A = V'Sxy and a diagonal D, which alone
    depends on the strength. So all products of matrices are made once.
    """
    a = x.vectors.T @ m.sxy
    own, cross = x.vectors.T @ held.sxx @ x.vectors * (a @ a.T), (a * (x.vectors.T @ held.sxy)).sum(1)
    moved, off = x.vectors.T @ (held.x.mean - m.x.mean), m.y.mean - held.y.mean
    errors = []
    for strength in RIDGE_STRENGTHS:
        d = 1 / x.add_ridge(m, strength)
        shift = (d * moved) @ a + off
        errors.append(d @ own @ d - 2 * d @ cross + torch.trace(held.syy) + held.n * shift @ shift)
    return torch.stack(errors)


def solve_lasso(pair: Pair, strength: float) -> Tensor | None:
    """Return the W (q, p) that minimises half the mean squared error plus alpha sum |W|, or None.

    alpha = strength * max |Syx| / n is the ``alpha`` of scikit-learn's ``Lasso``; strength 1 gives W = 0. The
    method is accelerated proximal gradient with restarts (Beck and Teboulle 2009; O'Donoghue and Candes
    2015). The result is None if `LASSO_STEPS` steps do not reach `LASSO_TOLERANCE`.
    """
    x, n = pair.x, pair.moments.n
    # Drop the directions below the rank cut: rounding could make the objective concave along them.
    gram = (x.vectors * x.values) @ x.vectors.T / n
    cross = (x.vectors @ (x.vectors.T @ pair.moments.sxy)).T / n
    alpha = strength * float(cross.abs().max())
    weight = torch.zeros_like(cross)
    if alpha == 0:
        return weight
    step = n / float(x.values[0])
    ahead, momentum = weight, torch.ones_like(weight[:, :1])
    for _ in range(LASSO_STEPS):
        new = F.softshrink(ahead - step * (ahead @ gram - cross), step * alpha)
        moved = new - ahead
        # The subgradient at `new` is (I - step gram) moved / step, so no entry violates optimality by more
        # than twice this value. At the solution it is exactly zero.
        if float(moved.abs().max()) <= step * alpha * LASSO_TOLERANCE / 2:
            return new
        # Rows are independent problems: each restarts by itself where its momentum points uphill.
        momentum = torch.where((moved * (new - weight)).sum(1, keepdim=True) < 0, 1.0, momentum)
        grown = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = new + (momentum - 1) / grown * (new - weight)
        weight, momentum = new, grown
    return None


def assign_rows(values: Tensor) -> Tensor:
    """Return the permutation matrix that maximises the sum of the selected `values` (n, n)."""
    rows, columns = find_assignment(values)
    found = torch.zeros_like(values)
    found[rows, columns] = 1
    return found
