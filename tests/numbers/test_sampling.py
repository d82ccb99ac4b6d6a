"""The reservoir: uniform over numbers, the same for any batches."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from suture._base.errors import SutureError
from suture.numbers.sampling import Reservoir


def drawn(most, seed, batches):
    """The reservoir after the batches, and a table of numbers that was kept by what it said."""
    reservoir, table, start = Reservoir(most, seed), np.full(most, -1), 0
    for count in batches:
        kept, slots = reservoir.offer(count)
        assert len(set(slots.tolist())) == len(slots) == len(kept)
        assert kept.dtype == slots.dtype == np.int64
        assert ((kept >= 0) & (kept < count)).all()
        table[slots] = start + kept
        start += count
        assert np.array_equal(table[:len(reservoir.numbers)], reservoir.numbers)
    return reservoir


def bottom(most, seed, length):
    """The `most` numbers with the smallest hashes, in plain integers."""
    def mixed(z):
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
        return z ^ z >> 31
    start = mixed(seed % 2**64)
    return sorted(range(length), key=lambda i: mixed((start + i * 0x9E3779B97F4A7C15) % 2**64))[:most]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(most=st.integers(1, 30), seed=st.integers(-3, 2**70),
       batches=st.lists(st.integers(0, 40), max_size=12))
def test_reservoir_does_not_depend_on_batches(most, seed, batches):
    length = sum(batches)
    reservoir, whole, single = (drawn(most, seed, b) for b in (batches, [length], [1] * length))
    assert np.array_equal(reservoir.numbers, whole.numbers)
    assert np.array_equal(reservoir.numbers, single.numbers)
    assert sorted(reservoir.numbers.tolist()) == sorted(bottom(most, seed, length))
    assert len(reservoir.numbers) == min(most, length)
    assert reservoir.seen == length


def test_reservoir_is_uniform_over_numbers():
    """Inclusion counts; of draws without replacement their statistic is chi-square with N - 1 degrees of
    freedom."""
    length, most, seeds = 50, 10, 1500
    counts = np.bincount(np.concatenate([drawn(most, s, [30, 20]).numbers for s in range(seeds)]),
                         minlength=length)
    p = most / length
    statistic = (length - 1) / length * ((counts - seeds * p) ** 2).sum() / (seeds * p * (1 - p))
    assert 0.005 < stats.chi2.sf(statistic, length - 1) < 0.995


def test_reservoir_draws_every_subset_equally_often():
    subsets = dict.fromkeys(combinations(range(5), 2), 0)
    for seed in range(2000):
        subsets[tuple(sorted(drawn(2, seed, [3, 2]).numbers.tolist()))] += 1
    assert 0.005 < stats.chisquare(list(subsets.values())).pvalue < 0.995


def test_reservoir_of_a_long_stream():
    numbers = drawn(2000, 7, [4096] * 50).numbers
    assert len(set(numbers.tolist())) == 2000
    assert stats.chisquare(np.histogram(numbers, 40, (0, 4096 * 50))[0]).pvalue > 0.005
    assert not np.array_equal(numbers, drawn(2000, 8, [4096] * 50).numbers)


def test_bad_reservoirs_are_refused():
    with pytest.raises(SutureError, match="at least one row"):
        Reservoir(0)
