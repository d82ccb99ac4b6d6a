"""Linear centred kernel alignment (Kornblith et al. 2019) and its relatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.indices.definition import RIGID, Index, Needs
from suture.numbers import Pair, make_index_measure


def cka(pair: Pair) -> float:
    """Compute |Sxy|² / (|Sxx| |Syy|), with Frobenius norms of the scatter matrices.

    Source: Kornblith et al. 2019, table 1 and eq. 14.
    """
    m = pair.moments
    return float(m.sxy.square().sum() / (torch.linalg.matrix_norm(m.sxx) * torch.linalg.matrix_norm(m.syy)))


def cka_angular(pair: Pair) -> float:
    """Compute the angle whose cosine is biased CKA, a metric (Williams et al. 2021)."""
    return math.acos(min(1.0, cka(pair)))


def cka_debiased(pair: Pair) -> float:
    """Compute CKA from the unbiased estimator of HSIC (Song et al. 2012); it may be slightly negative.

    With centred rows the kernel matrices have zero row sums. So the estimator needs only |Sxy|², sum |x|²,
    sum |y|² and sum |x|²|y|².
    """
    m = pair.moments
    kx, ky = torch.trace(m.sxx), torch.trace(m.syy)
    xy = _hsic(m.n, m.sxy.square().sum(), m.cross.xx_yy, kx, ky)
    return xy / math.sqrt(_compute_own_hsic(pair, "x") * _compute_own_hsic(pair, "y"))


def explain_no_signal(pair: Pair) -> str:
    """Return the reason why debiased CKA is undefined, or an empty string.

    HSIC of a representation with itself vanishes where every row is equally far from every other.
    """
    if _compute_own_hsic(pair, "x") <= 0 or _compute_own_hsic(pair, "y") <= 0:
        return ("unbiased HSIC of a representation with itself is not positive: every row is equally far "
                "from every other")
    return ""


def _compute_own_hsic(pair: Pair, name: str) -> float:
    side = pair.moments.x if name == "x" else pair.moments.y
    k = torch.trace(side.gram)
    return _hsic(side.n, side.gram.square().sum(), side.quartic, k, k)


def _hsic(n: int, product: Tensor, joint: Tensor, kx: Tensor, ky: Tensor) -> float:
    """Compute unbiased HSIC times n (n - 3).

    It is tr(KL) - sum kl + sum k sum l / ((n-1)(n-2)) - 2 sum kl / (n-2).
    """
    return float(product - joint + kx * ky / ((n - 1) * (n - 2)) - 2 * joint / (n - 2))


def rv2(pair: Pair) -> float:
    """Compute RV2: CKA of Gram matrices of centred rows, with zero diagonals (Smilde et al. 2009)."""
    m = pair.moments
    own = _sum_off_diagonal(m.sxx, m.x.quartic) * _sum_off_diagonal(m.syy, m.y.quartic)
    return float((m.sxy.square().sum() - m.cross.xx_yy) / math.sqrt(own))


def _sum_off_diagonal(gram: Tensor, quartic: Tensor) -> float:
    """Compute the squared norm of the Gram matrix of rows off the diagonal."""
    return float(gram.square().sum() - quartic)


def explain_orthogonal_rows(pair: Pair) -> str:
    """Return the reason why RV2 is undefined, or an empty string.

    Rows that are orthogonal to each other leave nothing off the diagonal.
    """
    m = pair.moments
    for gram, quartic in ((m.sxx, m.x.quartic), (m.syy, m.y.quartic)):
        if _sum_off_diagonal(gram, quartic) <= 1e-12 * float(quartic):
            return "all rows are orthogonal to each other: nothing is left off the diagonal"
    return ""


ENTRIES = (
    Index(make_index_measure("cka", "CKA (biased)",
                             "Linear centred kernel alignment, biased HSIC (Kornblith et al. 2019)."),
          cka, "|Sxy|² / (|Sxx| |Syy|)", "Kornblith et al. 2019, table 1 and eq. 14", RIGID, RIGID),
    Index(make_index_measure("cka_debiased", "CKA (debiased)",
                     "Linear CKA from the unbiased HSIC estimator (Song et al. 2012; Nguyen et al. 2021).",
                             span=(-1.0, 1.0)),
          cka_debiased, "HSIC₁(X, Y) / sqrt(HSIC₁(X, X) HSIC₁(Y, Y)), HSIC₁ the unbiased estimator",
          "Song et al. 2012; Nguyen et al. 2021, eq. 3", RIGID, RIGID, Needs.HIGHER, 4, explain_no_signal),
    Index(make_index_measure("rv2", "RV2 (zero diagonal)", "CKA of Gram matrices without their diagonals "
                                                           "(Smilde et al. 2009).", span=(-1.0, 1.0)),
          rv2, "(|Sxy|² - Σ|x|²|y|²) / sqrt((|Sxx|² - Σ|x|⁴)(|Syy|² - Σ|y|⁴)), rows centred",
          "Smilde et al. 2009", RIGID, RIGID, Needs.HIGHER, 3, explain_orthogonal_rows),
    Index(make_index_measure("cka_angular",
                             "CKA (angular)", "Arc cosine of biased CKA, in radians (Williams et al. 2021).",
                             high=math.pi / 2, larger=False, form="cosine"),
          cka_angular, "arccos(cka)", "Williams et al. 2021", RIGID, RIGID),
)
