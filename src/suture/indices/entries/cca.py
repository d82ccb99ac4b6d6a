"""Canonical correlation analysis: mean CCA, SVCCA and projection weighted CCA."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from suture.indices.definition import AFFINE, RIGID, Argument, define_index, expand_invariances, require
from suture.numbers import Pair, Spectrum, svdvals

_SCALE = expand_invariances("translation", "scaling", "permutation")
_COST = "p³ + q³ per site, pq min(p, q)"
_VARIANCE = Argument("variance", 0.99, 0.01, 1.0,
                     "share of the variance that the kept principal components of each side hold; smaller "
                     "where the small ones are noise, 1 for mean CCA")


def compute_correlations(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the canonical correlations with their directions, see `suture.numbers.Pair.canonical`.

    With rank x + rank y >= n some of them are 1 whatever the data.
    """
    _require_rows(pair)
    return pair.canonical


def _require_rows(pair: Pair) -> None:
    n, rx, ry = pair.independent, pair.x.rank, pair.y.rank
    require(rx + ry < n, f"{n} rows for ranks {rx} and {ry}: canonical correlations need more rows than both "
                         "ranks together; cka, opd and direct matching are still defined")


def _expect_squared(pair: Pair) -> float:
    """Compute the expected mean squared correlation of unrelated normal data: rank / (rows - 1)."""
    return max(pair.x.rank, pair.y.rank) / pair.freedom


def _expect_mean(pair: Pair) -> float:
    """Compute the root mean squared correlation of unrelated data, which the mean reaches up to 15 %."""
    return math.sqrt(_expect_squared(pair))


@define_index("cca", "mean CCA", AFFINE, formula="Σρ / min(rank X, rank Y)",
              source="Kornblith et al. 2019, eq. 8", least=4, cost=_COST, chance=_expect_mean)
def cca(pair: Pair) -> float:
    """Mean canonical correlation (Raghu et al. 2017; Kornblith et al. 2019)."""
    return float(compute_correlations(pair)[1].mean())


@define_index("cca_squared", "mean squared CCA", AFFINE, formula="Σρ² / min(rank X, rank Y)",
              source="Kornblith et al. 2019, eq. 7", least=4, cost=_COST, chance=_expect_squared)
def cca_squared(pair: Pair) -> float:
    """Mean squared canonical correlation (Kornblith et al. 2019)."""
    return float(compute_correlations(pair)[1].square().mean())


def count_components(pair: Pair, variance: float) -> tuple[int, int]:
    """Count the principal components of source and target that hold a share of the variance; at least one."""
    x, y = (_count_leading(side, variance) for side in (pair.x, pair.y))
    return x, y


def _count_leading(spectrum: Spectrum, variance: float) -> int:
    held = spectrum.values.cumsum(0) / spectrum.values.sum()
    # The tolerance keeps rounding from adding a component once the others hold all of the variance.
    return min(spectrum.rank, int((held < variance - 1e-12).sum()) + 1)


@define_index("svcca", "SVCCA", RIGID, formula="mean CCA of the leading principal components of each side",
              source="Raghu et al. 2017", least=4, argument=_VARIANCE, cost=_COST, regime=count_components,
              chance=lambda pair, variance: math.sqrt(max(count_components(pair, variance)) / pair.freedom))
def svcca(pair: Pair, variance: float) -> float:
    """Mean canonical correlation of the principal components that hold 99 % of the variance, or the given
    share (Raghu et al. 2017).
    """
    _require_rows(pair)
    kx, ky = count_components(pair, variance)
    roots = torch.outer(pair.x.values[:kx].sqrt(), pair.y.values[:ky].sqrt())
    return float(svdvals(pair.rotated[:kx, :ky] / roots).mean())


def _weight_correlations(pair: Pair, side: int) -> float:
    """Average correlations, each weighted by sum_j |<h, x_j>|.

    h is its canonical variate, and x_j are the columns of the centred side (Kornblith et al. 2019, eq. 9).
    """
    correlations, alpha = compute_correlations(pair)[1], pair.weights[side]
    return float(alpha @ correlations / alpha.sum())


_define_weighted = partial(define_index, least=4, source="Morcos et al. 2018; Kornblith et al. 2019, eq. 9",
                           cost=_COST, smooth=False, symmetric=False, paper=True, chance=_expect_mean)


@_define_weighted("pwcca", "PWCCA (source weighted)", _SCALE, AFFINE,
                  formula="Σαρ / Σα, α of a variate h: Σ|⟨h, x⟩| over the columns x of the source")
def pwcca(pair: Pair) -> float:
    """Projection weighted CCA, weights from the source (Morcos et al. 2018)."""
    return _weight_correlations(pair, 0)


@_define_weighted("pwcca_target", "PWCCA (target weighted)", AFFINE, _SCALE,
                  formula="Σαρ / Σα, α from the columns of the target")
def pwcca_target(pair: Pair) -> float:
    """Projection weighted CCA, weights from the target (Morcos et al. 2018)."""
    return _weight_correlations(pair, 1)
