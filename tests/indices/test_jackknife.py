"""Intervals by the jackknife: what they are computed from, and that they hold the truth as often as they
say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from suture import indices
from tests.support import references

NAMES = indices.GROUPS["moments"]
DRAWS, ROWS, MANY = 200, 500, 400_000


def drawn(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one population: each target column is one of the source's with others mixed in and noise of its
    own size.

    So canonical correlations lie apart and the best matching of columns is clear. Where they are not, a few
    rows more or less turn the directions and the matching over.
    """
    fixed = np.random.default_rng(1)
    mix, scales = np.eye(5, 4) * 1.5 + 0.2 * fixed.normal(size=(5, 4)), np.array([2.0, 1.5, 1.0, 0.7, 0.5])
    shift, noise = np.array([1.0, 2.0, -1.0, 0.5, 1.0]), np.array([0.5, 1.0, 1.2, 1.5])
    g = np.random.default_rng((7, seed))
    x = g.normal(size=(n, 5)) * scales
    return x + shift, x @ mix + g.normal(size=(n, 4)) * noise + np.array([4.0, 0.0, 1.0, -2.0])


@pytest.mark.parametrize("name", ["cka", "pwcca", "opd", "r2"])
def test_the_interval_is_that_of_leaving_each_block_out(name: str) -> None:
    """Against the definition, with the slow references: block of a row is its number modulo the number of
    blocks."""
    x, y = drawn(0, 203)
    of, block = references.INDICES[name], np.arange(203) % 10
    whole, left = of(x, y), np.array([of(x[block != k], y[block != k]) for k in range(10)])
    centre = whole if name == "pwcca" else 10 * whole - 9 * left.mean()
    half = stats.t.ppf(0.975, 9) * np.sqrt(0.9 * ((left - left.mean()) ** 2).sum())
    found = indices.of_matrices(x, y, [name], jackknife=10)[name]
    assert (found.value, found.low, found.high) == pytest.approx((whole, centre - half, centre + half),
                                                                 abs=1e-9)


def test_there_is_no_interval_where_a_value_without_a_block_is_missing() -> None:
    x, y = drawn(0, 10)
    found = indices.of_matrices(x, y, ["cca", "cka"], jackknife=5)
    assert not found["cca"].reason
    assert np.isnan(found["cca"].low)
    assert found["cka"].low < found["cka"].value


def test_identical_matrices_have_an_interval_of_no_width() -> None:
    x, _ = drawn(0, 100)
    found = indices.of_matrices(x, x, ["cka", "cca", "r2"], jackknife=5)
    assert all(v.low == pytest.approx(1) == v.high for v in found.values())


@pytest.mark.slow
def test_the_intervals_cover_the_large_sample_value() -> None:
    """Over 200 draws of 500 rows the 95 % interval holds the value of 400,000 rows in 90 to 99 %, for every
    index."""
    truth = {name: v.value for name, v in indices.of_matrices(*drawn(DRAWS, MANY), NAMES).items()}
    held = dict.fromkeys(NAMES, 0)
    for k in range(DRAWS):
        for name, v in indices.of_matrices(*drawn(k, ROWS), NAMES, jackknife=20).items():
            held[name] += v.low <= truth[name] <= v.high
    shares = {name: count / DRAWS for name, count in held.items()}
    assert {name: s for name, s in shares.items() if not 0.90 <= s <= 0.99} == {}, shares


def test_there_is_no_interval_where_leaving_a_block_out_changes_the_number_of_components() -> None:
    """Components that hold just about the share that is asked for: SVCCA jumps, and the jackknife with it."""
    g = np.random.default_rng(23)
    x = g.normal(size=(300, 10))
    y = x @ g.normal(size=(10, 6)) + g.normal(size=(300, 6))
    kept = {references.leading(y[np.arange(300) % 20 != k], 0.9).shape[1] for k in range(20)}
    assert len(kept) == 2, "the case tests nothing unless the share is near a step"
    found = indices.of_matrices(x, y, ["svcca:0.9", "svcca:1"], jackknife=20)
    assert 0 < found["svcca:0.9"].value < 1
    assert np.isnan(found["svcca:0.9"].low)
    assert found["svcca:1"].low < found["svcca:1"].value < found["svcca:1"].high
