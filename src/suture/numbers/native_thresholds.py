"""Average precision and the false positive rate at 95 % recall, with every native score as a threshold."""

from __future__ import annotations

import numpy as np

from suture.numbers.arrays import Floats, Ints
from suture.numbers.intervals import Estimate, compute_hidden_share, draw_counts, stretch_interval

BOOTSTRAP_CHUNK = 400_000
"""Limit on scores times resamples in one step (3 MiB an array). With it, memory grows with neither number."""


class NativeThresholds:
    """Thresholds at every native score, largest first, with the counts of both samples that reach each."""

    def __init__(self, x: Floats, y: Floats) -> None:
        s = np.sort(x)
        thresholds = s[::-1]
        self._last = len(x) - s.searchsorted(thresholds, "left") - 1
        self._others = len(y) - np.sort(y).searchsorted(thresholds, "left")

    def compute_rates(self, native: Floats, other: Floats) -> tuple[Floats, Floats]:
        """Compute average precision and FPR at 95 % recall, (R,) each.

        Args:
            native: (R, N) weight of each native, from the largest score down. A row sums to N.
            other: (R, M) weight of each of the others, likewise. A row sums to M.
        """
        n, m = native.shape[1], other.shape[1]
        hits = np.cumsum(native, axis=1)
        reached = np.cumsum(other, axis=1)
        false = np.concatenate([np.zeros((len(other), 1)), reached], axis=1)[:, self._others]
        first = (20 * hits < 19 * n).sum(1)
        rate = false[np.arange(len(false)), first] / m
        true = hits[:, self._last]
        precision = np.einsum("rn,rn->r", native, true / np.maximum(true + false, 1)) / n
        return precision, rate


def _match_pairs(x: Floats, y: Floats) -> Ints:
    """Return the rank among `x` of the example of the k-th largest of `y`, counted from the largest down."""
    rank = np.empty(len(x), np.int64)
    rank[np.argsort(-x, kind="stable")] = np.arange(len(x))
    return rank[np.argsort(-y, kind="stable")]


def bootstrap_intervals(x: Floats, y: Floats, paired: bool, seed: int,
                        resamples: int) -> tuple[Estimate, Estimate]:
    """Estimate average precision and FPR at 95 % recall, with bootstrap intervals.

    The draws are exchangeable, so they need not be put in the order of the scores. Only the draws of paired
    examples must stay together.

    Average precision is biased where the samples are close. Drawn examples are less diverse, so they add the
    same bias once more. The interval is stretched to hold the value with both biases subtracted.

    For paired samples, the threshold of the rate is the native score of an example whose other score is among
    the others too. So the rate is uncertain by this one example.
    """
    n, m = len(x), len(y)
    at = NativeThresholds(x, y)
    values = np.concatenate(at.compute_rates(np.ones((1, n)), np.ones((1, m))))
    native = draw_counts(n, seed, resamples)
    other = native if paired else draw_counts(m, seed + 1, resamples)
    pairing = _match_pairs(x, y) if paired else np.arange(m)
    step = max(1, BOOTSTRAP_CHUNK // (n + m))
    found = np.concatenate([at.compute_rates(native[k:k + step], other[k:k + step, pairing])
                            for k in range(0, resamples, step)], axis=1)
    ends = np.percentile(found, [2.5, 97.5], axis=1).T
    if paired:
        ends[1] += np.array([-1, 1]) / m
    ends = np.stack([np.minimum(ends[:, 0], values), np.maximum(ends[:, 1], values)], axis=1)
    drift = -2 * float(found[0].mean() - values[0])
    hidden = compute_hidden_share(m)
    # If a share `hidden` of the others were above all natives, average precision would be the mean over
    # recall r of r / (r + odds).
    odds = hidden * m / n
    precision = stretch_interval(float(values[0]), ends[0], drift, odds * float(np.log1p(1 / odds)), paired)
    return precision, stretch_interval(float(values[1]), ends[1], 0.0, hidden, False)
