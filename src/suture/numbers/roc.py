"""Separation of two samples of detector scores: native scores and others.

Native scores are those of the target network's own representations. They are the positive class, and a larger
score means more in-distribution. Every number here depends only on the order of the scores. So scores are
never squashed, and infinite scores are valid.
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
"""Ends of the 95 % interval of a standard normal variable."""


@dataclass(frozen=True)
class Separation:
    """Four measures of how well two samples of scores are separated, each with its 95 % interval.

    Attributes:
        auroc: P(native > other) + P(equal) / 2. 0.5: no order between them; 1: every native score is larger.
        two_sided: see `two_sided_auroc`. 0.5: the samples cannot be told apart; 1: all others lie outside the
            native scores, on either side; below 0.5: the others crowd around the native median.
        average_precision: as in scikit-learn, with the natives as positives. It depends on the sizes of the
            samples: others that cannot be told apart give about N / (N + M).
        fpr95: share of the others that reach the largest threshold which at least 95 % of the natives reach.
    """

    auroc: Estimate
    two_sided: Estimate
    average_precision: Estimate
    fpr95: Estimate


def estimate_separation(native: ArrayLike, other: ArrayLike, *, paired: bool = False, seed: int = 0,
                        resamples: int = 400) -> Separation:
    """Estimate the separation of `other` from `native`, with 95 % intervals.

    The intervals of `auroc` and `two_sided_auroc` come from influence functions. The first is built on the
    logit scale (DeLong et al. 1988), the second on the scale log(1 - value). The intervals of
    `average_precision` and `fpr95` are percentile bootstraps over examples.

    All of these intervals collapse where the samples are fully apart, and are too short close to that point.
    So each interval also leaves room for a hidden share: the largest share of examples that n independent
    examples, or pairs, miss altogether in one sample of 40. It is 1 - 0.025^(1/n), about 3.7 / n (the exact
    binomial bound, Clopper and Pearson 1934).

    The two scores of a paired example are not independent. For paired samples the interval is stretched to
    also hold the value corrected for this. With a single score on a side an interval is [0, 1]. Identical
    paired samples have the interval [0.5, 0.5] for the first three measures.

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
    """Compute P(native > other) + P(equal) / 2 of two samples (N,) and (M,).

    Raises:
        SutureError: not one-dimensional real numbers, nan among them, or an empty sample.
    """
    x, y = _check_samples(native, other)
    return _compute_auroc(*_count_below(x, y), len(x))


def two_sided_auroc(native: ArrayLike, other: ArrayLike) -> float:
    """Compute the AUROC of typicality, which is high where the others lie on either side of the natives.

    The typicality of a score s is t(s) = -|F(s) - 1/2|, with F the distribution function of the natives.

    Closed form: U = F(native) is uniform on [0, 1], so |U - 1/2| is uniform on [0, 1/2]. A native is more
    typical than s with probability P(|U - 1/2| < |F(s) - 1/2|) = |2 F(s) - 1|. The AUROC is the mean of this
    over `other`.

    Ties: a score that equals natives has no single F. It represents every u in [F(s-), F(s)], as natives of
    this score do (the randomised probability integral transform, Brockwell 2007). The value of |2u - 1| is
    averaged over these u. The intervals of the natives tile [0, 1], so identical samples give exactly 1/2
    whatever their ties.

    Where no two natives are equal, the value is the AUROC of t with mid-ranks, to the last digit. Where some
    are equal, that AUROC is not continuous, so no interval could be given for it. Example: natives -1, 0, 0,
    1, each 250 times, and others that are all 1. One more native at an end moves that AUROC from 3/4 to
    nearly 5/8 or 7/8.

    Args:
        native: (N,) scores.
        other: (M,) scores.

    Raises:
        SutureError: not one-dimensional real numbers, nan among them, or an empty sample.
    """
    x, y = _check_samples(native, other)
    return _compute_two_sided(*_count_below(x, y), len(x))


def _as_scores(scores: ArrayLike, name: str) -> Floats:
    """Convert `scores` to float64 and check that they are one-dimensional real numbers."""
    array: NDArray[Any] = np.asarray(scores)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise SutureError(f"expected {name} scores as real numbers of shape (n,), got {array.dtype} of shape "
                          f"{array.shape}; write one score per example")
    return array.astype(np.float64)


def _explain_missing(x: Floats, y: Floats) -> str:
    """Return the reason why these scores have no separation, or an empty string."""
    for s, name in ((x, "native"), (y, "other")):
        if len(s) == 0:
            return f"no {name} scores"
        if bad := int(np.isnan(s).sum()):
            return f"nan for {bad} of {len(s)} {name} scores"
    return ""


