"""Separation of native scores from other scores: AUROC, average precision, false positive rate.

Native scores are those of the target network's own representations. They are the positive class, and larger
scores mean more in-distribution. Only the order of the scores matters, so they may be infinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from suture._base import SutureError, check_equal_lengths, expect
from suture.numbers.intervals import FEW_DRAWS, Estimate, draw_counts, make_missing_estimate
from suture.numbers.records import Floats, Ints

BOOTSTRAP_CHUNK = 400_000
"""Limit on scores times resamples in one step (3 MiB an array), so that memory does not grow with them."""


@dataclass(frozen=True)
class Separation:
    """Separation of two samples of scores in four measures, with 95 % intervals.

    Attributes:
        auroc: P(native > other) + P(equal) / 2. 0.5: no order between them; 1: every native score is larger.
        two_sided: see `two_sided_auroc`. 0.5: indistinguishable; 1: all others lie outside the native scores,
            on either side; below 0.5: the others crowd around the native median.
        average_precision: as in scikit-learn, natives positive; about N / (N + M) if indistinguishable.
        fpr95: share of the others that reach the largest threshold which at least 95 % of the natives reach.
    """

    auroc: Estimate
    two_sided: Estimate
    average_precision: Estimate
    fpr95: Estimate


def estimate_separation(native: ArrayLike, other: ArrayLike, seed: int = 0) -> Separation:
    """Estimate the separation of `other` from `native` scores of the same examples, (N,) each.

    The 95 % intervals are percentile bootstraps over examples with three corrections (`_stretch`). They are
    [0.5, 0.5] for the first three measures of identical samples, and otherwise [0, 1] for a single example.

    Raises:
        SutureError: not one-dimensional real numbers, or two samples of different length.
    """
    x, y = _as_scores(native, "native"), _as_scores(other, "other")
    check_equal_lengths(x, y, "native and other scores", "give two scores for each example")
    if why := _explain_missing(x, y):
        return Separation(*[make_missing_estimate(why)] * 4)
    ranked = _RankedScores(x, y)
    values = ranked.measure_all()
    if len(x) == 1:
        ends = (0.5, 0.5) if x[0] == y[0] else (0.0, 1.0)
        return Separation(*(Estimate(float(v), *e)
                            for v, e in zip(values, (ends, ends, ends, (0.0, 1.0)), strict=True)))
    drawn = _bootstrap(ranked, _match_pairs(x, y), seed)
    return Separation(*(Estimate(float(value), float(low), float(high))
                        for value, low, high in _stretch(values, drawn, len(x))))


def auroc(native: ArrayLike, other: ArrayLike) -> float:
    """Compute P(native > other) + P(equal) / 2 of two samples (N,) and (M,).

    Raises:
        SutureError: not one-dimensional real numbers, nan among them, or an empty sample.
    """
    return float(_RankedScores(*_check_samples(native, other)).measure_all()[0])


def two_sided_auroc(native: ArrayLike, other: ArrayLike) -> float:
    """Compute the AUROC of typicality, high where the others (M,) lie on either side of the natives (N,).

    The typicality of a score s is -|F(s) - 1/2|, with F the distribution function of the natives. F(native)
    is uniform on [0, 1], so a native is more typical than s with probability |2 F(s) - 1|. The AUROC is the
    mean of this over `other`.

    A score s that equals natives stands for every u in [F(s-), F(s)] (randomised probability integral
    transform, Brockwell 2007). |2u - 1| is averaged over these u, so identical samples give exactly 1/2
    whatever their ties. Without ties among the natives this is the AUROC of typicality with mid-ranks. With
    ties, the latter is not continuous and has no interval.

    Raises:
        SutureError: as `auroc`.
    """
    return float(_RankedScores(*_check_samples(native, other)).measure_all()[1])


def _as_scores(scores: ArrayLike, name: str) -> Floats:
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
    x, y = _as_scores(native, "native"), _as_scores(other, "other")
    why = _explain_missing(x, y)
    expect(not why, "scores without nan in both samples", why, "drop those examples")
    return x, y


class _RankedScores:
    """The order of two samples, from the largest score down, from which measures are computed."""

    def __init__(self, x: Floats, y: Floats) -> None:
        natives, others = np.sort(x), np.sort(y)
        self.n, self.m = len(x), len(y)
        self._natives_above = self.n - natives.searchsorted(others[::-1], "right")
        self._natives_reaching = self.n - natives.searchsorted(others[::-1], "left")
        self._tied_natives = self.n - natives.searchsorted(natives[::-1], "left")
        self._others_reaching = self.m - others.searchsorted(natives[::-1], "left")

    def measure_all(self) -> Floats:
        """Compute the four measures (4,) of the samples as they are."""
        values: Floats = self.measure(np.ones((1, self.n)), np.ones((1, self.m)))[:, 0]
        return values

    def measure(self, native: Floats, other: Floats) -> Floats:
        """Compute AUROC, two-sided AUROC, average precision and FPR at 95 % recall, (4, R).

        `native` (R, N) and `other` (R, M) are weights from the largest score down, with row sums N and M.
        Sums of the first two are whole numbers until the division, so equal samples give exactly 1/2.
        """
        n, m = self.n, self.m
        hits, false = (np.pad(np.cumsum(w, axis=1), ((0, 0), (1, 0))) for w in (native, other))
        above, reaching = hits[:, self._natives_above], hits[:, self._natives_reaching]
        # The mean of |2u - 1| over [F(s-), F(s)] is its value at their middle. Where 1/2 lies within, it is
        # larger by min(p, r)^2 / (p + r), with p and r the distances of the ends from 1/2. All such scores
        # equal the native median, so they share one p + r.
        inner = np.minimum(n - 2 * above, 2 * reaching - n).clip(0)
        width = np.where(inner > 0, reaching - above, 1).max(1)
        outside = _sum_rows(other, np.abs(above + reaching - n)) + _sum_rows(other, inner**2) / (2 * width)
        true, wrong = hits[:, self._tied_natives], false[:, self._others_reaching]
        first = (20 * hits[:, 1:] < 19 * n).sum(1)
        return np.stack([_sum_rows(other, above + reaching) / (2 * n * m), outside / (n * m),
                         _sum_rows(native, true / np.maximum(true + wrong, 1)) / n,
                         wrong[np.arange(len(wrong)), first] / m])


def _sum_rows(a: Floats, b: Floats) -> Floats:
    """Sum a * b over each row."""
    sums: Floats = np.einsum("rk,rk->r", a, b)
    return sums


def _match_pairs(x: Floats, y: Floats) -> Ints:
    """Return, for each example from the largest of `y` down, its rank from the largest of `x` down."""
    rank = np.empty(len(x), np.int64)
    rank[np.argsort(-x, kind="stable")] = np.arange(len(x))
    return rank[np.argsort(-y, kind="stable")]


def _bootstrap(ranked: _RankedScores, pairing: Ints, seed: int) -> Floats:
    """Compute the four measures of each resample of the examples, (4, R)."""
    # Draws are exchangeable, so they are used in the order of the scores.
    drawn = draw_counts(ranked.n, seed, FEW_DRAWS)
    step = max(1, BOOTSTRAP_CHUNK // (2 * ranked.n))
    return np.concatenate([ranked.measure(drawn[k:k + step], drawn[k:k + step, pairing])
                           for k in range(0, len(drawn), step)], axis=1)


def _stretch(values: Floats, drawn: Floats, n: int) -> Floats:
    """Return the values with the ends of their intervals, (4, 3).

    Percentiles alone are too short in three ways:

    - The value is biased where an example meets itself: as its own pair, and in average precision. Resamples
      show this bias twice. An interval therefore also holds the value without both biases.
    - Resamples of fully separated samples are all equal. An interval leaves room for a hidden share: the
      largest share that n independent examples, or n / 2 pairs, miss in one sample of 40, 1 - 0.025^(1/n)
      (Clopper and Pearson 1934). It is weighted by the distance of the value from 1/2, because pairs that all
      agree are trusted.
    - The threshold of the rate is the native score of an example whose other score is among the others. So
      the rate is uncertain by this one example.
    """
    ends = np.percentile(drawn, [2.5, 97.5], axis=1)
    ends[:, 3] += np.array([-1, 1]) / n
    drift = 2 * (values - drawn.mean(1)) * np.array([1, 1, 1, 0])
    missed_pairs, missed = (1 - 0.025 ** (1 / k) for k in (n // 2, n))
    # With a share `missed` of the others above all natives, average precision is the mean over recall r of
    # r / (r + missed).
    hidden = np.array([missed_pairs, 2 * missed_pairs, missed * np.log1p(1 / missed), missed])
    below, above = values.copy(), 1 - values
    below[:3], above[:3] = (2 * values[:3] - 1).clip(0), (1 - 2 * values[:3]).clip(0)
    low = np.minimum(np.minimum(ends[0], values) + drift.clip(max=0), values - hidden * below)
    high = np.maximum(np.maximum(ends[1], values) + drift.clip(0), values + hidden * above)
    return np.stack([values, low.clip(0), high.clip(max=1)], axis=1)
