"""Resizing against the matrix of weights that torch's interpolation has."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from suture.numbers import Resizing, compute_interpolation

SIZES = [(4, 6), (8, 3), (4, 4), (9, 13), (1, 1), (2, 6)]


def weights(source: tuple[int, int], target: tuple[int, int], mode: str) -> torch.Tensor:
    """W (target positions, source positions), column by column from maps with a single 1."""
    ones = torch.eye(source[0] * source[1], dtype=torch.float64).unflatten(1, source)[:, None]
    made = (F.interpolate(ones, size=target, mode="nearest-exact") if mode == "nearest"
            else F.interpolate(ones, size=target, mode="bilinear", align_corners=False))
    return made[:, 0].flatten(1).T


@pytest.mark.parametrize(("source", "target"), list(product(SIZES, SIZES)))
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_products_at_the_small_size_are_those_of_resized_maps(source: Any, target: Any, mode: Any) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, *size, 3, generator=g, dtype=torch.float64) for size in (source, target))
    r, w = Resizing(source, target, mode), weights(source, target, mode)
    big = torch.einsum("ts,nsc->ntc", w, x.flatten(1, 2))
    small = r.shrink(x)
    assert small.shape[1:3] == r.small
    assert r.is_up == (r.small != target)
    torch.testing.assert_close(r.resize_grid(x).flatten(1, 2), big)
    torch.testing.assert_close(r.resize_map(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2), big)
    torch.testing.assert_close(torch.einsum("npc,npd->cd", small.flatten(1, 2),
                                            r.apply_adjoint(y).flatten(1, 2)),
                               torch.einsum("npc,npd->cd", big, y.flatten(1, 2)))
    torch.testing.assert_close(torch.einsum("npc,npd->cd", small.flatten(1, 2),
                                            r.apply_gram(small).flatten(1, 2)),
                               torch.einsum("npc,npd->cd", big, big))
    torch.testing.assert_close(r.compute_squared_norms(small).flatten(1), big.square().sum(2))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_weights_along_one_axis_sum_to_one(mode: Any) -> None:
    w = compute_interpolation(3, 7, mode)
    torch.testing.assert_close(w, weights((1, 3), (1, 7), mode))
    torch.testing.assert_close(w.sum(1), torch.ones(7, dtype=torch.float64))
