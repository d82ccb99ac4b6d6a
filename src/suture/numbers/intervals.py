"""Scores of stitched networks, their 95 % intervals and paired tests, from per-example results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture._base import SutureError, make_unknown_error
from suture.numbers.arrays import Arrays, Floats

Bools = NDArray[np.bool_]
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
    """An estimate that is not there, and why."""
    return Estimate(float("nan"), reason=reason)


def estimate_proportion(hits: Bools) -> Estimate:
    """Share of True in `hits` (N,) with the Wilson score interval (Wilson 1927)."""
    from scipy import stats

    if len(hits) == 0:
        return make_missing_estimate("no examples")
    result = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Estimate(float(hits.mean()), float(result.low), float(result.high))


def estimate_hit_ratio(hits: Bools, reference: Bools, seed: int = 0) -> Estimate:
    """``hits.mean() / reference.mean()`` with a paired percentile bootstrap over examples.

    Resampling examples is resampling the four kinds of example (hit or not, reference hit or not), so the
    bootstrap draws their counts from a multinomial: the same distribution, at no cost per example.

    Args:
        hits, reference: (N,) of the same examples.
        seed: of the bootstrap.
    """
    if not reference.any():
        return make_missing_estimate("the target network has no correct prediction")
    both, only, ref = (int((hits & reference).sum()), int((hits & ~reference).sum()),
                       int((~hits & reference).sum()))
    n = len(hits)
    counts = np.array([both, only, ref, n - both - only - ref])
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=BOOTSTRAP_DRAWS)
    top, bottom = draws[:, 0] + draws[:, 1], draws[:, 0] + draws[:, 2]
    ok = bottom > 0
    low, high = np.percentile(top[ok] / bottom[ok], [2.5, 97.5])
    return Estimate(float(hits.mean() / reference.mean()), float(low), float(high))


@lru_cache(maxsize=2)
def draw_counts(n: int, seed: int, resamples: int) -> Floats:
    """How often each of `n` examples is drawn in each resample; one draw serves all cells, paired across them
    too."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def estimate_ratio(top: NDArray[Any], bottom: NDArray[Any], seed: int = 0, resamples: int = 400) -> Estimate:
    """``top.sum() / bottom.sum()`` with a paired percentile bootstrap over examples; a mean where `bottom` is
    one.

    Args:
        top: (N,) of any sign.
        bottom: (N,) non-negative, of the same examples.
        seed: of the bootstrap.
        resamples: how many.
    """
    return estimate_ratios(top[None], bottom, seed, resamples)[0]


def estimate_ratios(tops: NDArray[Any], bottom: NDArray[Any], seed: int = 0,
                    resamples: int = 400) -> list[Estimate]:
    """`estimate_ratio` of each row of `tops` (K, N) with the same `bottom` (N,), in one product for all
    rows."""
    t, b = tops.astype(np.float64), bottom.astype(np.float64)
    n = t.shape[1]
    if n == 0:
        return [make_missing_estimate("no examples")] * len(t)
    if not np.isfinite(b).all():
        return [make_missing_estimate("the denominator is not finite")] * len(t)
    if b.sum() <= 0:
        return [make_missing_estimate("the denominator is zero")] * len(t)
    broken = (~np.isfinite(t)).sum(1)
    kept = t[broken == 0]
    weights = draw_counts(n, seed, resamples)
    bottoms = weights @ b
    drawn = (kept @ weights.T) / np.where(bottoms > 0, bottoms, np.nan)
    values = iter(kept.sum(1) / b.sum())
    ends = iter(np.nanpercentile(drawn, [2.5, 97.5], axis=1).T)
    found = []
    for bad in broken:
        if bad:
            found.append(make_missing_estimate(f"not finite for {bad} of {n} examples"))
        else:
            low, high = next(ends)
            found.append(Estimate(float(next(values)), float(low), float(high)))
    return found


