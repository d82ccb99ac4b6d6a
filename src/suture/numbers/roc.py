"""How far apart two samples of detector scores are: those of a target network's own representations and
others.

The native scores are the positive class, and a larger score means more in-distribution. Everything here
depends on the order of the scores alone, so scores are never squashed, and infinite ones are as good as any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from suture._base import SutureError
from suture.numbers.arrays import Floats, Ints
from suture.numbers.intervals import Estimate, compute_hidden_share, make_missing_estimate, stretch_interval
from suture.numbers.native_thresholds import NativeThresholds, bootstrap_intervals

NORMAL_ENDS = np.array([-1.0, 1.0]) * 1.959963984540054
"""Ends of a normal variable's 95 % interval."""


@dataclass(frozen=True)
class Separation:
    """Four views on two samples of scores, each with its 95 % interval.

    Attributes:
        auroc: P(native > other) + P(equal) / 2. 0.5: no order between them; 1: every native score is larger.
        two_sided: see `two_sided_auroc`. 0.5: cannot be told apart; 1: all others lie outside the native
            scores, on whichever side; below 0.5: the others crowd around the native median.
        average_precision: of the natives as positives, as scikit-learn has it. It depends on how many there
            are of each: others that cannot be told apart give about N / (N + M).
        fpr95: share of the others that reach the largest threshold which at least 95 % of the natives reach.
    """

    auroc: Estimate
    two_sided: Estimate
    average_precision: Estimate
    fpr95: Estimate


def estimate_separation(native: ArrayLike, other: ArrayLike, *, paired: bool = False, seed: int = 0,
             resamples: int = 400) -> Separation:
    """How far `other` stands from `native`.

    The intervals of `auroc` (DeLong et al. 1988, on the logit scale) and `two_sided_auroc` (on the scale
    log(1 - value)) come from influence functions, those of `average_precision` and `fpr95` are percentile
    bootstraps over examples. All of these collapse where the samples stand fully apart, and are too short
    close to it; so each interval also leaves room for what n independent examples, or pairs of them, hide in
    one sample of 40: a share of 1 - 0.025^(1/n) that is unlike all that were seen (the exact binomial bound,
    Clopper and Pearson 1934, some 3.7 / n). Paired, an example's own two scores are no draw of two examples;
    the interval is stretched to also hold the value corrected for them. With a single score on a side an
    interval is [0, 1]. Identical paired samples have [0.5, 0.5] in the first three.

    Args:
        native: (N,) scores of native representations.
        other: (M,) scores of the others.
        paired: `native[k]` and `other[k]` are of the same example.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        SutureError: not one-dimensional real numbers, paired with N != M, or no resamples.
    """
    if resamples < 1:
        raise SutureError(f"expected resamples >= 1, got {resamples}; write resamples=400")
    x, y = _as_scores(native, "native"), _as_scores(other, "other")
    if paired and len(x) != len(y):
        raise SutureError(f"expected as many other scores as native ones for paired=True, got {len(x)} and "
                          f"{len(y)}; write paired=False where they are not of the same examples")
    if why := _explain_missing(x, y):
        return Separation(*[make_missing_estimate(why)] * 4)
    if min(len(x), len(y)) == 1:
        return _estimate_from_single(x, y, paired)
    return Separation(_estimate_auroc(x, y, paired), _estimate_two_sided(x, y, paired),
                      *bootstrap_intervals(x, y, paired, seed, resamples))


def auroc(native: ArrayLike, other: ArrayLike) -> float:
    """P(native > other) + P(equal) / 2 of two samples (N,) and (M,).

    Raises:
        SutureError: not one-dimensional real numbers, nan among them, or an empty sample.
    """
    x, y = _check_samples(native, other)
    return _compute_auroc(*_count_below(x, y), len(x))


