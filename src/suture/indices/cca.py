"""Canonical correlation analysis: mean CCA and projection weighted CCA."""

from __future__ import annotations

from suture.spectra import Pair


def mean(pair: Pair) -> float:
    """Mean of the min(rank x, rank y) canonical correlations (Kornblith et al. 2019, section 3)."""
    return float(pair.canonical[1].mean())


def weighted_by_source(pair: Pair) -> float:
    """PWCCA: correlations weighted by how much of the source each direction carries (Morcos et al. 2018, eq. 5).

    The weight of canonical variate h is sum_j |<h, x_j>| over the columns x_j of the centred source.
    """
    u, s, _ = pair.canonical
    alpha = ((pair.x.vectors * pair.x.values.sqrt()) @ u).abs().sum(0)
    return float(alpha @ s / alpha.sum())


def weighted_by_target(pair: Pair) -> float:
    """PWCCA with the weights taken from the target."""
    _, s, vh = pair.canonical
    alpha = ((pair.y.vectors * pair.y.values.sqrt()) @ vh.T).abs().sum(0)
    return float(alpha @ s / alpha.sum())


def too_few(pair: Pair) -> str:
    """With rank x + rank y >= n some correlations are 1 whatever the data."""
    n, rx, ry = pair.moments.n, pair.x.rank, pair.y.rank
    if rx + ry < n:
        return ""
    return (f"{n} rows for ranks {rx} and {ry}: canonical correlations need more rows than both ranks together; "
            "cka, opd and direct matching are still defined")


