"""Intervals against the textbook formula and against resampling example by example."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from suture.numbers import intervals as scores
from suture.numbers import records
from suture.numbers.intervals import Estimate, exponentiate
from suture.numbers.measures import MEASURES


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (50, 50), (497, 500)])
def test_proportion_has_the_wilson_interval(hits: int, n: int) -> None:
    z, p = 1.959963984540054, hits / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    got = scores.estimate_proportion(np.arange(n) < hits)
    assert (got.value, got.low, got.high) == pytest.approx((p, middle - half, middle + half), abs=1e-12)


def estimate_ratio(top: np.ndarray, bottom: np.ndarray) -> Estimate:
    return scores.estimate_ratios(top[None], bottom)[0]


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
    got = scores.estimate_hit_ratio(hits, reference)
    assert got.value == hits.mean() / reference.mean()
    assert (got.low, got.high) == pytest.approx(resampled(hits, reference), abs=0.006)
    independent = scores.estimate_hit_ratio(rng.permutation(hits), reference)
    assert independent.high - independent.low > 1.2 * (got.high - got.low), "pairing must narrow the interval"


def test_ratio_of_sums_is_the_paired_bootstrap_over_examples() -> None:
    rng = np.random.default_rng(1)
    bottom = rng.gamma(4, size=300)
    top = bottom * rng.gamma(3, size=300) / 10
    got = estimate_ratio(top, bottom)
    low, high = resampled(top, bottom)
    assert got.value == pytest.approx(top.sum() / bottom.sum(), rel=1e-12)
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.12 * (high - low))


@pytest.mark.parametrize(("estimate", "why"), [
    (lambda: scores.estimate_proportion(np.zeros(0, bool)), "no examples"),
    (lambda: scores.estimate_hit_ratio(np.ones(3, bool), np.zeros(3, bool)), "no correct prediction"),
    (lambda: estimate_ratio(np.ones(3), np.zeros(3)), "denominator is zero"),
    (lambda: estimate_ratio(np.array([1, np.inf]), np.ones(2)), "not finite"),
])
def test_what_is_not_defined_is_missing_with_its_reason(estimate, why) -> None:
    got = estimate()
    assert np.isnan(got.value)
    assert why in got.reason


def test_many_cells_at_once_have_the_estimates_of_each_alone() -> None:
    rng = np.random.default_rng(2)
    tops, bottom = rng.normal(size=(3, 50)), rng.gamma(4, size=50)
    tops[1, [4, 9]] = np.nan
    together = scores.estimate_ratios(tops, bottom)
    assert together[1].reason == "not finite for 2 of 50 examples"
    for k in (0, 2):
        alone = estimate_ratio(tops[k], bottom)
        assert (together[k].value, together[k].low, together[k].high) == pytest.approx(
            (alone.value, alone.low, alone.high), rel=1e-12)
    assert ([e.reason for e in scores.estimate_ratios(tops, bottom * np.nan)]
            == ["the denominator is not finite"] * 3)


def test_the_mean_of_batches_has_students_interval() -> None:
    values = np.array([0.3, 0.5, 0.45, 0.2])
    got = scores.estimate_batch_mean(values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (got.value, got.low, got.high) == pytest.approx((values.mean(), low, high), rel=1e-12)
    single = scores.estimate_batch_mean(values[:1])
    assert (single.value, single.reason) == (0.3, "")
    assert np.isnan([single.low, single.high]).all()
    assert scores.estimate_batch_mean(np.array([1, np.inf])).reason == "not finite for 1 of 2 batches"


def test_sums_by_batch_keep_the_order() -> None:
    values = np.arange(12.0).reshape(2, 6)
    assert records.sum_by_batch(values, np.array([3, 1, 2])).tolist() == [[3, 3, 9], [21, 9, 21]]


def covered(low: float, value: float, high: float) -> bool:
    return low <= value <= high


def test_intervals_cover_about_as_often_as_they_say() -> None:
    """Of 300 samples of a skewed ratio and of a mean, of the difference of two cells, and of a mean of
    batches."""
    rng, n = np.random.default_rng(3), 80
    hits = {"ratio": 0, "mean": 0, "batches": 0}
    for _ in range(300):
        bottom = rng.gamma(4, 0.25, size=n)
        top = bottom * rng.gamma(2, 0.25, size=n)
        r, m = estimate_ratio(top, bottom), estimate_ratio(top, np.ones(n))
        b = scores.estimate_batch_mean(rng.normal(0.5, 0.2, size=4))
        for name, e in (("ratio", r), ("mean", m), ("batches", b)):
            hits[name] += covered(e.low, 0.5, e.high)
    # Standard error of a share of 300 at 0.95: 0.013; percentile bootstraps of 80 skewed values are a little
    # narrow.
    for name, count in hits.items():
        assert 0.90 < count / 300 < 0.985, (name, count)


def test_a_perplexity_beyond_floats_is_missing_with_its_reason() -> None:
    assert exponentiate(Estimate(1, 0, 2)) == Estimate(math.e, 1, math.exp(2))
    assert "more than a float holds" in exponentiate(Estimate(700, 600, 800)).reason
    assert exponentiate(Estimate(math.nan, reason="why")).reason == "why"
    assert not MEASURES["dm.relative_perplexity"].larger_is_more_similar
    assert MEASURES["dm.relative_perplexity"].common(3.0) == -3