def two_sided_auroc(native: ArrayLike, other: ArrayLike) -> float:
    """AUROC of how typical a score is among the natives, t(s) = -|F(s) - 1/2| with F their distribution
    function.

    Closed form: U = F(native) is uniform on [0, 1], so |U - 1/2| is uniform on [0, 1/2], and the chance that
    a native is more typical than a score s is P(|U - 1/2| < |F(s) - 1/2|) = |2 F(s) - 1|. The AUROC is its
    mean over `other`.

    A score that equals natives has no single F: it stands for every u in [F(s-), F(s)], as natives of this
    score do (the randomised probability integral transform, Brockwell 2007), and |2u - 1| is averaged over
    these u. These intervals of the natives themselves tile [0, 1], so the value is exactly 1/2 for identical
    samples, whatever their ties. Where no two natives are equal it is the AUROC of t with mid-ranks, to the
    last digit. Where some are, that AUROC is not continuous: of natives -1, 0, 0, 1, each 250 times, against
    others that are all 1, it jumps from 3/4 to nearly 5/8 or 7/8 with one native more at an end, and no
    interval could be given for it.

    Args:
        native: (N,) scores.
        other: (M,) scores.

    Raises:
        SutureError: not one-dimensional real numbers, nan among them, or an empty sample.
    """
    x, y = _check_samples(native, other)
    return _compute_two_sided(*_count_below(x, y), len(x))


# -- input ---------------------------------------------------------------------------------------------------

def _as_scores(scores: ArrayLike, name: str) -> Floats:
    """`scores` as float64."""
    array: NDArray[Any] = np.asarray(scores)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise SutureError(f"expected {name} scores as real numbers of shape (n,), got {array.dtype} of shape "
                          f"{array.shape}; write one score per example")
    return array.astype(np.float64)


def _explain_missing(x: Floats, y: Floats) -> str:
    """Why nothing can be said of these scores; empty where it can."""
    for s, name in ((x, "native"), (y, "other")):
        if len(s) == 0:
            return f"no {name} scores"
        if bad := int(np.isnan(s).sum()):
            return f"nan for {bad} of {len(s)} {name} scores"
    return ""


def _check_samples(native: ArrayLike, other: ArrayLike) -> tuple[Floats, Floats]:
    """Both samples, refused where nothing can be said of them."""
    x, y = _as_scores(native, "native"), _as_scores(other, "other")
    if why := _explain_missing(x, y):
        raise SutureError(f"expected scores without nan in both samples, got {why}; write separate(native, "
                          "other), which gives missing estimates with this reason")
    return x, y


# -- placements ----------------------------------------------------------------------------------------------

def _count_below(x: Floats, y: Floats) -> tuple[Ints, Ints]:
    """How many of `x` are smaller than, and not larger than, each of `y`."""
    s = np.sort(x)
    return s.searchsorted(y, "left").astype(np.int64), s.searchsorted(y, "right").astype(np.int64)


def _compute_auroc(left: Ints, right: Ints, n: int) -> float:
    """AUROC from how many of the `n` natives are below each other score; in whole numbers until the
    division."""
    pairs = n * len(left)
    return (2 * pairs - int((left + right).sum())) / (2 * pairs)


def _compute_two_sided(left: Ints, right: Ints, n: int) -> float:
    """`two_sided_auroc` from how many of the `n` natives are below each other score; in whole numbers where
    it can be.

    The mean of |2v - n| over v in [left, right] is that at their middle, except for scores equal to the
    native median, where n / 2 lies within: with p = 2 right - n and r = n - 2 left it is larger by
    min(p, r)^2 / (p + r).
    """
    inner = np.minimum(2 * right - n, n - 2 * left).clip(0)
    width = int((right - left)[inner > 0].max(initial=1))
    total = int(np.abs(left + right - n).sum()) + int((inner**2).sum()) / (2 * width)
    return total / (n * len(left))


