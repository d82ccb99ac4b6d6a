"""Linear centred kernel alignment (Kornblith et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.spectra import Pair


def biased(pair: Pair) -> float:
    """|Sxy|² / (|Sxx| |Syy|), Frobenius norms of the scatter matrices (Kornblith et al. 2019, eq. 5)."""
    m = pair.moments
    return float(m.sxy.square().sum() / (torch.linalg.matrix_norm(m.sxx) * torch.linalg.matrix_norm(m.syy)))


def debiased(pair: Pair) -> float:
    """CKA from the unbiased estimator of HSIC (Song et al. 2012, eq. 4), which may be slightly negative.

    With centred rows the kernel matrices have zero row sums, so the estimator needs only |Sxy|², sum |x|²,
    sum |y|² and sum |x|²|y|².
    """
    m = pair.moments
    kx, ky = torch.trace(m.sxx), torch.trace(m.syy)
    xy = _hsic(m.n, m.sxy.square().sum(), m.cross.xx_yy, kx, ky)
    return xy / math.sqrt(_own(pair, "x") * _own(pair, "y"))


def too_few(pair: Pair) -> str:
    """The estimator divides by n - 3, and its own-norms can be negative where there is no signal."""
    if pair.moments.n < 4:
        return f"{pair.moments.n} rows: the unbiased estimator needs at least 4"
    if _own(pair, "x") <= 0 or _own(pair, "y") <= 0:
        return "unbiased HSIC of a representation with itself is not positive: too few rows for this width"
    return ""


def _own(pair: Pair, name: str) -> float:
    side = pair.moments.x if name == "x" else pair.moments.y
    k = torch.trace(side.gram)
    return _hsic(side.n, side.gram.square().sum(), side.quartic, k, k)


def _hsic(n: int, product: Tensor, joint: Tensor, kx: Tensor, ky: Tensor) -> float:
    """Unbiased HSIC times n (n - 3): tr(KL) - sum kl + sum k sum l / ((n-1)(n-2)) - 2 sum kl / (n-2)."""
    return float(product - joint + kx * ky / ((n - 1) * (n - 2)) - 2 * joint / (n - 2))
