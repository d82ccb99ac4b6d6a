"""Scores of stitched networks and differences of two cells, with 95 % intervals from results per example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture._base import expect
from suture.numbers.records import Bools, Floats, Record

BOOTSTRAP_DRAWS = 2000
"""Bootstrap resamples; the standard error of an interval's end is then about 1.5 % of its width."""
CHANCE_LEVEL = 0.01
"""Level of the test that a network's accuracy is above the share of the most frequent label."""
FEW_DRAWS = 400
"""Bootstrap resamples where each one costs a pass over all examples."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; nan with a reason where it is not defined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    reason: str = ""


def make_missing_estimate(reason: str) -> Estimate:
    """Make an estimate without a value, with the reason why."""
    return Estimate(float("nan"), reason=reason)


def is_above_chance(hits: int, n: int, most: int) -> bool:
    """Return True if `hits` of `n` are clearly more than the `most` hits that always the same answer has.

    The test is the one-sided binomial test at `CHANCE_LEVEL`.
    """
    from scipy import stats

    # As in `scipy.stats.binomtest`, bit for bit, in a fifth of the time.
    return bool(stats.binom.sf(hits - 1, n, most / n) < CHANCE_LEVEL)


def estimate_proportion(hits: Bools) -> Estimate:
    """Estimate the share of True in `hits` (N,), with the Wilson score interval (Wilson 1927)."""
    from scipy.special import ndtri

    k, n = int(hits.sum()), len(hits)
    if n == 0:
        return make_missing_estimate("no examples")
    # As in `scipy.stats.binomtest`, bit for bit, which runs a test first that takes a hundred times as long.
    z, p = float(ndtri(0.5 + 0.5 * 0.95)), k / n
    size = 2 * (n + z**2)
    centre, half = (2 * n * p + z**2) / size, z / size * math.sqrt(4 * n * p * (1 - p) + z**2)
    return Estimate(float(hits.mean()), 0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def estimate_hit_ratio(hits: Bools, reference: Bools, seed: int = 0) -> Estimate:
    """Estimate ``hits.mean() / reference.mean()``, (N,) each, with a paired bootstrap over examples.

    Drawing the counts of the four kinds of example (hit or not, reference hit or not) from a multinomial has
    the same distribution as resampling examples, at no cost per example.
    """
    if not reference.any():
        return make_missing_estimate("the target network has no correct prediction")
    both, only, missed = ((a & b).sum() for a, b in ((hits, reference), (hits, ~reference),
                                                     (~hits, reference)))
    n = len(hits)
    counts = np.array([both, only, missed, n - both - only - missed])
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=BOOTSTRAP_DRAWS)
    top, bottom = draws[:, 0] + draws[:, 1], draws[:, 0] + draws[:, 2]
    defined = bottom > 0
    low, high = np.percentile(top[defined] / bottom[defined], [2.5, 97.5])
    return Estimate(float(hits.mean() / reference.mean()), float(low), float(high))


@lru_cache(maxsize=2)
def draw_counts(n: int, seed: int, resamples: int) -> Floats:
    """Draw the counts of `n` examples in each resample, (resamples, n); cached, so that cells are paired."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def estimate_ratios(tops: NDArray[Any], bottom: NDArray[Any], seed: int = 0) -> list[Estimate]:
    """Estimate ``top.sum() / bottom.sum()`` for each row of `tops` (K, N), with a bootstrap over examples.

    The bootstrap is paired. `bottom` (N,) is not negative; where it is one, the ratio is a mean.
    """
    t, b = tops.astype(np.float64), bottom.astype(np.float64)
    n = t.shape[1]
    why = ("no examples" if n == 0 else "the denominator is not finite" if not np.isfinite(b).all()
           else "the denominator is zero" if b.sum() <= 0 else "")
    if why:
        return [make_missing_estimate(why)] * len(t)
    infinite = (~np.isfinite(t)).sum(1)
    t = np.where(infinite[:, None] > 0, 0, t)
    weights = draw_counts(n, seed, FEW_DRAWS)
    bottoms = weights @ b
    drawn = (t @ weights.T) / np.where(bottoms > 0, bottoms, np.nan)
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=1)
    values = t.sum(1) / b.sum()
    return [make_missing_estimate(f"not finite for {infinite[k]} of {n} examples") if infinite[k]
            else Estimate(float(values[k]), float(low[k]), float(high[k])) for k in range(len(t))]


