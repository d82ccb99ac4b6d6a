"""Linear regression of the target on the source: on the fitted data, with a penalty, and on held-out data."""

from __future__ import annotations

import torch

from suture.indices.definition import (
    AFFINE,
    RIGID,
    Argument,
    Needs,
    define_index,
    expand_invariances,
    require,
)
from suture.indices.nulls.classes import ClassedRows
from suture.indices.nulls.held_out import FOLDS, FoldedRows
from suture.numbers import (
    Pair,
    compute_squared_error,
    leave_out,
    merge_blocks,
    solve_least_squares,
)

_COST = "p³ per site, p²q"
_STRENGTH = Argument("strength", 0.1, 0.0, 1e6,
                     "penalty, in mean eigenvalues of the source's scatter; 0 for `r2`")


def _compute_explained(pair: Pair) -> float:
    """Compute the scatter of the target that an affine map of the source explains.

    With rank x >= n - 1 the fit is perfect whatever the data.
    """
    n, r = pair.independent, pair.x.rank
    require(r < n - 1, f"{n} rows for rank {r}: the regression fits anything; cka, opd and direct matching "
                       "are still defined")
    return float((pair.loadings.square().sum(1) / pair.x.values).sum())


def _expect_explained(pair: Pair) -> float:
    """Compute the expected R² of unrelated data: rank / (rows - 1)."""
    return pair.x.rank / pair.freedom


def _expect_ridge(pair: Pair, strength: float) -> float:
    penalised = pair.x.add_ridge(pair.moments, strength)
    shares = (2 - pair.x.values / penalised) * pair.x.values / penalised
    return float(shares.sum()) / pair.freedom


@define_index("r2", "regression R²", AFFINE, RIGID, formula="tr(Syx Sxx⁺ Sxy) / tr Syy",
              source="Kornblith et al. 2019, eq. 5", least=3, cost=_COST, symmetric=False,
              chance=_expect_explained)
def r2(pair: Pair) -> float:
    """Share of the target's variance that an affine map of the source explains on the data it was fitted to
    (Kornblith et al. 2019).
    """
    return _compute_explained(pair) / float(torch.trace(pair.moments.syy))


@define_index("r2_ridge", "ridge R²", RIGID, source="Hoerl and Kennard 1970", least=3, argument=_STRENGTH,
              formula="1 - |Y - XW|² / tr Syy, W = (Sxx + s tr(Sxx) / p)⁻¹ Sxy", cost=_COST, identical=None,
              symmetric=False, chance=_expect_ridge)
def r2_ridge(pair: Pair, strength: float) -> float:
    """Share of the target's variance that ridge regression on the source explains, strength 0.1 or the given
    one (Hoerl and Kennard 1970).
    """
    m = pair.moments
    penalised = pair.x.add_ridge(m, strength)
    shares = (2 - pair.x.values / penalised) / penalised
    return float((pair.loadings.square().sum(1) * shares).sum() / torch.trace(m.syy))


def _compute_within(rows: ClassedRows) -> float:
    """Compute R² within classes; maps and class means come from the other folds."""
    error, total, _ = rows.folded.compute_errors()
    return 1 - error / total


def _compute_permuted(rows: FoldedRows) -> float:
    """Compute held-out R² from kept rows, for permutations."""
    error, _, spread = rows.compute_errors()
    return 1 - error / spread


@define_index("r2_folds", "held-out R²", AFFINE, RIGID, needs=Needs.BLOCKS, least=10, source="Stone 1974",
              formula="1 - Σ over folds |Y - XW - b|² / tr Syy, W and b from the other folds",
              cost="5 p³ + 5 p²q", within=_compute_within, permuted=_compute_permuted,
              span=(-float("inf"), 1.0), symmetric=False)
def r2_folds(pair: Pair) -> float:
    """Share of the target's variance that an affine map of the source explains on examples that it was not
    fitted to, five-fold; below 0 where worse than the mean.
    """
    folds, error = [f.moments for f in merge_blocks(pair.blocks, FOLDS)], 0.0
    require(len(folds) > 1, "no blocks of examples were kept apart: give at least two blocks")
    least = pair.n - max(m.n for m in folds)
    require(pair.x.rank < least - 1,
            f"{least} rows outside of a fold for rank {pair.x.rank}: the regression fits anything")
    for k, held in enumerate(folds):
        m = leave_out(folds, k)
        weight = solve_least_squares(pair.find_outside(k, m), m)
        error += float(compute_squared_error(weight, m.y.mean - weight @ m.x.mean, held))
    return 1 - error / float(torch.trace(pair.moments.syy))


@define_index("dm_residual", "direct matching residual (fit)", AFFINE,
              expand_invariances("scaling", "orthogonal"), source="Balogh and Jelasity 2025", least=3,
              formula="(tr Syy - tr(Syx Sxx⁺ Sxy)) / (tr Syy + n |mean y|²)",
              cost=_COST, larger=False, form="negative", symmetric=False, chance=_expect_explained)
def dm_residual(pair: Pair) -> float:
    """|S - T|² / |T|² of direct matching on the data it was fitted to, S stitched, T the target's own (Balogh
    and Jelasity 2025).

    S and T are not centred.
    """
    m = pair.moments
    total = float(torch.trace(m.syy))
    return max(0.0, total - _compute_explained(pair)) / (total + m.n * float(m.y.mean @ m.y.mean))
