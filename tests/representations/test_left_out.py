"""Intervals of all cells: what is factorised, and that sharing changes no number."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch

from suture.indices import chosen
from suture.numbers import factorisations
from suture.representations import Accumulators, AccumulatorSettings, Kind, Shape

SHAPES = [Shape(Kind.TOKENS, width, (3,)) for width in (4, 5, 6)]
CELLS = [*product(range(3), range(3))]
SETTINGS = AccumulatorSettings(chosen(["default", "cka@pool", "svcca:0.9", "r2_folds"]), jackknife=5,
                               precision=torch.float64)


def fill(*, same: bool) -> Accumulators:
    made = Accumulators(SHAPES, SHAPES, SETTINGS, same=same)
    g = torch.Generator().manual_seed(0)
    for n in (9, 31):
        xs = [torch.randn(n, 3, s.width, generator=g, dtype=torch.float64).cumsum(1) for s in SHAPES]
        made.update(xs, xs if same else [x.clone() for x in xs])
    return made


def test_a_network_with_itself_has_the_intervals_of_two_equal_ones() -> None:
    own, two = (fill(same=same).compute_all_values(CELLS) for same in (True, False))
    for cell in CELLS:
        for name, value in own[cell].items():
            other = two[cell][name]
            found, wanted = ((v.value, v.low, v.high) for v in (value, other))
            assert found == pytest.approx(wanted, rel=1e-9, abs=1e-11, nan_ok=True), (cell, name)
            assert (value.reason, value.mark) == (other.reason, other.mark)


def test_cells_share_what_is_factorised_without_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """One eigendecomposition for each site and block, one of each kind for two cells that are turned."""
    made, calls, factorise = fill(same=True), Counter[str](), factorisations._factorise

    def count(what: str, x: torch.Tensor) -> Any:
        calls[what] += 1
        return factorise(what, x)

    monkeypatch.setattr(factorisations, "_factorise", count)
    made.settings = AccumulatorSettings(chosen("default"), jackknife=5, precision=torch.float64)
    made.compute_all_values(CELLS)
    pairs, ordered, blocks = 3, 6, 5
    assert calls == {"eigenvalues": 3 + 3 * blocks, "singular value decomposition": ordered + pairs * blocks,
                     "singular values": ordered + pairs * blocks}