def exponentiate(e: Estimate) -> Estimate:
    """Raise e to the power of an estimate and its interval; missing where a float cannot hold the result."""
    largest = max(e.value, e.high)
    if largest > math.log(np.finfo(np.float64).max):
        return make_missing_estimate(f"e to the power of {largest:.4g} is more than a float holds")
    return Estimate(math.exp(e.value), math.exp(e.low), math.exp(e.high), e.reason)


def take_root(e: Estimate) -> Estimate:
    """Take the square root of an estimate that is not negative, and of its interval."""
    return Estimate(math.sqrt(e.value), math.sqrt(e.low), math.sqrt(e.high), e.reason)


def estimate_batch_mean(values: NDArray[Any]) -> Estimate:
    """Estimate the mean of `values` (B,) with Student's t interval over batches, nan for a single batch."""
    from scipy import stats

    # A percentile bootstrap of a handful of batches is too narrow.
    v = values.astype(np.float64)
    if not np.isfinite(v).all():
        return make_missing_estimate(f"not finite for {(~np.isfinite(v)).sum()} of {len(v)} batches")
    if len(v) < 2:
        return Estimate(float(v.mean())) if len(v) else make_missing_estimate("no batches")
    half = float(stats.t.ppf(0.975, len(v) - 1)) * float(v.std(ddof=1)) / math.sqrt(len(v))
    return Estimate(float(v.mean()), float(v.mean()) - half, float(v.mean()) + half)


