"""Differences of two cells are paired over examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from suture._base.errors import SutureError
from suture.numbers import differences
from suture.numbers.records import Record


def test_the_paired_difference_covers_and_its_p_values_are_as_small_as_they_should_be(monkeypatch) -> None:
    monkeypatch.setattr(differences, "BOOTSTRAP_DRAWS", 400)
    rng, n, inside, small = np.random.default_rng(4), 80, 0, 0
    for _ in range(300):
        scale = rng.gamma(4, 0.25, size=n)
        common = rng.gamma(2, 0.25, size=n)
        one, other = (Record(scale * common * rng.gamma(9, 1 / 9, size=n), scale) for _ in range(2))
        got = differences.estimate_difference(one, other)
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
    assert differences.mcnemar(one, other) == differences.mcnemar(other, one) == p
    got = differences.estimate_difference(Record(one, np.ones(n)), Record(other, np.ones(n)))
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
    got, drawn = differences.estimate_difference(one, other), paired_slowly(one, other)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert got.value == pytest.approx(one.value - other.value, rel=1e-12)
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.12 * (high - low))
    if kind != "hits":
        assert got.p == pytest.approx(min(1, 2 * min((drawn <= 0).mean(), (drawn >= 0).mean())), abs=0.04)
    turned = differences.estimate_difference(other, one)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-got.value, -got.high, -got.low),
                                                                    rel=1e-12)
    assert turned.p == got.p


def test_a_cell_does_not_differ_from_itself() -> None:
    record = Record(np.random.default_rng(0).random(30), np.ones(30))
    got = differences.estimate_difference(record, record)
    assert (got.value, got.low, got.high, got.p) == (0, 0, 0, 1)


def test_batches_are_compared_by_the_paired_t_test() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.random(5), rng.random(5)
    one, other = (Record(v, np.ones(5), batches=True) for v in (a, b))
    got, wanted = differences.estimate_difference(one, other), stats.ttest_rel(a, b)
    interval = wanted.confidence_interval()
    assert (got.value, got.low, got.high, got.p) == pytest.approx(
        ((a - b).mean(), interval.low, interval.high, wanted.pvalue), rel=1e-12)
    assert (got.test, got.n) == ("paired t over batches", 5)
    assert differences.estimate_difference(one, one).p == 1
    single = differences.estimate_difference(*(Record(v[:1], np.ones(1), batches=True) for v in (a, b)))
    assert single.value == a[0] - b[0]
    assert np.isnan([single.low, single.high, single.p]).all()


def test_records_of_other_examples_are_refused() -> None:
    with pytest.raises(SutureError, match="same examples, got 3 and 4"):
        differences.estimate_difference(Record(np.ones(3), np.ones(3)), Record(np.ones(4), np.ones(4)))
