"""Spectra and what is solved from them, against numpy on the matrices themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from suture.numbers import (
    MomentBlock,
    Moments,
    Pair,
    Spectrum,
    compute_squared_error,
    find_varying_columns,
)
from suture.numbers.spectra import compute_rank_cut, solve_least_squares

G = torch.Generator().manual_seed(2)
X = torch.randn(40, 3, generator=G, dtype=torch.float64) @ torch.randn(3, 5, generator=G).double() + 7
Y = torch.randn(40, 4, generator=G, dtype=torch.float64) - 2
M = Moments.of(X, Y)
XC, YC = (X - X.mean(0)).numpy(), (Y - Y.mean(0)).numpy()


def test_a_spectrum_has_the_rank_and_the_eigenvalues_of_the_centred_matrix() -> None:
    s = Spectrum.of(M.x)
    singular = np.linalg.svd(XC)[1]
    assert (s.rank, s.width) == (3, 5) == (np.linalg.matrix_rank(XC), 5)
    np.testing.assert_allclose(s.values, singular[:3] ** 2, rtol=1e-9)
    assert s.condition == pytest.approx((singular[0] / singular[2]) ** 2)
    np.testing.assert_allclose((s.vectors * s.values) @ s.vectors.T, XC.T @ XC, atol=1e-9)
    constant = Spectrum.of(Moments.of(torch.full((9, 2), 1e6 / 3), torch.ones(9, 1)).x)
    assert constant.rank == 0
    assert np.isnan(constant.condition)
    assert compute_rank_cut(5, 40, torch.float64) == 40 * np.finfo(float).eps
    assert compute_rank_cut(5, 40, torch.float32) == 4 * np.finfo(np.float32).eps


def test_columns_that_vary_only_by_rounding_are_constant() -> None:
    wide = torch.cat([X, torch.full((40, 1), 0.1 * 3e7)], 1)
    assert find_varying_columns(Moments.of(wide, Y).x).tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_least_squares_with_a_ridge_penalty(strength: float) -> None:
    weight = solve_least_squares(Spectrum.of(M.x), M, strength)
    penalty = strength * np.trace(XC.T @ XC) / 5
    wanted = np.linalg.pinv(XC.T @ XC + penalty * np.eye(5)) @ XC.T @ YC
    np.testing.assert_allclose(weight.T, wanted, atol=1e-8)
    bias = torch.tensor([1.0, 2, 3, 4]).double()
    error = (X @ weight.T + bias - Y).square().sum()
    torch.testing.assert_close(compute_squared_error(weight, bias, M), error)


def test_a_pair_has_the_correlations_of_its_matrices() -> None:
    pair = Pair.of(M)
    basis_x, basis_y = np.linalg.svd(XC)[0][:, :3], np.linalg.svd(YC)[0][:, :4]
    np.testing.assert_allclose(pair.canonical[1], np.linalg.svd(basis_x.T @ basis_y)[1][:3], atol=1e-9)
    np.testing.assert_allclose(pair.correlations, np.corrcoef(X.T, Y.T)[:5, 5:], atol=1e-9)
    assert pair.nuclear == pytest.approx(np.linalg.norm(XC.T @ YC, "nuc"))
    assert pair.scale == pytest.approx(np.linalg.norm(XC) * np.linalg.norm(YC))
    assert (pair.n, pair.constant) == (40, ())
    flat = Pair.of(Moments.of(torch.ones(9, 2), torch.arange(9.0)[:, None]))
    assert flat.constant == ("source",)
    assert not flat.correlations.any()


def test_a_block_keeps_what_both_have() -> None:
    units = MomentBlock(M, standard=M)
    assert units.merge(units).standard is not None
    assert units.merge(MomentBlock(M)).standard is None