def exponentiate(e: Estimate) -> Estimate:
    """e to the power of an estimate and the ends of its interval; missing where that is more than a float
    holds."""
    if max(e.value, e.high) > math.log(np.finfo(np.float64).max):
        return make_missing_estimate(f"e to the power of {max(e.value, e.high):.4g} is more "
                                     "than a float holds")
    return Estimate(math.exp(e.value), math.exp(e.low), math.exp(e.high), e.reason)


def estimate_batch_mean(values: NDArray[Any]) -> Estimate:
    """Mean of `values` (B,) with Student's t interval over batches; no interval (nan) for a single batch.

    A percentile bootstrap of a handful of batches is too narrow; t is not, and batches are means of many
    examples.
    """
    from scipy import stats

    v = values.astype(np.float64)
    if not np.isfinite(v).all():
        return make_missing_estimate(f"not finite for {(~np.isfinite(v)).sum()} of {len(v)} batches")
    if len(v) < 2:
        return Estimate(float(v.mean())) if len(v) else make_missing_estimate("no batches")
    half = float(stats.t.ppf(0.975, len(v) - 1)) * float(v.std(ddof=1)) / math.sqrt(len(v))
    return Estimate(float(v.mean()), float(v.mean()) - half, float(v.mean()) + half)


# -- per-example records -------------------------------------------------------------------------------------



@dataclass(frozen=True)
class Record:
    """What a cell's measure is made of: ``top.sum() / bottom.sum()`` over its units.

    Attributes:
        top: (N,); boolean where examples are hit or missed, sums over its tokens where an example has
            several.
        bottom: (N,) floats.
        batches: the units are test batches, and `bottom` is one.
        exponential: the measure is e to the power of that ratio.
    """

    top: NDArray[Any]
    bottom: NDArray[Any]
    batches: bool = False
    exponential: bool = False

    @property
    def value(self) -> float:
        """The measure."""
        ratio = float(self.top.sum(dtype=np.float64) / self.bottom.sum(dtype=np.float64))
        return math.exp(ratio) if self.exponential else ratio


