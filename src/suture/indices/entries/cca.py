"""Canonical correlation analysis: mean CCA, SVCCA and projection weighted CCA."""

from __future__ import annotations

import torch
from torch import Tensor

from suture.indices.definition import (
    AFFINE,
    PERMUTATION,
    RIGID,
    SCALING,
    TRANSLATION,
    Argument,
    Index,
    expand_invariances,
)
from suture.numbers import Pair, Spectrum, make_index_measure


def mean_cca(pair: Pair) -> float:
    """Compute the mean of the min(rank x, rank y) canonical correlations (Kornblith et al. 2019, eq. 8)."""
    return float(pair.canonical[1].mean())


def mean_squared_cca(pair: Pair) -> float:
    """Compute the mean of the squared canonical correlations (Kornblith et al. 2019, eq. 7)."""
    return float(pair.canonical[1].square().mean())


def svcca(pair: Pair, variance: float) -> float:
    """Compute SVCCA, the mean canonical correlation of leading principal components (Raghu et al. 2017).

    Of each side it uses the components that hold the share `variance` of the variance.
    """
    kx, ky = count_both_components(pair, variance)
    roots = torch.outer(pair.x.values[:kx].sqrt(), pair.y.values[:ky].sqrt())
    return float(torch.linalg.svdvals(pair.rotated[:kx, :ky] / roots).mean())


def count_both_components(pair: Pair, variance: float) -> tuple[int, int]:
    """Count the principal components of source and target that SVCCA keeps."""
    return count_components(pair.x, variance), count_components(pair.y, variance)


def count_components(spectrum: Spectrum, variance: float) -> int:
    """Count the principal components that hold a share of the variance; at least one."""
    held = spectrum.values.cumsum(0) / spectrum.values.sum()
    # The tolerance keeps rounding from adding a component once the others hold all of the variance.
    return min(spectrum.rank, int((held < variance - 1e-12).sum()) + 1)


def pwcca(pair: Pair) -> float:
    """Compute PWCCA: correlations weighted by each direction's share of the source (Morcos et al. 2018).

    The weight of canonical variate h is sum_j |<h, x_j>| over the columns x_j of the centred source
    (Kornblith et al. 2019, eq. 9).
    """
    u, s, _ = pair.canonical
    return _weight_correlations(pair.x, u, s)


def pwcca_target(pair: Pair) -> float:
    """Compute PWCCA with weights from the target."""
    _, s, vh = pair.canonical
    return _weight_correlations(pair.y, vh.T, s)


def _weight_correlations(side: Spectrum, directions: Tensor, correlations: Tensor) -> float:
    alpha = ((side.vectors * side.values.sqrt()) @ directions).abs().sum(0)
    return float(alpha @ correlations / alpha.sum())


def explain_too_few_rows(pair: Pair) -> str:
    """Return the reason why there are too few rows for CCA, or an empty string.

    With rank x + rank y >= n some correlations are 1 whatever the data.
    """
    n, rx, ry = pair.n, pair.x.rank, pair.y.rank
    if rx + ry < n:
        return ""
    return (f"{n} rows for ranks {rx} and {ry}: canonical correlations need more rows than both ranks "
            "together; cka, opd and direct matching are still defined")


_SCALE = expand_invariances(TRANSLATION, SCALING, PERMUTATION)
_COST = "p³ + q³ per site, pq min(p, q)"
_VARIANCE = Argument("variance", 0.99, 0.01, 1.0,
                     "share of the variance that the kept principal components of each side hold; smaller "
                     "where the small ones are noise, 1 for mean CCA")
ENTRIES = (
    Index(make_index_measure("cca", "mean CCA",
                             "Mean canonical correlation (Raghu et al. 2017; Kornblith et al. 2019)."),
          mean_cca, "Σρ / min(rank X, rank Y)", "Kornblith et al. 2019, eq. 8", AFFINE, AFFINE, least=4,
          undefined=explain_too_few_rows, cost=_COST),
    Index(make_index_measure("cca_squared", "mean squared CCA",
                             "Mean squared canonical correlation (Kornblith et al. 2019)."),
          mean_squared_cca, "Σρ² / min(rank X, rank Y)", "Kornblith et al. 2019, eq. 7", AFFINE, AFFINE,
          least=4, undefined=explain_too_few_rows, cost=_COST),
    Index(make_index_measure("svcca", "SVCCA",
                             "Mean canonical correlation of the principal components that hold 99 % of the "
                             "variance, or the given share (Raghu et al. 2017)."),
          svcca, "mean CCA of the leading principal components of each side", "Raghu et al. 2017", RIGID,
          RIGID, least=4, undefined=explain_too_few_rows, argument=_VARIANCE, cost=_COST,
          regime=count_both_components),
    Index(make_index_measure("pwcca", "PWCCA (source weighted)",
                             "Projection weighted CCA, weights from the source (Morcos et al. 2018)."),
          pwcca, "Σαρ / Σα, α of a variate h: Σ|⟨h, x⟩| over the columns x of the source",
          "Morcos et al. 2018; Kornblith et al. 2019, eq. 9", _SCALE, AFFINE, least=4,
          undefined=explain_too_few_rows, cost=_COST, smooth=False),
    Index(make_index_measure("pwcca_target", "PWCCA (target weighted)",
                             "Projection weighted CCA, weights from the target (Morcos et al. 2018)."),
          pwcca_target, "Σαρ / Σα, α from the columns of the target",
          "Morcos et al. 2018; Kornblith et al. 2019, eq. 9", AFFINE, _SCALE, least=4,
          undefined=explain_too_few_rows, cost=_COST, smooth=False),
)
