"""CKA of flattened representations: of minibatches, and of the examples that are kept."""

from __future__ import annotations

from suture.indices.definition import RIGID, Index, Needs
from suture.indices.gram_matrices import LEAST_EXAMPLES, Hsic, Kernels
from suture.numbers import make_index_measure


def cka_minibatch(kernels: Kernels) -> float:
    """Compute minibatch CKA: a ratio of sums of unbiased HSIC over minibatches (Nguyen et al. 2021, eq. 3).

    In [-1, 1], with no more bias than the unbiased estimator leaves in a ratio. It depends on the minibatch
    size.
    """
    return kernels.minibatch.alignment


def flat_cka(kernels: Kernels) -> float:
    """Compute CKA of the kept examples by the biased HSIC tr(KHLH), in [0, 1].

    Source: Kornblith et al. 2019, eq. 3 and 4.
    """
    return kernels.biased.alignment


def flat_cka_debiased(kernels: Kernels) -> float:
    """Compute CKA of the kept examples by the unbiased HSIC (Song et al. 2012), in [-1, 1]."""
    return kernels.unbiased.alignment


def explain_no_signal(kernels: Kernels) -> str:
    """Return the reason why minibatch CKA is undefined, or an empty string.

    Too few examples are not checked here.
    """
    return _explain_no_signal(kernels.minibatch)


def explain_not_kept(kernels: Kernels) -> str:
    """Return the reason why biased CKA of the kept examples is undefined, or an empty string."""
    if kernels.kept < 2:
        return f"{kernels.kept} examples kept: nothing varies"
    if kernels.kept_constant:
        return (f"constant {' and '.join(kernels.kept_constant)} representation of the {kernels.kept} "
                "examples kept")
    return ""


def explain_too_few_kept(kernels: Kernels) -> str:
    """Return the reason why debiased CKA of the kept examples is undefined, or an empty string."""
    if kernels.kept < LEAST_EXAMPLES:
        return f"{kernels.kept} examples kept: the unbiased estimator needs at least {LEAST_EXAMPLES}"
    return explain_not_kept(kernels) or _explain_no_signal(kernels.unbiased)


def _explain_no_signal(hsic: Hsic) -> str:
    if not hsic.flat:
        return ""
    return (f"unbiased HSIC of the {' and '.join(hsic.flat)} with itself is not positive: every example is "
            "equally far from every other")


ENTRIES: tuple[Index, ...] = (
    Index(make_index_measure("cka_minibatch", "CKA (minibatches)",
                     "Linear CKA of flattened representations, unbiased HSIC summed over minibatches of "
                     "examples (Nguyen et al. 2021).", span=(-1.0, 1.0)),
          cka_minibatch,
          "Σ HSIC₁(K, L) / √(Σ HSIC₁(K, K) Σ HSIC₁(L, L)), K and L the Gram matrices of a minibatch",
          "Nguyen, Raghu and Kornblith 2021, eq. 3; HSIC₁: Song et al. 2012",
          RIGID, RIGID, needs=Needs.KERNELS, least=LEAST_EXAMPLES, undefined=explain_no_signal,
          cost="n b (p + q)"),
)
"""The index of flattened representations. The kept examples also have `flat_cka` and `flat_cka_debiased`."""
