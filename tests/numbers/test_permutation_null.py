"""The closed-form null of CKA, against all permutations of few rows and against draws."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from suture.indices import INDICES
from suture.numbers import Moments, Pair, PermutationNull, describe_cka_null, describe_debiased_null

DESCRIBE = {"cka": describe_cka_null, "cka_debiased": describe_debiased_null}


def _compute(name: str, x: Tensor, y: Tensor) -> float:
    return float(INDICES[name].fn(Pair.of(Moments.of(x, y))))


def _describe(name: str, x: Tensor, y: Tensor) -> PermutationNull:
    moments = Moments.of(x, y)
    return DESCRIBE[name](moments.x, moments.y)


@pytest.mark.parametrize("name", DESCRIBE)
@pytest.mark.parametrize("n", [4, 5, 6])
def test_mean_and_deviation_are_those_of_all_permutations(name: str, n: int) -> None:
    g = torch.Generator().manual_seed(n)
    x, y = (torch.randn(n, p, generator=g, dtype=torch.float64).exp() for p in (3, 7))
    values = [_compute(name, x, y[list(order)]) for order in permutations(range(n))]
    null = _describe(name, x, y)
    assert null.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert null.std == pytest.approx(np.std(values), rel=1e-9)


def _draw(kind: str, n: int, p: int, g: torch.Generator) -> Tensor:
    x = torch.randn(n, p, generator=g, dtype=torch.float64)
    if kind == "relu":
        return torch.relu(torch.randn(n, 20, generator=g, dtype=torch.float64) @ x[:20])
    if kind == "heavy tails":
        return x / torch.randn(n, 3, generator=g, dtype=torch.float64).square().mean(1, keepdim=True).sqrt()
    if kind == "duplicated rows":
        return x[torch.arange(n) // 2]
    return x


@pytest.mark.parametrize("name", DESCRIBE)
@pytest.mark.parametrize(("kind", "n", "p"), [("normal", 40, 4), ("normal", 30, 60), ("relu", 30, 60),
                                              ("heavy tails", 40, 4), ("duplicated rows", 30, 60)])
def test_independent_rows_are_rejected_at_the_stated_rate(name: str, kind: str, n: int, p: int) -> None:
    g = torch.Generator().manual_seed(n + p)
    found = 0
    for _ in range(200):
        x, y = _draw(kind, n, p, g), torch.relu(_draw("normal", n, p, g))
        found += _describe(name, x, y).compute_p_value(_compute(name, x, y)) < 0.05
    interval = stats.binomtest(found, 200).proportion_ci()
    assert interval.low < 0.07
    assert interval.high > 0.03


def test_a_value_is_0_at_the_95_percent_point_and_1_at_the_largest() -> None:
    null = PermutationNull(0.2, 0.05, 16.0)
    assert null.calibrate(null.find_quantile(0.95)) == pytest.approx(0)
    assert null.calibrate(1.0) == 1.0
    assert null.compute_p_value(null.find_quantile(0.95)) == pytest.approx(0.05)


def test_where_permutations_change_nothing_nothing_is_above_chance() -> None:
    x = torch.eye(6, dtype=torch.float64)
    null = _describe("cka", x, x)
    assert null.compute_p_value(1.0) == 1.0
