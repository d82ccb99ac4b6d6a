"""The Fréchet distance of rows: against matrix square roots, its own sampling error, and planted cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from suture._base.errors import SutureError
from suture.numbers import RowMoments, estimate_frechet

MAP = torch.tensor([[1, 0.3, 0, 0], [0, 0.7, 0.2, 0], [0.5, 0, 1, 0], [0, 0, 0.3, 2]], dtype=torch.float64)


def draw(seed, n=200, rows=5):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, n, rows, 4, generator=generator, dtype=torch.float64)
    native = noise[0] * torch.tensor([3, 2, 1, 0.2]) + noise[1, :, :1]  # rows of an example depend
    return native, native @ MAP.T + 0.4 + 0.5 * noise[2]


def slow(native, other):
    """The textbook formula with a matrix square root."""
    a, b = (x.reshape(-1, x.shape[-1]).numpy() for x in (native, other))
    c, d = (np.cov(x.T, bias=True) for x in (a, b))
    cross = linalg.sqrtm(c @ d).real
    return (((a.mean(0) - b.mean(0))**2).sum() + np.trace(c + d - 2 * cross)) / np.trace(c)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_textbook_formula(seed):
    native, other = draw(seed)
    found = estimate_frechet(RowMoments.of(native), RowMoments.of(other))
    assert found.value == pytest.approx(slow(native, other), rel=1e-8)


def test_the_interval_is_that_of_its_sampling_error():
    found = [estimate_frechet(*map(RowMoments.of, draw(seed))) for seed in range(150)]
    deviation = np.std([e.value for e in found], ddof=1)
    claimed = np.mean([(e.high - e.low) / 2 / 1.96 for e in found])
    assert claimed == pytest.approx(deviation, rel=0.15)


def test_planted_cases():
    native, _ = draw(0)
    own = RowMoments.of(native)
    same = estimate_frechet(own, own)
    assert (same.value, same.low) == (pytest.approx(0, abs=1e-12), 0)
    assert same.high < 1e-9
    collapsed = estimate_frechet(own, RowMoments.of(native.mean((0, 1)).expand_as(native)))
    assert collapsed.value == pytest.approx(1)
    shifted = estimate_frechet(own, RowMoments.of(native + 2))
    assert shifted.value == pytest.approx(16 / own.variance)
    tripled = estimate_frechet(own, RowMoments.of(3 * (native - own.mean) + own.mean))
    assert tripled.value == pytest.approx(4)
    missing = estimate_frechet(RowMoments.of(torch.ones(9, 2, 4)), RowMoments.of(native[:9, :2]))
    assert "constant" in missing.reason
    with pytest.raises(SutureError, match="rows"):
        estimate_frechet(own, RowMoments.of(native[:9]))


def test_fewer_rows_than_channels():
    wide = torch.randn(6, 1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = wide - wide.mean(0)
    found = estimate_frechet(RowMoments.of(wide), RowMoments.of(wide * 2))
    assert found.value == pytest.approx(1)
    assert found.low <= found.value <= found.high


def weigh(native, other, weights):
    """The distance with a weight for each example, by matrix square roots."""
    own = np.repeat(weights, native.shape[1])
    a, b = (x.reshape(-1, x.shape[-1]).numpy() for x in (native, other))
    means = [np.average(x, axis=0, weights=own) for x in (a, b)]
    c, d = (np.cov(x.T, bias=True, aweights=own) for x in (a, b))
    cross = linalg.sqrtm(c @ d).real
    return (((means[0] - means[1])**2).sum() + np.trace(c + d - 2 * cross)) / np.trace(c)


def test_the_interval_is_that_of_the_derivative_by_each_example():
    native, other = draw(0, n=40)
    step, slopes = 1e-4, []
    for k in range(len(native)):
        up, down = (weigh(native, other, 1 + sign * step * (np.arange(len(native)) == k)) for sign in (1, -1))
        slopes.append((up - down) / (2 * step))
    found = estimate_frechet(RowMoments.of(native), RowMoments.of(other))
    assert found.high - found.value == pytest.approx(1.959964 * np.linalg.norm(slopes), rel=1e-4)