def _check_samples(native: ArrayLike, other: ArrayLike) -> tuple[Floats, Floats]:
    """Convert both samples to float64 and refuse samples that are empty or hold nan."""
    x, y = _as_scores(native, "native"), _as_scores(other, "other")
    if why := _explain_missing(x, y):
        raise SutureError(f"expected scores without nan in both samples, got {why}; "
                          "write estimate_separation(native, other), which gives missing estimates with "
                          "this reason")
    return x, y


def _count_below(x: Floats, y: Floats) -> tuple[Ints, Ints]:
    """Count, for each of `y`, the elements of `x` that are smaller, and those that are not larger."""
    s = np.sort(x)
    return s.searchsorted(y, "left").astype(np.int64), s.searchsorted(y, "right").astype(np.int64)


def _compute_auroc(left: Ints, right: Ints, n: int) -> float:
    """Compute the AUROC from the counts of the `n` natives below each other score.

    The sums are whole numbers until the division.
    """
    pairs = n * len(left)
    return (2 * pairs - int((left + right).sum())) / (2 * pairs)


def _compute_two_sided(left: Ints, right: Ints, n: int) -> float:
    """Compute `two_sided_auroc` from the counts of the `n` natives below each other score.

    The sums are whole numbers where they can be. The mean of |2v - n| over v in [left, right] is the value at
    their middle, unless n / 2 lies within. That is so for scores equal to the native median. There, with p =
    2 right - n and r = n - 2 left, the mean is larger by min(p, r)^2 / (p + r).
    """
    inner = np.minimum(2 * right - n, n - 2 * left).clip(0)
    width = int((right - left)[inner > 0].max(initial=1))
    total = int(np.abs(left + right - n).sum()) + int((inner**2).sum()) / (2 * width)
    return total / (n * len(left))


def _estimate_auroc(x: Floats, y: Floats, paired: bool) -> Estimate:
    """Estimate the AUROC; its influence functions are the placement values."""
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
    """Estimate `two_sided_auroc`, with influence functions of each example alone and through F.

    A score s of `other` adds f, the mean of |2u - 1| over [a, b] = [F(s-), F(s)]. A native at x moves b of
    all s >= x and a of all s > x. So it adds the mean over `other` of (|2b - 1| - |2a - 1|) / (b - a) where s
    > x, and of (|2b - 1| - f) / (b - a) where s = x.

    Without a tie the first of these is 2 sign(2F - 1). At F = 1/2 exactly this has no sign, and either sign
    is right. What it would add is counted as one more, independent part.

    For paired samples, F(s) counts the example's own native. On average this adds the mean of sign(2F - 1)
    sign(s - native) / N.
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
    """Sum, for each of `x`, `past` over all larger `y`, plus `at` over all equal `y`."""
    order = np.argsort(y)
    s = y[order]
    p, q = (np.concatenate([[0.0], np.cumsum(v[order])]) for v in (past, at))
    low, high = s.searchsorted(x, "left"), s.searchsorted(x, "right")
    sums: Floats = p[-1] - p[high] + q[high] - q[low]
    return sums


def _compute_signs(x: Floats, y: Floats) -> Ints:
    """Return 1 where `x` is larger, -1 where `y` is larger, else 0.

    Comparisons are used, because a difference of two equal infinite scores is nan.
    """
    return (x > y).astype(np.int64) - (x < y)


def _compute_standard_error(of_native: Floats, of_other: Floats, paired: bool) -> float:
    """Compute the standard error of a measure from its influence functions (DeLong et al. 1988)."""
    if paired:
        return float((of_native + of_other).std(ddof=1) / len(of_native) ** 0.5)
    return float((of_native.var(ddof=1) / len(of_native) + of_other.var(ddof=1) / len(of_other)) ** 0.5)


def _estimate_from_single(x: Floats, y: Floats, paired: bool) -> Separation:
    """Estimate the four measures where a side has a single score."""
    n, m = np.ones((1, len(x))), np.ones((1, len(y)))
    pinned = paired and x[0] == y[0]
    ends = (0.5, 0.5) if pinned else (0.0, 1.0)
    precision, rate = NativeThresholds(x, y).compute_rates(n, m)
    return Separation(Estimate(auroc(x, y), *ends), Estimate(two_sided_auroc(x, y), *ends),
                      Estimate(float(precision[0]), 0.0, 1.0), Estimate(float(rate[0]), 0.0, 1.0))
