"""Linear regression of the target on the source."""

from __future__ import annotations

import torch

from suture.spectra import Pair


def r2(pair: Pair) -> float:
    """tr(Syx Sxx^+ Sxy) / tr Syy: the variance of the target that the source explains (Kornblith et al. 2019, eq. 8).

    It is what direct matching reaches on the data that it was fitted to.
    """
    loadings = pair.x.vectors.T @ pair.moments.sxy
    return float((loadings.square().sum(1) / pair.x.values).sum() / torch.trace(pair.moments.syy))


def too_few(pair: Pair) -> str:
    """With rank x >= n - 1 the fit is perfect whatever the data."""
    n, r = pair.moments.n, pair.x.rank
    if r < n - 1:
        return ""
    return f"{n} rows for rank {r}: the regression fits anything; cka, opd and direct matching are still defined"
