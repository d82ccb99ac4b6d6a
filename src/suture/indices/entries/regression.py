"""Linear regression of the target on the source: on the fitted data, with a penalty, and on held-out data."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from suture.indices.definition import (
    AFFINE,
    ORTHOGONAL,
    RIGID,
    SCALING,
    Argument,
    Index,
    Needs,
    expand_invariances,
)
from suture.numbers import (
    MomentBlock,
    Pair,
    Spectrum,
    compute_squared_error,
    leave_out,
    make_index_measure,
    merge_blocks,
    solve_least_squares,
)

FOLDS = 5
"""Number of folds for cross-validation; more blocks than this are merged into as many folds."""


def r2(pair: Pair) -> float:
    """Compute the share of the target's variance that the source explains (Kornblith et al. 2019, eq. 5).

    It is tr(Syx Sxx^+ Sxy) / tr Syy. Direct matching reaches it on the data that it was fitted to.
    """
    return _compute_explained(pair) / float(torch.trace(pair.moments.syy))


def _compute_explained(pair: Pair) -> float:
    return float((pair.loadings.square().sum(1) / pair.x.values).sum())


def dm_residual(pair: Pair) -> float:
    """Compute |S - T|² / |T|² of direct matching on the data it was fitted to.

    S is the stitched representation, T the target's own. They are not centred.
    """
    m = pair.moments
    total = float(torch.trace(m.syy))
    return max(0.0, total - _compute_explained(pair)) / (total + m.n * float(m.y.mean @ m.y.mean))


def r2_ridge(pair: Pair, strength: float) -> float:
    """Compute R² of ridge regression on the fitted data.

    The penalty is `strength` times the mean eigenvalue of the source's scatter.
    """
    m = pair.moments
    penalised = pair.x.add_ridge(m, strength)
    shares = (2 - pair.x.values / penalised) / penalised
    return float((pair.loadings.square().sum(1) * shares).sum() / torch.trace(m.syy))


def r2_folds(pair: Pair) -> float:
    """Compute R² of regressions on blocks that they were not fitted to, errors summed over all folds."""
    folds, error = [f.moments for f in merge_into_folds(pair.blocks)], 0.0
    outside = pair.outside or (None,) * len(folds)
    for k, held in enumerate(folds):
        m = leave_out(folds, k)
        weight = solve_least_squares(outside[k] or Spectrum.of(m.x, m.precision), m)
        error += float(compute_squared_error(weight, m.y.mean - weight @ m.x.mean, held))
    return 1 - error / float(torch.trace(pair.moments.syy))


def merge_into_folds(blocks: Sequence[MomentBlock]) -> list[MomentBlock]:
    """Merge blocks into at most `FOLDS` folds."""
    return merge_blocks(blocks, FOLDS)


def explain_too_few_rows(pair: Pair) -> str:
    """Return the reason why there are too few rows for regression, or an empty string.

    With rank x >= n - 1 the fit is perfect whatever the data.
    """
    n, r = pair.n, pair.x.rank
    if r < n - 1:
        return ""
    return (f"{n} rows for rank {r}: the regression fits anything; cka, opd and direct matching "
            "are still defined")


def explain_no_folds(pair: Pair) -> str:
    """Return the reason why cross-validation is impossible, or an empty string.

    It needs at least two blocks with rows, and a fit that is not perfect whatever the data.
    """
    folds = merge_into_folds(pair.blocks)
    if len(folds) < 2:
        return "no blocks of examples were kept apart: give at least two blocks"
    least = pair.n - max(f.moments.n for f in folds)
    if pair.x.rank < least - 1:
        return ""
    return f"{least} rows outside of a fold for rank {pair.x.rank}: the regression fits anything"


_STRENGTH = Argument("strength", 0.1, 0.0, 1e6,
                     "penalty, in mean eigenvalues of the source's scatter; 0 for `r2`")
_COST = "p³ per site, p²q"
ENTRIES = (
    Index(make_index_measure("r2", "regression R²",
                             "Share of the target's variance that an affine map of the source explains on "
                             "the data it was fitted to (Kornblith et al. 2019)."),
          r2, "tr(Syx Sxx⁺ Sxy) / tr Syy", "Kornblith et al. 2019, eq. 5", AFFINE, RIGID, least=3,
          undefined=explain_too_few_rows, cost=_COST),
    Index(make_index_measure("r2_ridge", "ridge R²",
                             "Share of the target's variance that ridge regression on the source explains, "
                             "strength 0.1 or the given one (Hoerl and Kennard 1970)."),
          r2_ridge, "1 - |Y - XW|² / tr Syy, W = (Sxx + s tr(Sxx) / p)⁻¹ Sxy", "Hoerl and Kennard 1970",
          RIGID, RIGID, least=3, argument=_STRENGTH, cost=_COST),
    Index(make_index_measure("r2_folds", "held-out R²",
                             "Share of the target's variance that an affine map of the source explains on "
                             "examples that it was not fitted to, five-fold; below 0 where "
                             "worse than the mean.", span=(-float("inf"), 1.0)),
          r2_folds, "1 - Σ over folds |Y - XW - b|² / tr Syy, W and b from the other folds", "Stone 1974",
          AFFINE, RIGID, Needs.BLOCKS, 10, explain_no_folds, cost="5 p³ + 5 p²q"),
    Index(make_index_measure("dm_residual", "direct matching residual (fit)",
                             "|S - T|² / |T|² of direct matching on the data it was fitted to, S stitched, T "
                             "the target's own (Balogh and Jelasity 2025).", larger=False, form="negative"),
          dm_residual, "(tr Syy - tr(Syx Sxx⁺ Sxy)) / (tr Syy + n |mean y|²)", "Balogh and Jelasity 2025",
          AFFINE,
          expand_invariances(SCALING, ORTHOGONAL), least=3, undefined=explain_too_few_rows, cost=_COST),
)
