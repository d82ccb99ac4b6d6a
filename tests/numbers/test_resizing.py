"""Resizing against the matrix of weights that torch's interpolation has."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from suture.numbers import Resizing, compute_interpolation

SIZES: list[tuple[int, ...]] = [(4, 6), (8, 3), (4, 4), (9, 13), (1, 1), (2, 6)]
LINES: list[tuple[int, ...]] = [(1,), (5,), (8,)]
VOLUMES: list[tuple[int, ...]] = [(2, 3, 4), (3, 2, 5), (1, 4, 4), (1, 2, 6), (4, 4, 4), (1, 1, 1)]
PAIRS = [pair for sizes in (SIZES, LINES, VOLUMES) for pair in product(sizes, sizes)]
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def weights(source: tuple[int, ...], target: tuple[int, ...], mode: str) -> torch.Tensor:
    """W (target positions, source positions), column by column from maps with a single 1."""
    count = int(torch.tensor(source).prod())
    ones = torch.eye(count, dtype=torch.float64).reshape(count, 1, *source)
    made = (F.interpolate(ones, size=target, mode="nearest-exact") if mode == "nearest"
            else F.interpolate(ones, size=target, mode=LINEAR[len(source)], align_corners=False))
    return made[:, 0].flatten(1).T


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_products_at_the_small_size_are_those_of_resized_maps(source: Any, target: Any, mode: Any) -> None:
    """On one axis (linear), two (bilinear) and three (trilinear), which may grow and shrink at once."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, *size, 3, generator=g, dtype=torch.float64) for size in (source, target))
    r, w = Resizing(source, target, mode), weights(source, target, mode)
    big = torch.einsum("ts,nsc->ntc", w, x.flatten(1, -2))
    small = r.shrink(x)
    assert small.shape[1:-1] == r.small
    assert r.is_up == (r.small != target)
    torch.testing.assert_close(r.resize_grid(x).flatten(1, -2), big)
    torch.testing.assert_close(r.resize_map(x.movedim(-1, 1)).movedim(1, -1).flatten(1, -2), big)
    torch.testing.assert_close(torch.einsum("npc,npd->cd", small.flatten(1, -2),
                                            r.apply_adjoint(y).flatten(1, -2)),
                               torch.einsum("npc,npd->cd", big, y.flatten(1, -2)))
    torch.testing.assert_close(torch.einsum("npc,npd->cd", small.flatten(1, -2),
                                            r.apply_gram(small).flatten(1, -2)),
                               torch.einsum("npc,npd->cd", big, big))
    torch.testing.assert_close(r.compute_squared_norms(small).flatten(1), big.square().sum(2))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_weights_along_one_axis_sum_to_one(mode: Any) -> None:
    w = compute_interpolation(3, 7, mode)
    torch.testing.assert_close(w, weights((1, 3), (1, 7), mode))
    torch.testing.assert_close(w.sum(1), torch.ones(7, dtype=torch.float64))
