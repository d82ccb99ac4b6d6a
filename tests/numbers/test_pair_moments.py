"""Moments of all cells against moments of explicitly resized matrices, for every option."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from suture import SutureError
from suture.numbers import Moments, NonFiniteError, PairMoments, Resizing
from tests.support.moments import assert_equal_moments

GRIDS = [(4, 6), (4, 6), (2, 3), (1, 1)]
WIDTHS = [3, 2, 5, 4]


def batch(n: int, seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *grid, width, generator=g, dtype=torch.float64) + 3
            for grid, width in zip(GRIDS, WIDTHS, strict=True)]


def made(**options: Any) -> PairMoments:
    resizing = {(a, b): Resizing(a, b) for a, b in product(set(GRIDS), set(GRIDS))}
    return PairMoments(GRIDS, WIDTHS, GRIDS, WIDTHS, resizing, **{"precision": torch.float64} | options)


def rows(x: Tensor, grid: tuple[int, int]) -> Tensor:
    return Resizing((x.shape[1], x.shape[2]), grid).resize_grid(x).flatten(0, 2)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("sizes", [[11], [4, 1, 6]])
def test_moments_of_every_cell_are_those_of_its_matrices(same: bool, sizes: list[int]) -> None:
    xs = batch(11, 0)
    ys = xs if same else batch(11, 1)
    moments, start = made(same=same), 0
    for size in sizes:
        moments.update([x[start:start + size] for x in xs], [y[start:start + size] for y in ys])
        start += size
    assert moments.examples == 11
    assert moments.nbytes == moments.nbytes_planned
    for i, j in product(range(4), repeat=2):
        wanted = Moments.of(rows(xs[i], GRIDS[j]), rows(ys[j], GRIDS[j]))
        assert_equal_moments(moments.get_moments(i, j), wanted)


def test_padding_adds_no_rows() -> None:
    xs, ys = batch(9, 2), batch(9, 3)
    mask = torch.rand(9, 4, 6, generator=torch.Generator().manual_seed(4)) < 0.6
    xs[0][~mask], ys[1][~mask] = torch.nan, torch.inf
    grids = {((4, 6), (4, 6)): Resizing((4, 6), (4, 6))}
    moments = PairMoments(GRIDS[:2], WIDTHS[:2], GRIDS[:2], WIDTHS[:2], grids, precision=torch.float64)
    moments.update(xs[:2], ys[:2], {(4, 6): mask})
    assert_equal_moments(moments.get_moments(0, 1), Moments.of(xs[0][mask], ys[1][mask]))


def test_without_higher_orders_they_are_nan_and_cost_nothing() -> None:
    xs, ys = batch(5, 5), batch(5, 6)
    lean, whole = made(higher=False), made()
    for moments in (lean, whole):
        moments.update(xs, ys)
    for i, j in product(range(4), repeat=2):
        torch.testing.assert_close(lean.get_moments(i, j).sxy, whole.get_moments(i, j).sxy)
        assert lean.get_moments(i, j).x.quartic.isnan()
    assert lean.nbytes == lean.nbytes_planned < whole.nbytes


def test_a_bad_batch_is_named_and_leaves_the_sums_as_they_were() -> None:
    moments = made()
    with pytest.raises(SutureError, match="at least one batch"):
        moments.get_moments(0, 0)
    moments.update(batch(3, 7), batch(3, 8))
    before, bad = moments.get_moments(1, 2).sxy, batch(2, 9)
    bad[2][0, 0, 0, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="target representation 2") as e:
        moments.update(batch(2, 10), bad)
    assert (e.value.side, e.value.index) == ("target", 2)
    assert torch.equal(moments.get_moments(1, 2).sxy, before)