def sum_by_batch(values: NDArray[Any], sizes: NDArray[Any]) -> Floats:
    """Sums (..., B) over the test batches of `values` (..., N), batches of `sizes` (B,) in order."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums: Floats = np.add.reduceat(values.astype(np.float64), starts, axis=-1)
    return sums


RECORDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "accuracy": ("correct", ()),
    "relative_accuracy": ("correct", ("correct",)),
    "agreement": ("agree", ()),
    "kl": ("kl", ()),
    "ce_gap": ("ce", ("ce",)),
    "relative_perplexity": ("ce", ("ce",)),
    "residual": ("error", ("scale",)),
    "residual_batches": ("error", ("scale", "batches")),
    "r2": ("error", ("spread",)),
}
"""By quantity: the array of the method, (sources, targets, N), and those of the target network that it
needs."""


def build_record(arrays: Arrays, name: str, i: int, j: int) -> Record:
    """The per-example record of measure `name` in cell (i, j).

    With ``target.tokens`` among the arrays, what is counted are tokens: examples are sums over theirs.

    Args:
        arrays: of a comparison.
        name: such as ``"dm.kl"``.
        i, j: positions of the source and the target site.

    Raises:
        SutureError: the measure has no per-example record (structural indices), or the arrays lack it.
    """
    method, _, quantity = name.rpartition(".")
    if not method or quantity not in RECORDS:
        known = [f"{m}.{q}" for m in ("dm", "tlm") for q in RECORDS]
        raise make_unknown_error("measure with a per-example record", name, known,
                      "structural indices are functions of all examples at once")
    own, target = RECORDS[quantity]
    needed = [f"{method}.{own}", *(f"target.{t}" for t in target)]
    absent = [a for a in needed if a not in arrays]
    if absent:
        raise SutureError(f"expected the per-example array {absent[0]!r} for {name!r}, this comparison has "
                          "none; compute it with this method and with labels in the test data")
    top, *rest = (arrays[a] for a in needed)
    x = top[i, j]
    units = arrays["target.tokens"].astype(np.float64) if "target.tokens" in arrays else np.ones(len(x))
    if quantity == "relative_accuracy":
        return Record(x, rest[0].astype(np.float64))
    if quantity in ("ce_gap", "relative_perplexity"):
        return Record(x.astype(np.float64) - rest[0], units, exponential=quantity == "relative_perplexity")
    if quantity == "residual":
        return Record(x, rest[0][j])
    if quantity == "r2":
        return Record(rest[0][j].astype(np.float64) - x, rest[0][j])
    if quantity == "residual_batches":
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = sum_by_batch(x, rest[1]) / sum_by_batch(rest[0][j], rest[1])
        return Record(ratios, np.ones(len(ratios)), batches=True)
    return Record(x, units)


# -- paired tests --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Difference:
    """One cell's value minus another's, on the same examples.

    Attributes:
        value: the difference, in the measure's own units.
        low, high: its 95 % interval.
        p: two-sided p value of no difference.
        test: which test gave `p`: ``"exact McNemar"``, ``"paired bootstrap"`` or ``"paired t over batches"``.
        n: number of examples (of batches for a test over batches).
    """

    value: float
    low: float
    high: float
    p: float
    test: str
    n: int


def mcnemar(one: Bools, other: Bools) -> float:
    """p value of the exact two-sided McNemar test of (N,) outcomes (McNemar 1947); 1 without discordant
    pairs."""
    from scipy import stats

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    if only_one + only_other == 0:
        return 1.0
    return float(stats.binomtest(only_one, only_one + only_other, 0.5).pvalue)


def estimate_difference(one: Record, other: Record, seed: int = 0) -> Difference:
    """The value of `one` minus that of `other`, on the same examples.

    The interval is the percentile bootstrap over examples, both cells resampled together (`BOOTSTRAP_DRAWS`
    times). The p value is the exact McNemar test's where examples are hit or missed, and otherwise the
    bootstrap's: twice the smaller share of resamples on either side of zero, at least 2 /
    (`BOOTSTRAP_DRAWS` + 1); with a single example interval and p are nan. Means over batches have Student's t
    over batches, nan for a single one. Where tokens count, an example is all of a text's: tokens of one text
    are no independent draws.

    Raises:
        SutureError: the records are of different numbers of examples.
    """
    from scipy import stats

    if one.top.shape != other.top.shape or one.batches != other.batches:
        raise SutureError(f"expected two records of the same examples, got {len(one.top)} and "
                          f"{len(other.top)}")
    n, value = len(one.top), one.value - other.value
    if one.batches:
        gaps = one.top - other.top
        e = estimate_batch_mean(gaps)
        p = (float("nan") if n < 2 else float(stats.ttest_rel(one.top, other.top).pvalue)
             if gaps.any() else 1.0)
        return Difference(value, e.low, e.high, p, "paired t over batches", n)
    drawn = _bootstrap_differences(one, other, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    if one.top.dtype == np.bool_ and other.top.dtype == np.bool_:
        return Difference(value, float(low), float(high), mcnemar(one.top, other.top), "exact McNemar", n)
    if n < 2:
        return Difference(value, float("nan"), float("nan"), float("nan"), "paired bootstrap", n)
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return Difference(value, float(low), float(high), p, "paired bootstrap", n)


def _bootstrap_differences(one: Record, other: Record, seed: int) -> Floats:
    """Differences of the two ratios in each resample; those in which a denominator is zero are left out."""
    sums = np.stack([one.top, one.bottom, other.top, other.bottom]).astype(np.float64)
    rng, n = np.random.default_rng(seed), sums.shape[1]
    drawn = np.empty((BOOTSTRAP_DRAWS, 4))
    for k in range(BOOTSTRAP_DRAWS):
        drawn[k] = sums @ np.bincount(rng.integers(n, size=n), minlength=n)
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    ratios: list[Floats] = [drawn[:, k] / drawn[:, k + 1] for k in (0, 2)]
    first, second = (np.exp(x) if r.exponential else x for r, x in zip((one, other), ratios, strict=True))
    return first - second
