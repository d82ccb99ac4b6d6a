"""Linear centred kernel alignment (Kornblith et al. 2019) and its relatives.

HSIC is computed from moments or from Gram matrices (`suture.indices.Kernels`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suture.indices.definition import LEAST_EXAMPLES, Needs, define_index
from suture.indices.gram_matrices import Kernels
from suture.indices.transformations import RIGID
from suture.numbers import Moments, Pair, Side


@define_index("cka", "CKA (biased)", RIGID, formula="|Sxy|² / (|Sxx| |Syy|)",
              source="Kornblith et al. 2019, table 1 and eq. 14",
              flat=lambda kernels: kernels.biased.alignment, paper=True)
def cka(pair: Pair) -> float:
    """Linear centred kernel alignment, biased HSIC (Kornblith et al. 2019)."""
    m = pair.moments
    return float(m.sxy.square().sum() / (torch.linalg.matrix_norm(m.sxx) * torch.linalg.matrix_norm(m.syy)))


def explain_no_signal(data: Pair | Kernels) -> str:
    """Return the reason why debiased CKA is undefined, or an empty string.

    HSIC of a representation with itself vanishes where every row is equally far from every other.
    """
    flat = (data.unbiased.flat if isinstance(data, Kernels) else
            [name for name, side in (("source", data.moments.x), ("target", data.moments.y))
             if _compute_own_hsic(side) <= 0])
    return (f"unbiased HSIC of the {' and '.join(flat)} with itself is not positive: every row is equally "
            "far from every other" if flat else "")


@define_index("cka_debiased", "CKA (debiased)", RIGID, needs=Needs.HIGHER, least=LEAST_EXAMPLES,
              formula="HSIC₁(X, Y) / sqrt(HSIC₁(X, X) HSIC₁(Y, Y)), HSIC₁ the unbiased estimator",
              source="Song et al. 2012; Nguyen et al. 2021, eq. 3", undefined=explain_no_signal,
              span=(-1.0, 1.0), flat=lambda kernels: kernels.unbiased.alignment)
def cka_debiased(pair: Pair) -> float:
    """Linear CKA from the unbiased HSIC estimator (Song et al. 2012; Nguyen et al. 2021).

    It may be slightly negative.
    """
    m = pair.moments
    xy = _compute_hsic(m.n, m.sxy, m.cross.xx_yy, torch.trace(m.sxx), torch.trace(m.syy))
    return xy / math.sqrt(_compute_own_hsic(m.x) * _compute_own_hsic(m.y))


def _compute_own_hsic(side: Side) -> float:
    k = torch.trace(side.gram)
    return _compute_hsic(side.n, side.gram, side.quartic, k, k)


def _compute_hsic(n: int, scatter: Tensor, joint: Tensor, kx: Tensor, ky: Tensor) -> float:
    """Compute unbiased HSIC times n (n - 3), which is tr(KL) - s + tr K tr L / ((n-1)(n-2)) - 2 s / (n-2).

    With centred rows the kernel matrices have zero row sums. So it needs only tr(KL) = |Sxy|², the sums of
    |x|² and |y|² (`kx`, `ky`), and s, the sum of |x|²|y|² (`joint`).
    """
    return float(scatter.square().sum() - joint + kx * ky / ((n - 1) * (n - 2)) - 2 * joint / (n - 2))


def _sum_off_diagonal(m: Moments) -> list[float]:
    """Compute the squared norm off the diagonal of the Gram matrix of rows, of both sides."""
    return [float(side.gram.square().sum() - side.quartic) for side in (m.x, m.y)]


def explain_orthogonal_rows(pair: Pair) -> str:
    """Return the reason why RV2 is undefined, or an empty string.

    Rows that are orthogonal to each other leave nothing off the diagonal.
    """
    m = pair.moments
    found = zip(_sum_off_diagonal(m), (m.x.quartic, m.y.quartic), strict=True)
    return ("all rows are orthogonal to each other: nothing is left off the diagonal"
            if any(rest <= 1e-12 * float(quartic) for rest, quartic in found) else "")


@define_index("rv2", "RV2 (zero diagonal)", RIGID, needs=Needs.HIGHER, least=3, span=(-1.0, 1.0),
              formula="(|Sxy|² - Σ|x|²|y|²) / sqrt((|Sxx|² - Σ|x|⁴)(|Syy|² - Σ|y|⁴)), rows centred",
              source="Smilde et al. 2009", undefined=explain_orthogonal_rows)
def rv2(pair: Pair) -> float:
    """CKA of Gram matrices without their diagonals (Smilde et al. 2009)."""
    m = pair.moments
    return float((m.sxy.square().sum() - m.cross.xx_yy) / math.sqrt(math.prod(_sum_off_diagonal(m))))


@define_index("cka_angular", "CKA (angular)", RIGID, formula="arccos(cka)", source="Williams et al. 2021",
              high=math.pi / 2, larger=False, form="cosine", null=math.pi / 2)
def cka_angular(pair: Pair) -> float:
    """Arc cosine of biased CKA, in radians (Williams et al. 2021).

    It is a metric.
    """
    return math.acos(min(1.0, cka.fn(pair)))


@define_index("cka_minibatch", "CKA (minibatches)", RIGID, needs=Needs.KERNELS, least=LEAST_EXAMPLES,
              formula="Σ HSIC₁(K, L) / √(Σ HSIC₁(K, K) Σ HSIC₁(L, L)), K and L the Gram matrices of a "
                      "minibatch",
              source="Nguyen, Raghu and Kornblith 2021, eq. 3; HSIC₁: Song et al. 2012",
              undefined=explain_no_signal, span=(-1.0, 1.0), cost="n b (p + q)")
def cka_minibatch(kernels: Kernels) -> float:
    """Linear CKA of flattened representations, unbiased HSIC summed over minibatches of examples (Nguyen et
    al. 2021).

    It depends on the minibatch size.
    """
    return kernels.unbiased.alignment
