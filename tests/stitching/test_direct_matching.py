"""Direct matching: closed forms against slow references, law 4, and the invariances that families declare."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sklearn.linear_model
import torch

from suture._base.errors import SutureError
from suture.numbers.moments import Moments
from suture.numbers.spectra import Pair
from suture.stitching import direct_matching
from suture.stitching.direct_matching import RIDGE_STRENGTHS, choose_ridge, compute_residual, direct_match
from suture.stitching.families import Diagonal, Permutation, Ridge
from suture.stitching.family import Family
from tests.support.families import FITTED, TEXTS, TRANSFORMATIONS, close, data, matched, numbers
from tests.support.moments import grid_moments


def test_direct_matching_drops_no_direction_as_rows_grow():
    """float32 pinv with its default cut drops more directions the more rows it gets (published code: 17 of
    65)."""
    g = torch.Generator().manual_seed(0)
    for n in (500, 5000, 50000):
        x = torch.randn(n, 65, generator=g) * torch.logspace(0, -2.5, 65)
        grid = grid_moments([x], [x[:, :3]], [n], torch.float32)
        assert direct_match(Pair.of(grid.get_moments(0, 0))).rank == 65


# -- closed forms against references -------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "q"), [(4, 4), (3, 6), (6, 3)])
def test_ridge_is_scikit_learns(p, q):
    x, y = data(p, q)
    a, b, ac, _ = numbers(x, y)
    m = matched(x, y, "ridge:0.2")
    reference = sklearn.linear_model.Ridge(alpha=0.2 * (ac**2).sum() / p, solver="svd").fit(a, b)
    close(m.weight, reference.coef_)
    close(m.bias, reference.intercept_)
    assert m.family == Ridge(0.2)


def test_ridge_is_chosen_as_a_loop_over_the_data_chooses_it():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(40, 12, generator=g, dtype=torch.float64) * torch.logspace(0, -1, 12) + 5
    y = x @ torch.randn(12, 3, generator=g, dtype=torch.float64) + 2 * torch.randn(40, 3, generator=g)
    parts = [slice(0, 9), slice(9, 25), slice(25, 40)]
    errors = []
    for s in RIDGE_STRENGTHS:
        error = 0.0
        for part in parts:
            rest = torch.ones(40, dtype=torch.bool)
            rest[part] = False
            a, b, ac, _ = numbers(x[rest], y[rest])
            fit = sklearn.linear_model.Ridge(alpha=s * (ac**2).sum() / 12, solver="svd").fit(a, b)
            error += ((fit.predict(x[part].numpy()) - y[part].numpy()) ** 2).sum()
        errors.append(error)
    best = RIDGE_STRENGTHS[int(np.argmin(errors))]
    assert best not in (RIDGE_STRENGTHS[0], RIDGE_STRENGTHS[-1])
    folds = [Moments.of(x[part], y[part]) for part in parts]
    assert choose_ridge(folds) == best
    m = direct_match(Pair.of(Moments.of(x, y)), Family.parse("ridge:cv"), folds)
    assert m.family == Ridge(best)
    assert torch.equal(m.weight, direct_match(Pair.of(Moments.of(x, y)), Ridge(best)).weight)


@pytest.mark.parametrize(("p", "q", "k"), [(5, 5, 1), (5, 5, 3), (3, 6, 2), (6, 3, 2), (4, 4, 4)])
def test_rank_is_what_alternating_least_squares_finds(p, q, k):
    x, y = data(p, q)
    _, _, ac, bc = numbers(x, y)
    right, before = np.random.default_rng(0).standard_normal((k, p)), np.inf
    for _ in range(3000):
        left = np.linalg.lstsq(ac @ right.T, bc, rcond=None)[0].T
        # For fixed left factors the best right factors regress the targets' coordinates in their span.
        right = np.linalg.lstsq(ac, bc @ np.linalg.pinv(left).T, rcond=None)[0].T
        if np.abs(left @ right - before).max() < 1e-14:
            break
        before = left @ right
    m = matched(x, y, f"rank:{k}")
    close(m.weight, left @ right, 1e-6)
    assert np.linalg.matrix_rank(m.weight.numpy(), tol=1e-8) == k


@pytest.mark.parametrize(("p", "q"), [(4, 4), (3, 6)])
@pytest.mark.parametrize("text", ["orthogonal", "orthogonal:noscale", "orthogonal:noshift",
                                  "orthogonal:noscale,noshift"])
def test_orthogonal_is_scipys_procrustes(text, p, q):
    """The source padded with zeros to the target's width: what is added holds no data, the rest is an
    isometry."""
    x, y = data(p, q)
    a, b, ac, bc = numbers(x, y)
    xs, ys = (a, b) if "noshift" in text else (ac, bc)
    rotation, nuclear = scipy.linalg.orthogonal_procrustes(np.pad(xs, ((0, 0), (0, q - p))), ys)
    scale = 1 if "noscale" in text else nuclear / (xs**2).sum()
    m = matched(x, y, text)
    close(m.weight, scale * rotation[:p].T)
    close(m.bias, np.zeros(q) if "noshift" in text else b.mean(0) - m.weight.numpy() @ a.mean(0))


@pytest.mark.parametrize(("p", "q"), [(2, 3), (2, 2)])
def test_no_random_isometry_is_better(p, q):
    x, y = data(p, q)
    _, _, ac, bc = numbers(x, y)
    m = matched(x, y, "orthogonal:noscale")
    best = ((ac @ m.weight.numpy().T - bc) ** 2).sum()
    rng, found = np.random.default_rng(0), np.inf
    for _ in range(3000):
        base, _ = np.linalg.qr(rng.standard_normal((q, p)))
        found = min(found, ((ac @ base.T - bc) ** 2).sum())
    assert best <= found <= 1.05 * best


def test_diagonal_is_one_regression_per_channel():
    x, y = data()
    m = matched(x, y, "diagonal")
    for i in range(4):
        line = scipy.stats.linregress(x[:, i].numpy(), y[:, i].numpy())
        assert float(m.weight[i, i]) == pytest.approx(line.slope, abs=1e-10)
        assert float(m.bias[i]) == pytest.approx(line.intercept, abs=1e-10)
    assert torch.equal(m.weight, m.weight.diagonal().diag())


@pytest.mark.parametrize("n", [1, 2, 4, 6])
@pytest.mark.parametrize("constant", [False, True])
def test_permutation_is_the_best_of_all(n, constant):
    """By correlation; a constant channel correlates with nothing."""
    g = torch.Generator().manual_seed(n)
    x, y = (torch.randn(12, n, generator=g, dtype=torch.float64) * 3.0 ** torch.arange(n) for _ in range(2))
    if constant:
        x[:, 0], y[:, -1] = 0.1, 7
    correlation = np.zeros((n, n))
    for i, j in itertools.product(range(int(constant), n), range(n - int(constant))):
        correlation[i, j] = scipy.stats.pearsonr(x[:, i].numpy(), y[:, j].numpy())[0]
    best = max(sum(correlation[i, j] for j, i in enumerate(order))
               for order in itertools.permutations(range(n)))
    m = matched(x, y, "permutation")
    assert sorted(m.weight.argmax(1).tolist()) == list(range(n))
    assert int(m.weight.count_nonzero()) == n
    assert (m.weight.numpy() * correlation.T).sum() == pytest.approx(best, abs=1e-10)
    close(m.bias, y.mean(0).numpy() - m.weight.numpy() @ x.mean(0).numpy())


def test_identity_is_fitted_to_nothing():
    m = matched(*data(), "identity")
    assert torch.equal(m.weight, torch.eye(4).double())
    assert torch.equal(m.bias, torch.zeros(4).double())


@pytest.mark.parametrize(("p", "q"), [(4, 4), (8, 3)])
@pytest.mark.parametrize("strength", [0.5, 0.05, 0.001])
def test_sparse_is_scikit_learns_lasso(p, q, strength):
    x, y = data(p, q)
    a, b, ac, bc = numbers(x, y)
    alpha = strength * np.abs(ac.T @ bc).max() / len(a)
    reference = sklearn.linear_model.Lasso(alpha=alpha, tol=1e-10, max_iter=1_000_000).fit(a, b)
    m = matched(x, y, f"sparse:{strength}")
    close(m.weight, reference.coef_, 1e-6)
    close(m.bias, reference.intercept_, 1e-6)
    assert ((m.weight == 0) == torch.as_tensor(reference.coef_ == 0)).all()


def test_sparse_reaches_zero_at_strength_one_and_not_before():
    x, y = data()
    assert int(matched(x, y, "sparse:0.999999").weight.count_nonzero()) == 1


def test_sparse_says_where_it_does_not_converge(monkeypatch):
    monkeypatch.setattr(direct_matching, "LASSO_STEPS", 3)
    with pytest.raises(SutureError, match=r"sparse:0\.1 does not converge"):
        matched(*data(), "sparse:0.1")


# -- law 4 ---------------------------------------------------------------------------------------------------


def pulls_of_rank(pull, w, base):
    left, _, right = torch.linalg.svd(w)
    return [left[:, :2].T @ pull, pull @ right[:2].T]


def pulls_of_isometry(pull, w, base):
    turn = w.T @ pull
    return [turn - turn.T, pull - w @ torch.linalg.pinv(w) @ pull]


def pulls_of_lasso(pull, w, base):
    """On the entries that are zero, only what exceeds the penalty pulls."""
    alpha = 0.1 * float((pull + w @ base.T @ base).abs().max())
    return [(pull - alpha * w.sign())[w != 0], torch.nn.functional.softshrink(pull, alpha)[w == 0]]


STATIONARY = {
    "full": lambda pull, w, base: [pull],
    "ridge:0.1": lambda pull, w, base: [pull - 0.1 * base.square().sum() / w.shape[1] * w],
    "rank:2": pulls_of_rank,
    "orthogonal": lambda pull, w, base: [*pulls_of_isometry(pull, w, base), (w * pull).sum()],
    "orthogonal:noshift": lambda pull, w, base: [*pulls_of_isometry(pull, w, base), (w * pull).sum()],
    "orthogonal:noscale": pulls_of_isometry,
    "orthogonal:noscale,noshift": pulls_of_isometry,
    "diagonal": lambda pull, w, base: [pull.diagonal()],
    "permutation": lambda pull, w, base: [],
    "identity": lambda pull, w, base: [],
    "sparse:0.1": pulls_of_lasso,
}
"""From the pull on W (minus half the gradient of the squared error), W and the source about its mean (where
the family shifts): the parts of the pull along which the family lets W move."""


@pytest.mark.parametrize(("text", "q"), [(t, q) for t in FITTED for q in (4, 6)
                                         if q == 4 or t not in ("diagonal", "permutation", "identity")])
def test_the_residual_is_orthogonal_to_all_that_the_family_can_move(text, q):
    x, y = data(4, q)
    m = matched(x, y, text)
    rest = y - x @ m.weight.T - m.bias
    base = x - x.mean(0) if m.family.shift else x
    assert not m.family.shift or float(rest.mean(0).abs().max()) <= 1e-10
    for part in STATIONARY[text](rest.T @ base, m.weight, base):
        assert float(part.norm()) <= 1e-9 * float(rest.norm() * base.norm())


@pytest.mark.parametrize("text", TEXTS)
def test_the_residual_is_of_the_installed_map(text):
    """On the data of the fit, and on other data for a map from elsewhere, in any float type."""
    (x, y), (x2, y2) = data(), data(seed=1)
    m = matched(x, y, text)

    def by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ m.weight.T + m.bias - b).square().sum() / (b - b.mean(0)).square().sum())

    assert m.residual == pytest.approx(by_hand(x, y), rel=1e-10)
    held = Moments.of(x2, y2)
    assert compute_residual(m.weight, m.bias, held) == pytest.approx(by_hand(x2, y2), rel=1e-10)
    assert compute_residual(m.weight.float(), m.bias.float(), held) == pytest.approx(by_hand(x2, y2),
                                                                                     rel=1e-5)


def test_smaller_families_fit_worse():
    x, y = data()
    fits = {t: matched(x, y, t).residual for t in FITTED}
    for inner, outer in (("identity", "orthogonal:noscale"),
                         ("orthogonal:noscale,noshift", "orthogonal:noshift"),
                         ("orthogonal:noscale", "orthogonal"), ("orthogonal", "full"), ("diagonal", "full"),
                         ("permutation", "orthogonal"), ("rank:2", "full"), ("ridge:0.1", "full"),
                         ("sparse:0.1", "full")):
        assert fits[inner] > fits[outer] > 0, (inner, outer)
    assert matched(x, y, "rank:1").residual > fits["rank:2"]
    assert matched(x, y, "rank:4").residual == pytest.approx(fits["full"], rel=1e-10)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("constant", ["source", "target", "both", "one channel", "one row"])
def test_degenerate_data_give_finite_maps(text, constant):
    x, y = data()
    if constant in ("source", "both"):
        x = torch.full_like(x, 0.1)
    if constant in ("target", "both"):
        y = torch.full_like(y, 0.1)
    if constant == "one channel":
        x[:, 1], y[:, 2] = 0.1, 0
    if constant == "one row":
        x, y = x[:1].expand(3, -1), y[:1].expand(3, -1)
    m = matched(x, y, text)
    assert m.weight.isfinite().all()
    assert m.bias.isfinite().all()
    family = Family.parse(text)
    if family.shift and not isinstance(family, Permutation):
        torch.testing.assert_close(x.mean(0) @ m.weight.T + m.bias, y.mean(0))
        if constant != "one channel" and "noscale" not in text:
            assert float(m.weight.abs().max()) <= 1e-12
    if constant == "one channel" and isinstance(family, Diagonal):
        assert m.weight[1, 1] == 0


# -- invariances ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("text", TEXTS)
def test_held_out_fit_keeps_the_declared_invariances_and_no_other(text, side, transformation):
    change = TRANSFORMATIONS[transformation]
    family = Family.parse(text)

    def held_out(fx, fy) -> float:
        (x, y), (x2, y2) = data(), data(seed=0, n=200)
        m = matched(fx(x), fy(y), text)
        return 1 - compute_residual(m.weight, m.bias, Moments.of(fx(x2)[90:], fy(y2)[90:]))

    before = held_out(lambda m: m, lambda m: m)
    after = held_out(change, lambda m: m) if side == "x" else held_out(lambda m: m, change)
    if transformation in family.invariances[side == "y"]:
        assert after == pytest.approx(before, abs=1e-7)
    else:
        assert abs(after - before) > 1e-3
