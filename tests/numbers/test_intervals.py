"""Intervals against the textbook formula and resampling by example; differences are paired over examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from suture._base import SutureError
from suture.numbers import intervals as scores
from suture.numbers import records
from suture.numbers.intervals import Estimate, estimate_difference, exponentiate, take_root
from suture.numbers.measures import MEASURES
from suture.numbers.records import Record


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


# -- differences of two cells --------------------------------------------------------------------------------

def test_the_paired_difference_covers_and_its_p_values_are_as_small_as_they_should_be(monkeypatch) -> None:
    monkeypatch.setattr(scores, "BOOTSTRAP_DRAWS", 400)
    rng, n, inside, small = np.random.default_rng(4), 80, 0, 0
    for _ in range(300):
        scale = rng.gamma(4, 0.25, size=n)
        common = rng.gamma(2, 0.25, size=n)
        one, other = (Record(scale * common * rng.gamma(9, 1 / 9, size=n), scale) for _ in range(2))
        got = scores.estimate_difference(one, other)
        inside += got.low <= 0 <= got.high
        small += got.p < 0.05
    assert 0.90 < inside / 300 < 0.985
    assert 0.015 < small / 300 < 0.10


@pytest.mark.parametrize(("gains", "losses"), [(6, 0), (20, 5), (3, 4), (0, 0)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(gains: int, losses: int) -> None:
    n = 40
    one, other = np.zeros(n, bool), np.zeros(n, bool)
    one[:10] = other[:10] = True
    one[10:10 + gains] = True
    other[30:30 + losses] = True
    p = stats.binomtest(gains, gains + losses, 0.5).pvalue if gains + losses else 1.0
    assert scores.mcnemar(one, other) == scores.mcnemar(other, one) == p
    got = scores.estimate_difference(Record(one, np.ones(n)), Record(other, np.ones(n)))
    assert (got.value, got.p, got.test, got.n) == (pytest.approx((gains - losses) / n), p, "exact McNemar", n)


def paired_slowly(one: Record, other: Record) -> np.ndarray:
    rng, found = np.random.RandomState(6), []
    for _ in range(3000):
        rows = rng.randint(0, len(one.top), len(one.top))
        found.append(one.top[rows].sum() / one.bottom[rows].sum()
                     - other.top[rows].sum() / other.bottom[rows].sum())
    return np.array(found)


@pytest.mark.parametrize("kind", ["means", "ratios", "ratios of two targets", "hits"])
def test_differences_are_the_paired_bootstrap_over_examples(kind: str) -> None:
    rng, n = np.random.default_rng(7), 300
    common = rng.gamma(2, size=n)
    tops = [common * rng.gamma(9, 1 / 9, size=n) * f for f in (1.0, 1.07)]
    bottoms = [np.ones(n)] * 2 if kind == "means" else [rng.gamma(5, size=n)] * 2
    if kind == "ratios of two targets":
        bottoms[1] = bottoms[0] * rng.gamma(9, 1 / 9, size=n)
    if kind == "hits":
        tops, bottoms = [t < 1.5 for t in tops], [(common < 4).astype(float)] * 2
    one, other = (Record(t, b) for t, b in zip(tops, bottoms, strict=True))
    got, drawn = scores.estimate_difference(one, other), paired_slowly(one, other)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert got.value == pytest.approx(one.value - other.value, rel=1e-12)
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.12 * (high - low))
    if kind != "hits":
        assert got.p == pytest.approx(min(1, 2 * min((drawn <= 0).mean(), (drawn >= 0).mean())), abs=0.04)
    turned = scores.estimate_difference(other, one)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-got.value, -got.high, -got.low),
                                                                    rel=1e-12)
    assert turned.p == got.p


def test_a_cell_does_not_differ_from_itself() -> None:
    record = Record(np.random.default_rng(0).random(30), np.ones(30))
    got = scores.estimate_difference(record, record)
    assert (got.value, got.low, got.high, got.p) == (0, 0, 0, 1)


def test_batches_are_compared_by_the_paired_t_test() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.random(5), rng.random(5)
    one, other = (Record(v, np.ones(5), batches=True) for v in (a, b))
    got, wanted = scores.estimate_difference(one, other), stats.ttest_rel(a, b)
    interval = wanted.confidence_interval()
    assert (got.value, got.low, got.high, got.p) == pytest.approx(
        ((a - b).mean(), interval.low, interval.high, wanted.pvalue), rel=1e-12)
    assert (got.test, got.n) == ("paired t over batches", 5)
    assert scores.estimate_difference(one, one).p == 1
    single = scores.estimate_difference(*(Record(v[:1], np.ones(1), batches=True) for v in (a, b)))
    assert single.value == a[0] - b[0]
    assert np.isnan([single.low, single.high, single.p]).all()


@pytest.mark.parametrize("top", [np.array([True]), np.array([0.3])])
def test_a_single_example_has_no_interval(top: np.ndarray) -> None:
    got = scores.estimate_difference(Record(top, np.ones(1)), Record(~top if top.dtype == bool else -top,
                                                                     np.ones(1)))
    assert np.isnan([got.low, got.high]).all()
    assert "single example" in got.reason
    assert got.p == 1 if top.dtype == bool else np.isnan(got.p)
    two = Record(np.ones(2), np.ones(2))
    assert scores.estimate_difference(two, two).reason == ""


def test_records_of_other_examples_are_refused() -> None:
    with pytest.raises(SutureError, match="same examples, got 3 and 4"):
        scores.estimate_difference(Record(np.ones(3), np.ones(3)), Record(np.ones(4), np.ones(4)))


# -- several initialisations ---------------------------------------------------------------------------------

def test_pooled_runs_have_the_mean_and_the_root_of_both_squares() -> None:
    runs = [Estimate(0.5, 0.4, 0.7), Estimate(0.6, 0.5, 0.8), Estimate(0.7, 0.5, 0.8)]
    half = 4.302652729911275 * 0.1 * math.sqrt(4 / 3)
    got = scores.pool_runs(runs)
    assert got.value == pytest.approx(0.6)
    assert got.low == pytest.approx(0.6 - math.hypot(0.4 / 3, half))
    assert got.high == pytest.approx(0.6 + math.hypot(0.5 / 3, half))
    assert scores.pool_runs(runs, 0.1, 1.0) == Estimate(got.value, 0.1, 1.0)
    equal = scores.pool_runs(runs[:1] * 3)
    assert (equal.value, equal.low, equal.high) == pytest.approx((0.5, 0.4, 0.7))


def test_pooled_runs_without_a_value_or_an_interval() -> None:
    one, none = Estimate(0.5, 0.4, 0.7), scores.make_missing_estimate("why")
    assert scores.pool_runs([one]) is one
    assert scores.pool_runs([one, none]) is none
    got = scores.pool_runs([Estimate(1.0), Estimate(2.0)], least=0.0)
    assert got.value == 1.5
    assert math.isnan(got.low)
    assert math.isnan(got.high)


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (2, 0.2), (3, 0.2), (6, 0.2)])
def test_an_interval_over_runs_holds_one_more_initialisation(seeds: int, spread: float) -> None:
    """Accuracies of n = 200 examples that differ by initialisation, on the same test examples."""
    rng, held, draws = np.random.default_rng(seeds), 0, 200
    for _ in range(draws):
        ease = rng.normal(0.3, 0.2, 200)
        hits = [ease + rng.normal(0, spread) + rng.normal(0, 0.1, 200) > 0.25 for _ in range(seeds + 1)]
        pooled = scores.pool_runs([scores.estimate_proportion(h) for h in hits[:-1]], 0.0, 1.0)
        held += pooled.low <= hits[-1].mean() <= pooled.high
    assert held >= 0.92 * draws, "five in a hundred, and two standard errors less"
    if spread == 0.2:
        assert held <= 0.995 * draws, "wider than it says"


def test_runs_without_noise_of_examples_are_compared_by_welch() -> None:
    one, other = (0.5, 0.62, 0.55), (0.7, 0.8, 0.73, 0.66)
    flat = [Record(np.full(50, np.mean(runs)), np.ones(50), runs=runs) for runs in (one, other)]
    got, wanted = scores.estimate_difference(*flat), stats.ttest_ind(one, other, equal_var=False)
    assert got.p == pytest.approx(wanted.pvalue)
    assert (got.low, got.high) == pytest.approx(tuple(wanted.confidence_interval()))
    assert scores.estimate_difference(flat[0], flat[0]).value == 0


def test_examples_without_spread_of_runs_are_compared_by_a_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(1, 1, (2, 60))
    records = [Record(v, np.ones(60), runs=(float(v.mean()),) * 2) for v in (x, y)]
    got, wanted = scores.estimate_difference(*records), stats.ttest_rel(x, y)
    assert got.p == pytest.approx(wanted.pvalue)
    assert (got.low, got.high) == pytest.approx(tuple(wanted.confidence_interval()))


def test_equal_cells_differ_by_chance_alone() -> None:
    rng, found = np.random.default_rng(2), []
    for _ in range(400):
        noise = rng.normal(0, 0.4, 40) + rng.normal(0, 0.2, (2, 3, 40))
        runs = rng.normal(0.5, 0.05, (2, 3))[:, :, None] + noise
        found.append(scores.estimate_difference(*(
            Record(of.mean(0), np.ones(40), runs=tuple(of.mean(1).tolist())) for of in runs)).p)
    assert np.mean(np.array(found) < 0.05) < 0.08


def test_a_single_example_has_no_interval_over_runs() -> None:
    record = Record(np.ones(1), np.ones(1), runs=(0.5, 1.5))
    got = scores.estimate_difference(record, record)
    assert math.isnan(got.p)
    assert math.isnan(got.low)


def test_the_exponential_of_a_mean_over_runs_has_the_slope_of_its_value() -> None:
    gaps = np.random.default_rng(3).normal(0, 0.1, 200)
    plain = Record(gaps, np.ones(200), runs=(float(gaps.mean()),) * 2)
    grown = records.replace(plain, exponential=True, runs=(math.exp(float(gaps.mean())),) * 2)
    zero = Record(np.zeros(200), np.ones(200))
    a, b = (scores.estimate_difference(r, replace_exponential(zero, r)) for r in (plain, grown))
    assert b.high - b.low == pytest.approx((a.high - a.low) * math.exp(gaps.mean()), rel=1e-6)


def replace_exponential(record: Record, like: Record) -> Record:
    return records.replace(record, exponential=like.exponential)


def test_an_error_is_the_root_of_a_ratio_and_of_its_interval() -> None:
    assert take_root(Estimate(4, 1, 9)) == Estimate(2, 1, 3)
    one, other = (Record(np.array(top, float), np.full(4, 4.0), root=True) for top in ([1, 1, 2, 0], [4] * 4))
    assert one.value == 0.5
    found = estimate_difference(one, other)
    assert found.value == -0.5
    assert found.low <= -0.5 <= found.high < 0
