"""Linear centred kernel alignment (Kornblith et al. 2019) and its relatives, from HSIC."""

from __future__ import annotations

import math

import torch

from suture.indices.definition import LEAST_EXAMPLES, RIGID, Needs, define_index, require
from suture.indices.hsic import Hsic, Kernels, estimate_hsic
from suture.indices.nulls.classes import ClassedRows
from suture.numbers import Pair, PermutationNull, describe_cka_null, describe_debiased_null


def _expect_biased(data: Pair | Kernels) -> float:
    """Compute CKA of unrelated data: the root of the product of the participation ratios over rows - 1."""
    return math.sqrt(math.prod(data.participation)) / data.freedom


def _read_biased(kernels: Kernels) -> float:
    h = kernels.biased
    return h.xy / math.sqrt(h.xx * h.yy)


def _describe_biased(data: Pair | Kernels | ClassedRows) -> PermutationNull:
    return describe_cka_null(*data.grams)


def _describe_debiased(data: Pair | Kernels | ClassedRows) -> PermutationNull:
    return describe_debiased_null(*data.grams)


@define_index("cka", "CKA (biased)", RIGID, formula="|Sxy|² / (|Sxx| |Syy|)",
              source="Kornblith et al. 2019, table 1 and eq. 14", flat=_read_biased, paper=True,
              chance=_expect_biased, null_form=_describe_biased, metric="angle")
def cka(pair: Pair) -> float:
    """Linear centred kernel alignment, biased HSIC (Kornblith et al. 2019)."""
    m = pair.moments
    return float(m.sxy.square().sum() / (torch.linalg.matrix_norm(m.sxx) * torch.linalg.matrix_norm(m.syy)))


def _divide_unbiased(hsic: Hsic) -> float:
    """Divide unbiased HSIC by the roots of HSIC of each side with itself.

    The latter vanishes if all rows are equally far from each other; values up to the floor are rounding.
    """
    sides = (("source", hsic.xx, hsic.floor_x), ("target", hsic.yy, hsic.floor_y))
    flat = [name for name, own, floor in sides if own <= floor]
    require(not flat, f"unbiased HSIC of the {' and '.join(flat)} with itself is not positive: every row is "
                      "equally far from every other")
    return hsic.xy / math.sqrt(hsic.xx * hsic.yy)


def _compute_within(rows: ClassedRows) -> float:
    """Compute debiased CKA within classes, for which each class gets its own correction."""
    x, y = rows.grams
    return _divide_unbiased(Hsic(rows.unbiased_products, x.unbiased, y.unbiased))


@define_index("cka_debiased", "CKA (debiased)", RIGID, needs=Needs.HIGHER, least=LEAST_EXAMPLES,
              formula="HSIC₁(X, Y) / sqrt(HSIC₁(X, X) HSIC₁(Y, Y)), HSIC₁ the unbiased estimator",
              source="Song et al. 2012; Nguyen et al. 2021, eq. 3", span=(-1.0, 1.0),
              within=_compute_within, null_form=_describe_debiased,
              flat=lambda kernels: _divide_unbiased(kernels.unbiased))
def cka_debiased(pair: Pair) -> float:
    """Linear CKA from the unbiased HSIC estimator (Song et al. 2012; Nguyen et al. 2021).

    It may be slightly negative.
    """
    m = pair.moments
    kx, ky = torch.trace(m.sxx), torch.trace(m.syy)
    sides = ((m.sxy, m.cross.xx_yy, kx * ky), (m.sxx, m.x.quartic, kx * kx), (m.syy, m.y.quartic, ky * ky))
    return _divide_unbiased(Hsic(*(float(estimate_hsic(m.n, scatter.square().sum(), joint, traces))
                                   for scatter, joint, traces in sides)))


@define_index("rv2", "RV2 (zero diagonal)", RIGID, needs=Needs.HIGHER, least=3, span=(-1.0, 1.0),
              formula="(|Sxy|² - Σ|x|²|y|²) / sqrt((|Sxx|² - Σ|x|⁴)(|Syy|² - Σ|y|⁴)), rows centred",
              source="Smilde et al. 2009")
def rv2(pair: Pair) -> float:
    """CKA of Gram matrices without their diagonals (Smilde et al. 2009)."""
    m = pair.moments
    own = [float(side.gram.square().sum() - side.quartic) for side in (m.x, m.y)]
    require(own[0] > 1e-12 * float(m.x.quartic) and own[1] > 1e-12 * float(m.y.quartic),
            "all rows are orthogonal to each other: nothing is left off the diagonal")
    return float((m.sxy.square().sum() - m.cross.xx_yy) / math.sqrt(own[0] * own[1]))


@define_index("cka_angular", "CKA (angular)", RIGID, formula="arccos(cka)", source="Williams et al. 2021",
              high=math.pi / 2, larger=False, form="cosine", null=math.pi / 2,
              chance=lambda pair: 1 - math.acos(min(1.0, _expect_biased(pair))) * 2 / math.pi)
def cka_angular(pair: Pair) -> float:
    """Arc cosine of biased CKA, in radians (Williams et al. 2021).

    It is a metric.
    """
    return math.acos(min(1.0, cka.fn(pair)))


@define_index("cka_minibatch", "CKA (minibatches)", RIGID, needs=Needs.KERNELS, least=LEAST_EXAMPLES,
              formula="Σ HSIC₁(K, L) / √(Σ HSIC₁(K, K) Σ HSIC₁(L, L)), K and L the Gram matrices of a "
                      "minibatch", source="Nguyen, Raghu and Kornblith 2021, eq. 3; HSIC₁: Song et al. 2012",
              span=(-1.0, 1.0), cost="n b (p + q)")
def cka_minibatch(kernels: Kernels) -> float:
    """Linear CKA of flattened representations, unbiased HSIC summed over minibatches of examples (Nguyen et
    al. 2021).

    It depends on the minibatch size.
    """
    return _divide_unbiased(kernels.unbiased)