def pool_runs(runs: Sequence[Estimate], least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Pool the estimates of several initialisations: their mean, and where one more would lie.

    The interval holds, in 95 % of cases, the value of another initialisation on other test examples. Its
    halves are the root of the sum of two squares (Zou and Donner 2008): the mean half of the given intervals,
    and Student's t times s sqrt(1 + 1 / k), with s the standard deviation of the k values. It stays within
    `least` and `most`. There is none without given intervals, and no value where an estimate has none.
    """
    from scipy import stats

    missing = next((e for e in runs if math.isnan(e.value)), None)
    if missing or len(runs) == 1:
        return missing or runs[0]
    v, low, high = np.array([(e.value, e.low, e.high) for e in runs]).T
    k, mean = len(v), float(v.mean())
    spread = float(stats.t.ppf(0.975, k - 1)) * float(v.std(ddof=1)) * math.sqrt(1 + 1 / k)
    below, above = (math.hypot(float(half.mean()), spread) for half in (v - low, high - v))
    return Estimate(mean, max(mean - below, min(least, mean)), min(mean + above, max(most, mean)))


@dataclass(frozen=True)
class Difference:
    """Value of one cell minus that of another on the same examples, in the measure's units.

    `low` and `high` are its 95 % interval, `p` is the two-sided p value of no difference, and `n` is the
    number of examples or batches. `test` is ``"exact McNemar"``, ``"paired bootstrap"``, ``"paired t over
    batches"`` or ``"t over examples and initialisations"``.
    """

    value: float
    low: float
    high: float
    p: float
    test: str
    n: int

    @property
    def reason(self) -> str:
        """The reason why there is no interval; empty where there is one."""
        return "" if self.n > 1 else "a single example or batch has no interval"


def mcnemar(one: Bools, other: Bools) -> float:
    """Compute the exact two-sided p value (McNemar 1947) of outcomes (N,); 1 without discordant pairs."""
    from scipy import stats

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    if only_one == only_other:
        return 1.0
    # As `scipy.stats.binomtest`, bit for bit, in a fifth of the time: it searches the other tail.
    few, n = min(only_one, only_other), only_one + only_other
    return min(1.0, float(stats.binom.cdf(few, n, 0.5) + stats.binom.sf(n - few - 1, n, 0.5)))


def estimate_difference(one: Record, other: Record, seed: int = 0) -> Difference:
    """Estimate the value of `one` minus that of `other` on the same examples.

    The interval is a percentile bootstrap over examples (`BOOTSTRAP_DRAWS` times) with both cells resampled
    together. Where the units are tokens, an example is a whole text, because tokens of one text are not
    independent. For hits and misses the p value is that of the exact McNemar test. Otherwise it is twice the
    smaller share of resamples on either side of zero, at least 2 / (`BOOTSTRAP_DRAWS` + 1). Means over
    batches use Student's t over batches. A single example or batch has no interval and, but for the exact
    test, no p value: both are nan. If a record is a mean over initialisations, interval and p value are of
    the difference of the means over all initialisations and examples (`_compare_runs`).

    Raises:
        SutureError: the records are of different numbers of examples.
    """
    from scipy import stats

    n, value, p = len(one.top), one.value - other.value, math.nan
    expect(one.top.shape == other.top.shape and one.batches == other.batches,
           "two records of the same examples", f"{n} and {len(other.top)}")
    if one.runs or other.runs:
        return _compare_runs(one, other)
    if one.batches:
        gaps = one.top - other.top
        if n > 1:
            p = float(stats.ttest_rel(one.top, other.top).pvalue) if gaps.any() else 1.0
        e = estimate_batch_mean(gaps)
        return Difference(value, e.low, e.high, p, "paired t over batches", n)
    hits = one.top.dtype == np.bool_ and other.top.dtype == np.bool_
    test, p = ("exact McNemar", mcnemar(one.top, other.top)) if hits else ("paired bootstrap", p)
    if n < 2:
        return Difference(value, math.nan, math.nan, p, test, n)
    drawn = _bootstrap_differences(one, other, seed)
    low, high = (float(end) for end in np.percentile(drawn, [2.5, 97.5]))
    if not hits:
        tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return Difference(value, low, high, p, test, n)


def _compare_runs(one: Record, other: Record) -> Difference:
    """Test a difference by Student's t, with Welch's variance and degrees of freedom.

    The variances are those of the paired mean over examples (ratios linearised) and of each mean over
    initialisations.
    """
    from scipy import stats

    n, value = len(one.top), one.value - other.value
    gaps = _linearise(one) - _linearise(other)
    parts = [(float(gaps.var(ddof=1)) / n, n - 1)] if n > 1 else [(math.nan, 1)]
    parts += [(float(np.var(r.runs, ddof=1)) / len(r.runs), len(r.runs) - 1) for r in (one, other) if r.runs]
    variance, p, half = sum(v for v, _ in parts), float(value == 0), 0.0
    if variance != 0:  # nan for a single example
        freedom = variance**2 / sum(v**2 / k for v, k in parts)
        p = float(2 * stats.t.sf(abs(value) / math.sqrt(variance), freedom))
        half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Difference(value, value - half, value + half, p, "t over examples and initialisations", n)


def _linearise(record: Record) -> Floats:
    """Return the influence (N,) of each unit on the value of a record."""
    top, bottom = record.top.astype(np.float64), record.bottom.astype(np.float64)
    ratio = float(top.sum() / bottom.sum())
    influence: Floats = (top - ratio * bottom) / bottom.mean()
    return influence * math.exp(ratio) if record.exponential else influence


def _bootstrap_differences(one: Record, other: Record, seed: int) -> Floats:
    """Compute the difference in each resample, leaving out resamples with a zero denominator."""
    sums = np.stack([one.top, one.bottom, other.top, other.bottom]).astype(np.float64)
    rng, n = np.random.default_rng(seed), sums.shape[1]
    drawn = np.stack([sums @ np.bincount(rng.integers(n, size=n), minlength=n)
                      for _ in range(BOOTSTRAP_DRAWS)])
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    first, second = drawn[:, 0] / drawn[:, 1], drawn[:, 2] / drawn[:, 3]
    gaps: Floats = one.transform(first) - other.transform(second)
    return gaps