def _estimate_auroc(x: Floats, y: Floats, paired: bool) -> Estimate:
    """AUROC; its influence functions are the placement values."""
    from scipy.special import expit, logit

    n, m = len(x), len(y)
    left, right = _count_below(x, y)
    value = _compute_auroc(left, right, n)
    error = _compute_standard_error(np.add(*_count_below(y, x)) / (2 * m),
                                    1 - (left + right) / (2 * n), paired)
    ends = value + np.zeros(2)
    if 0 < value < 1:
        ends = expit(logit(value) + NORMAL_ENDS * error / (value * (1 - value)))
    drift = (value - 0.5 - _compute_signs(x, y).mean() / 2) / (n - 1) if paired else 0.0
    return stretch_interval(value, ends, drift, compute_hidden_share(n // 2 if paired else min(n, m)),
                            paired)


def _estimate_two_sided(x: Floats, y: Floats, paired: bool) -> Estimate:
    """`two_sided_auroc`; its influence functions hold what an example does by itself and through F.

    A score s of `other` adds f = mean of |2u - 1| over [a, b] = [F(s-), F(s)]. A native at x moves b of all s
    >= x and a of all s > x, so it adds the mean over `other` of (|2b - 1| - |2a - 1|) / (b - a) where s > x
    and of (|2b - 1| - f) / (b - a) where s = x. Without a tie the first is 2 sign(2F - 1). For s at F = 1/2
    exactly that has no sign: either one is right, and what it would add counts as one more, independent part.
    Paired, F(s) counts the example's own native: on average this adds the mean of sign(2F - 1) sign(s -
    native) / N.
    """
    n, m = len(x), len(y)
    left, right = _count_below(x, y)
    value = _compute_two_sided(left, right, n)
    a, b = np.abs(2 * left - n) / n, np.abs(2 * right - n) / n
    tied, width = right > left, np.maximum(right - left, 1) / n
    inner = np.minimum(2 * right - n, n - 2 * left).clip(0) / n
    f = np.abs(left + right - n) / n + inner**2 / (2 * width)
    past = np.where(tied, (b - a) / width, 2 * np.sign(2 * left - n))
    through = _sum_above(x, y, past, np.where(tied, (b - f) / width, 0)) / m
    kink = _sum_above(x, y, np.where(2 * left == n, 2, 0) * ~tied, np.zeros(m)) / m
    error = np.hypot(_compute_standard_error(through, f, paired), kink.std(ddof=1) / np.sqrt(n))
    ends = 1 - (1 - value) * np.exp(-NORMAL_ENDS * error / (1 - value)) if value < 1 else np.ones(2)
    drift = -float((np.sign(left + right - n) * _compute_signs(y, x)).mean()) / n if paired else 0.0
    return stretch_interval(value, ends, drift, 2 * compute_hidden_share(n // 2 if paired else min(n, m)),
                            paired)


def _sum_above(x: Floats, y: Floats, past: Floats, at: Floats) -> Floats:
    """For each of `x` the sum of `past` over all `y` that are larger, plus that of `at` over all that are
    equal."""
    order = np.argsort(y)
    s = y[order]
    p, q = (np.concatenate([[0.0], np.cumsum(v[order])]) for v in (past, at))
    low, high = s.searchsorted(x, "left"), s.searchsorted(x, "right")
    sums: Floats = p[-1] - p[high] + q[high] - q[low]
    return sums


# -- intervals -----------------------------------------------------------------------------------------------

def _compute_signs(x: Floats, y: Floats) -> Ints:
    """1 where `x` is larger, -1 where `y` is; without a difference, which infinite scores do not have."""
    return (x > y).astype(np.int64) - (x < y)


def _compute_standard_error(of_native: Floats, of_other: Floats, paired: bool) -> float:
    """Standard error of what has these influence functions (DeLong et al. 1988)."""
    if paired:
        return float((of_native + of_other).std(ddof=1) / len(of_native) ** 0.5)
    return float((of_native.var(ddof=1) / len(of_native) + of_other.var(ddof=1) / len(of_other)) ** 0.5)


def _estimate_from_single(x: Floats, y: Floats, paired: bool) -> Separation:
    """The four values where a side has a single score."""
    n, m = np.ones((1, len(x))), np.ones((1, len(y)))
    pinned = paired and x[0] == y[0]
    ends = (0.5, 0.5) if pinned else (0.0, 1.0)
    precision, rate = NativeThresholds(x, y).compute_rates(n, m)
    return Separation(Estimate(auroc(x, y), *ends), Estimate(two_sided_auroc(x, y), *ends),
                      Estimate(float(precision[0]), 0.0, 1.0), Estimate(float(rate[0]), 0.0, 1.0))
