"""Intervals against the textbook formula and against resampling example by example."""

from __future__ import annotations

import numpy as np
import pytest

from suture import scores


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (50, 50), (497, 500)])
def test_proportion_has_the_wilson_interval(hits: int, n: int) -> None:
    z, p = 1.959963984540054, hits / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    got = scores.proportion(np.arange(n) < hits)
    assert (got.value, got.low, got.high) == pytest.approx((p, middle - half, middle + half), abs=1e-12)


def resampled(top: np.ndarray, bottom: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap, one resample of examples at a time, with another generator."""
    rng, ratios = np.random.RandomState(5), []
    for _ in range(4000):
        rows = rng.randint(0, len(top), len(top))
        ratios.append(top[rows].sum() / bottom[rows].sum())
    return tuple(np.percentile(ratios, [2.5, 97.5]))


def test_ratio_of_hits_is_the_paired_bootstrap_over_examples() -> None:
    rng = np.random.default_rng(0)
    reference = rng.random(400) < 0.9
    hits = np.where(rng.random(400) < 0.9, reference, ~reference)
    got = scores.ratio_of_hits(hits, reference)
    assert got.value == hits.mean() / reference.mean()
    assert (got.low, got.high) == pytest.approx(resampled(hits, reference), abs=0.006)
    independent = scores.ratio_of_hits(rng.permutation(hits), reference)
    assert independent.high - independent.low > 1.2 * (got.high - got.low), "pairing must narrow the interval"


def test_ratio_of_sums_is_the_paired_bootstrap_over_examples() -> None:
    rng = np.random.default_rng(1)
    bottom = rng.gamma(4, size=300)
    top = bottom * rng.gamma(3, size=300) / 10
    got = scores.ratio_of_sums(top, bottom)
    low, high = resampled(top, bottom)
    assert got.value == pytest.approx(top.sum() / bottom.sum(), rel=1e-12)
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.12 * (high - low))


@pytest.mark.parametrize(("estimate", "why"), [
    (lambda: scores.proportion(np.zeros(0, bool)), "no examples"),
    (lambda: scores.ratio_of_hits(np.ones(3, bool), np.zeros(3, bool)), "no correct prediction"),
    (lambda: scores.ratio_of_sums(np.ones(3), np.zeros(3)), "denominator is zero"),
    (lambda: scores.ratio_of_sums(np.array([1, np.inf]), np.ones(2)), "not finite"),
])
def test_what_is_not_defined_is_missing_with_its_reason(estimate, why) -> None:
    got = estimate()
    assert np.isnan(got.value)
    assert why in got.reason
