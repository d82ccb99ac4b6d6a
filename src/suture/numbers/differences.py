"""Differences of two cells on the same examples, with their 95 % intervals and paired tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from suture._base import expect
from suture.numbers.arrays import Bools, Floats
from suture.numbers.intervals import BOOTSTRAP_DRAWS, estimate_batch_mean
from suture.numbers.records import Record


@dataclass(frozen=True)
class Difference:
    """Value of one cell minus that of another on the same examples, in the measure's units.

    `low` and `high` are its 95 % interval, `p` is the two-sided p value of no difference, and `n` is the
    number of examples or batches. `test` is ``"exact McNemar"``, ``"paired bootstrap"`` or ``"paired t over
    batches"``.
    """

    value: float
    low: float
    high: float
    p: float
    test: str
    n: int


def mcnemar(one: Bools, other: Bools) -> float:
    """Compute the exact two-sided p value (McNemar 1947) of outcomes (N,); 1 without discordant pairs."""
    from scipy import stats

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    if only_one + only_other == 0:
        return 1.0
    return float(stats.binomtest(only_one, only_one + only_other, 0.5).pvalue)


def estimate_difference(one: Record, other: Record, seed: int = 0) -> Difference:
    """Estimate the value of `one` minus that of `other` on the same examples.

    The interval is a percentile bootstrap over examples (`BOOTSTRAP_DRAWS` times) with both cells resampled
    together. Where the units are tokens, an example is a whole text, because tokens of one text are not
    independent. For hits and misses the p value is that of the exact McNemar test. Otherwise it is twice the
    smaller share of resamples on either side of zero, at least 2 / (`BOOTSTRAP_DRAWS` + 1); for a single
    example it and the interval are nan. Means over batches use Student's t over batches, nan for a single
    batch.

    Raises:
        SutureError: the records are of different numbers of examples.
    """
    from scipy import stats

    n, value = len(one.top), one.value - other.value
    expect(one.top.shape == other.top.shape and one.batches == other.batches,
           "two records of the same examples", f"{n} and {len(other.top)}")
    if one.batches:
        gaps = one.top - other.top
        e = estimate_batch_mean(gaps)
        p = (float("nan") if n < 2 else float(stats.ttest_rel(one.top, other.top).pvalue)
             if gaps.any() else 1.0)
        return Difference(value, e.low, e.high, p, "paired t over batches", n)
    drawn = _bootstrap_differences(one, other, seed)
    low, high = (float(end) for end in np.percentile(drawn, [2.5, 97.5]))
    if one.top.dtype == np.bool_ and other.top.dtype == np.bool_:
        return Difference(value, low, high, mcnemar(one.top, other.top), "exact McNemar", n)
    if n < 2:
        return Difference(value, float("nan"), float("nan"), float("nan"), "paired bootstrap", n)
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Difference(value, low, high, min(1.0, 2 * (tail + 1) / (len(drawn) + 1)), "paired bootstrap", n)


def _bootstrap_differences(one: Record, other: Record, seed: int) -> Floats:
    """Compute the difference in each resample, leaving out resamples with a zero denominator."""
    sums = np.stack([one.top, one.bottom, other.top, other.bottom]).astype(np.float64)
    rng, n = np.random.default_rng(seed), sums.shape[1]
    drawn = np.stack([sums @ np.bincount(rng.integers(n, size=n), minlength=n)
                      for _ in range(BOOTSTRAP_DRAWS)])
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    first, second = drawn[:, 0] / drawn[:, 1], drawn[:, 2] / drawn[:, 3]
    return ((np.exp(first) if one.exponential else first)
            - (np.exp(second) if other.exponential else second))
