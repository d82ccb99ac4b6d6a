"""Scores of predictions and their 95 % intervals, from per-example results."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Bools = NDArray[np.bool_]
RESAMPLES = 2000
"""Bootstrap resamples; the standard error of an interval's end is then about 1.5 % of its width."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; nan with a reason where it is not defined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    reason: str = ""


def missing(reason: str) -> Estimate:
    """An estimate that is not there, and why."""
    return Estimate(float("nan"), reason=reason)


def proportion(hits: Bools) -> Estimate:
    """Share of True in `hits` (N,) with the Wilson score interval (Wilson 1927)."""
    if len(hits) == 0:
        return missing("no examples")
    result = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Estimate(float(hits.mean()), float(result.low), float(result.high))


def ratio_of_hits(hits: Bools, reference: Bools, seed: int = 0) -> Estimate:
    """``hits.mean() / reference.mean()`` with a paired percentile bootstrap over examples.

    Resampling examples is resampling the four kinds of example (hit or not, reference hit or not), so the bootstrap
    draws their counts from a multinomial: the same distribution, at no cost per example.

    Args:
        hits, reference: (N,) of the same examples.
        seed: of the bootstrap.
    """
    if not reference.any():
        return missing("the target network has no correct prediction")
    both, only, ref = int((hits & reference).sum()), int((hits & ~reference).sum()), int((~hits & reference).sum())
    n = len(hits)
    counts = np.array([both, only, ref, n - both - only - ref])
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES)
    top, bottom = draws[:, 0] + draws[:, 1], draws[:, 0] + draws[:, 2]
    ok = bottom > 0
    low, high = np.percentile(top[ok] / bottom[ok], [2.5, 97.5])
    return Estimate(float(hits.mean() / reference.mean()), float(low), float(high))


@lru_cache(maxsize=2)
def _draws(n: int, seed: int, resamples: int) -> NDArray[np.int64]:
    """How often each of `n` examples is drawn in each resample; one draw serves all cells, paired across them too."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def ratio_of_sums(top: NDArray[np.floating], bottom: NDArray[np.floating], seed: int = 0,
                  resamples: int = 400) -> Estimate:
    """``top.sum() / bottom.sum()`` with a paired percentile bootstrap over examples.

    Args:
        top, bottom: (N,) non-negative, of the same examples.
        seed: of the bootstrap.
        resamples: how many.
    """
    t, b = top.astype(np.float64), bottom.astype(np.float64)
    if b.sum() <= 0:
        return missing("the denominator is zero")
    if not np.isfinite(t).all():
        return missing("not finite")
    weights = _draws(len(t), seed, resamples)
    ratios = (weights @ t) / np.maximum(weights @ b, np.finfo(np.float64).tiny)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Estimate(float(t.sum() / b.sum()), float(low), float(high))
