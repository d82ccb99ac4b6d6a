"""Shifted sums against sums over all rows at once, in any batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from suture.numbers import Moments, ShiftedSums

G = torch.Generator().manual_seed(1)
N, P, F = 30, 4, 3
ROWS = torch.randn(N, P, F, generator=G) + 100
MASK = torch.rand(N, P, generator=G) < 0.7
CLASSES = torch.arange(N) % 3 * 2 - 2


def added(sizes: list[int], mask: Tensor | None, classes: Tensor | None,
          precision: torch.dtype = torch.float64) -> ShiftedSums:
    """Return the sums of batches of these sizes."""
    sums, start = ShiftedSums(F, precision), 0
    for size in sizes:
        at = slice(start, start + size)
        sums.update(ROWS[at], None if classes is None else classes[at], None if mask is None else mask[at])
        start += size
    return sums


@pytest.mark.parametrize("sizes", [[30], [7, 0, 23], [1] * 30])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_shifted_sums_are_those_of_all_rows(sizes: list[int], mask: Tensor | None,
                                            classes: Tensor | None) -> None:
    sums = added(sizes, mask, classes)
    used = torch.ones(N, P, dtype=torch.bool) if mask is None else mask
    x = ROWS.double()[used]
    wanted = Moments.of(x, x).x
    groups = [x] if classes is None else [ROWS.double()[used & (classes == c)[:, None]] for c in (-2, 0, 2)]
    within = sum((g - g.mean(0)).T @ (g - g.mean(0)) for g in groups) / len(x)
    side, (means, scatter) = sums.get_side(), sums.compute_within()
    assert side.n == sums.n == len(x)
    torch.testing.assert_close(side.mean, x.mean(0))
    torch.testing.assert_close(side.gram, wanted.gram)
    torch.testing.assert_close(means, torch.stack([g.mean(0) for g in groups]))
    torch.testing.assert_close(scatter, within)
    mean, overall = sums.compute_overall()
    torch.testing.assert_close(mean[0], x.mean(0))
    torch.testing.assert_close(overall, wanted.gram / len(x))


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_squares_alone_are_the_diagonal(classes: Tensor | None) -> None:
    pairs, squares = ShiftedSums(), ShiftedSums(pairs=False)
    for sums in (pairs, squares):
        for at in (slice(0, 7), slice(7, N)):
            sums.update(ROWS[at], None if classes is None else classes[at])
    for describe in (ShiftedSums.compute_within, ShiftedSums.compute_overall):
        torch.testing.assert_close(describe(squares)[1], describe(pairs)[1].diagonal(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(describe(squares)[0], describe(pairs)[0])


def test_a_large_mean_costs_no_digits() -> None:
    exact = added([30], None, None).get_side().gram
    torch.testing.assert_close(added([10, 20], None, None, torch.float32).get_side().gram, exact,
                               rtol=1e-5, atol=1e-4)


def test_a_batch_of_padding_adds_nothing() -> None:
    sums = ShiftedSums(F)
    sums.update(ROWS[:3], mask=torch.zeros(3, P, dtype=torch.bool))
    assert sums.n == 0
    sums.update(ROWS)
    torch.testing.assert_close(sums.shift, ROWS.mean((0, 1)).double())
