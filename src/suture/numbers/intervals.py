"""Scores of stitched networks with their 95 % intervals, from results per example."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.numbers.arrays import Bools, Floats

BOOTSTRAP_DRAWS = 2000
"""Bootstrap resamples; the standard error of an interval's end is then about 1.5 % of its width."""


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


def estimate_proportion(hits: Bools) -> Estimate:
    """Estimate the share of True in `hits` (N,), with the Wilson score interval (Wilson 1927)."""
    from scipy import stats

    if len(hits) == 0:
        return make_missing_estimate("no examples")
    result = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Estimate(float(hits.mean()), float(result.low), float(result.high))


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


def estimate_ratios(tops: NDArray[Any], bottom: NDArray[Any], seed: int = 0,
                    resamples: int = 400) -> list[Estimate]:
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
    weights = draw_counts(n, seed, resamples)
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
