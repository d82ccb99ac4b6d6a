"""Families of the affine map: closed forms against slow references, laws, and parameters that stay inside."""

from __future__ import annotations

import copy
import itertools
import pathlib
import re

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sklearn.linear_model
import torch

from suture._base.errors import SutureError
from suture.numbers.moments import Moments
from suture.numbers.spectra import Pair
from suture.stitching import direct_matching as direct
from suture.stitching.affine import Affine
from suture.stitching.direct_matching import choose_ridge, compute_residual, direct_match
from suture.stitching.families import FAMILIES, Family

TEXTS = ["full", "ridge:0.1", "ridge:cv", "rank:2", "orthogonal", "orthogonal:noscale", "orthogonal:noshift",
         "orthogonal:noscale,noshift", "diagonal", "permutation", "identity", "sparse:0.1"]
FITTED = [t for t in TEXTS if t != "ridge:cv"]


def data(p: int = 4, q: int = 4, n: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Channels of unequal size and mean; the target is a noisy, nonlinear mix with one strong partner per
    channel."""
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(n, p, generator=g, dtype=torch.float64)
         @ torch.randn(p, p, generator=g, dtype=torch.float64) / 2)
    mix = torch.randn(p, q, generator=g, dtype=torch.float64) / 2
    mix[torch.arange(min(p, q)), torch.arange(min(p, q)).roll(1)] += 3
    y = x @ mix + (x @ mix).relu() + torch.randn(n, q, generator=g, dtype=torch.float64)
    return x + torch.arange(p) - 1.5, y * (1 + torch.arange(q) / q) + 2


def matched(x: torch.Tensor, y: torch.Tensor, text: str) -> direct.DirectMatch:
    folds = [Moments.of(x[k::3], y[k::3]) for k in range(3)]
    return direct_match(Pair.of(Moments.of(x, y)), Family.parse(text), folds)


def numbers(x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    a, b = x.numpy(), y.numpy()
    return a, b, a - a.mean(0), b - b.mean(0)


def close(got: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1))


# -- names ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [*TEXTS, "ridge:1e-06", "ridge:3", "rank:1", "sparse:0.001"])
def test_a_family_is_its_text(text):
    assert str(Family.parse(text)) == text
    assert Family.parse(str(Family.parse(text))) == Family.parse(text)


def test_options_come_in_any_order():
    assert Family.parse("orthogonal:noshift,noscale") == Family("orthogonal", scale=False, shift=False)
    assert Family.parse("ridge:1e-6") == Family("ridge", strength=1e-6)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Family.parse("rigde:1"), ["rigde", "ridge"]),
    (lambda: Family.parse(""), ["unknown family"]),
    (lambda: Family.parse("ridge"), ["strength", "None", "ridge:0.1"]),
    (lambda: Family.parse("ridge:much"), ["'much'", "ridge:0.1"]),
    (lambda: Family.parse("ridge:0"), ["0.0", "full"]),
    (lambda: Family.parse("ridge:nan"), ["nan"]),
    (lambda: Family.parse("ridge:inf"), ["inf"]),
    (lambda: Family.parse("rank"), ["rank:8"]),
    (lambda: Family.parse("rank:0"), ["got 0"]),
    (lambda: Family.parse("rank:2.5"), ["'2.5'", "whole"]),
    (lambda: Family.parse("sparse:1"), ["1.0", "sparse:0.01"]),
    (lambda: Family.parse("sparse:cv"), ["'cv'"]),
    (lambda: Family.parse("full:3"), ["'3'", "write full"]),
    (lambda: Family.parse("full:"), ["write full"]),
    (lambda: Family.parse("orthogonal:noscal"), ["noscal", "noscale"]),
    (lambda: Family("full", strength=0.1), ["no strength", "ridge:0.1"]),
    (lambda: Family("full", rank=3), ["no rank", "rank:3"]),
    (lambda: Family("diagonal", scale=False), ["scale=False", "orthogonal:noscale"]),
    (lambda: Family("identity", shift=False), ["shift=False", "orthogonal:noshift"]),
    (lambda: Family("orthogonal").check(5, 3), ["5 into 3", "rank:3", "swap"]),
    (lambda: Family("diagonal").check(3, 5), ["3 into 5", "orthogonal"]),
    (lambda: Family("permutation").check(5, 3), ["5 into 3", "use full"]),
    (lambda: Family("identity").check(5, 3), ["5 into 3"]),
    (lambda: Family("rank", rank=4).check(9, 3), ["at most 3", "got 4"]),
    (lambda: Affine(5, 3, Family("orthogonal")), ["5 into 3"]),
    (lambda: matched(*data(5, 3), "orthogonal"), ["5 into 3"]),
    (lambda: direct_match(Pair.of(Moments.of(*data())), Family.parse("ridge:cv")), ["folds", "ridge:0.1"]),
    (lambda: choose_ridge([Moments.of(*data())]), ["two folds", "got 1"]),
    (lambda: choose_ridge([Moments.of(*data())] * 2, []), ["above 0"]),
    (lambda: choose_ridge([Moments.of(*data())] * 2, [1.0, 0.0]), ["above 0", "[1.0, 0.0]"]),
    (lambda: compute_residual(torch.zeros(4, 3), torch.zeros(4), Moments.of(*data())), ["(4, 4)", "(4, 3)"]),
    (lambda: compute_residual(torch.zeros(4, 4), torch.zeros(3), Moments.of(*data())), ["(4,)", "(3,)"]),
    (lambda: Affine(3, 3).set(torch.zeros(3, 2), torch.zeros(3)), ["(3, 3)", "(3, 2)"]),
    (lambda: Affine(3, 3).set(torch.full((3, 3), torch.nan), torch.zeros(3)), ["NaN"]),
    (lambda: Affine(3, 3, Family("identity")).set(torch.eye(3), torch.ones(3)), ["b = 0", "1.7"]),
    (lambda: Affine(3, 3, Family("orthogonal", shift=False)).set(torch.eye(3), torch.ones(3)), ["b = 0"]),
    (lambda: Affine(3, 3, Family.parse("ridge:cv")).penalty(), ["cv", "ridge:0.1"]),
])
def test_bad_input_is_refused_in_one_line(make, words):
    with pytest.raises(SutureError) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert all(w in str(caught.value) for w in words), caught.value


# -- closed forms against references -------------------------------------------------------------------------

@pytest.mark.parametrize(("p", "q"), [(4, 4), (3, 6), (6, 3)])
def test_ridge_is_scikit_learns(p, q):
    x, y = data(p, q)
    a, b, ac, _ = numbers(x, y)
    m = matched(x, y, "ridge:0.2")
    reference = sklearn.linear_model.Ridge(alpha=0.2 * (ac**2).sum() / p, solver="svd").fit(a, b)
    close(m.weight, reference.coef_)
    close(m.bias, reference.intercept_)
    assert m.strength == 0.2


def test_ridge_is_chosen_as_a_loop_over_the_data_chooses_it():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(40, 12, generator=g, dtype=torch.float64) * torch.logspace(0, -1, 12) + 5
    y = x @ torch.randn(12, 3, generator=g, dtype=torch.float64) + 2 * torch.randn(40, 3, generator=g)
    parts = [slice(0, 9), slice(9, 25), slice(25, 40)]
    errors = []
    for s in direct.RIDGE_STRENGTHS:
        error = 0.0
        for part in parts:
            rest = torch.ones(40, dtype=torch.bool)
            rest[part] = False
            a, b, ac, _ = numbers(x[rest], y[rest])
            fit = sklearn.linear_model.Ridge(alpha=s * (ac**2).sum() / 12, solver="svd").fit(a, b)
            error += ((fit.predict(x[part].numpy()) - y[part].numpy()) ** 2).sum()
        errors.append(error)
    best = direct.RIDGE_STRENGTHS[int(np.argmin(errors))]
    assert best not in (direct.RIDGE_STRENGTHS[0], direct.RIDGE_STRENGTHS[-1])
    folds = [Moments.of(x[part], y[part]) for part in parts]
    assert choose_ridge(folds) == best
    m = direct_match(Pair.of(Moments.of(x, y)), Family.parse("ridge:cv"), folds)
    assert m.strength == best
    assert str(m.family) == "ridge:cv"
    assert torch.equal(m.weight,
                       direct_match(Pair.of(Moments.of(x, y)), Family("ridge", strength=best)).weight)


@pytest.mark.parametrize(("p", "q", "k"), [(5, 5, 1), (5, 5, 3), (3, 6, 2), (6, 3, 2), (4, 4, 4)])
def test_rank_is_what_alternating_least_squares_finds(p, q, k):
    x, y = data(p, q)
    _, _, ac, bc = numbers(x, y)
    right = np.random.default_rng(0).standard_normal((k, p))
    for _ in range(3000):
        left = np.linalg.lstsq(ac @ right.T, bc, rcond=None)[0].T
        # For fixed left factors the best right factors regress the targets' coordinates in their span.
        right = np.linalg.lstsq(ac, bc @ np.linalg.pinv(left).T, rcond=None)[0].T
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
    monkeypatch.setattr(direct, "SPARSE_STEPS", 3)
    with pytest.raises(SutureError, match=r"sparse:0\.1 to converge within 3 steps"):
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
    assert not m.family.shifts or float(rest.mean(0).abs().max()) <= 1e-10
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
    if family.shifts and family.name != "permutation":
        torch.testing.assert_close(x.mean(0) @ m.weight.T + m.bias, y.mean(0))
        if constant != "one channel" and family.scale:
            assert float(m.weight.abs().max()) <= 1e-12
    if constant == "one channel" and family.name == "diagonal":
        assert m.weight[1, 1] == 0


# -- invariances ---------------------------------------------------------------------------------------------

RNG = np.random.default_rng(5)
ROTATION = torch.as_tensor(np.linalg.qr(RNG.standard_normal((4, 4)))[0])
TRANSFORMATIONS = {
    "translation": lambda m: m + torch.tensor([1.0, -2, 0.5, 3]),
    "scaling": lambda m: 1.7 * m,
    "permutation": lambda m: m[:, [1, 2, 3, 0]],
    "orthogonal": lambda m: m @ ROTATION,
    "linear": lambda m: m @ (ROTATION + torch.diag(torch.tensor([1.0, 2, 3, 4]))),
}


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
    if transformation in getattr(family, f"invariant_{side}"):
        assert after == pytest.approx(before, abs=1e-7)
    else:
        assert abs(after - before) > 1e-3


def test_the_table_in_the_docs_is_the_table():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "families.md").read_text()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines()
            if line.startswith("| `")]
    order = list(TRANSFORMATIONS)

    def listed(kept: frozenset[str]) -> str:
        return ", ".join(sorted(kept, key=order.index)) or "none"

    assert rows == [[f"`{name}`", d.map, listed(d.invariant_x), listed(d.invariant_y), d.use]
                    for name, d in FAMILIES.items()]


# -- the trainable map ---------------------------------------------------------------------------------------

def outside(layer: Affine) -> float:
    """How far the map of `layer` is from its family, by the definition of the family."""
    w, b = layer.weight.detach().double(), layer.bias.detach().double()
    family, eye = layer.family, torch.eye(layer.p).double()
    off = 0.0
    if family.name == "rank":
        off = float(torch.linalg.svdvals(w)[family.rank:].sum() / w.norm())
    elif family.name == "orthogonal":
        gram = w.T @ w
        off = float((gram / (gram.trace() / layer.p if family.scale else 1) - eye).abs().max())
    elif family.name == "diagonal":
        off = float((w - w.diagonal().diag()).abs().max())
    elif family.name == "permutation":
        off = float((w @ w.T - eye).abs().max() + (w - w.square()).abs().max())
    elif family.name == "identity":
        off = float((w - eye).abs().max())
    return off + (0.0 if family.shifts else float(b.abs().max()))


def trained(layer: Affine, steps: int = 20) -> list[float]:
    """Losses of Adam with weight decay on a random target."""
    x, y = (m.float() for m in data(layer.p, layer.q))
    optimiser, losses = torch.optim.Adam(layer.parameters(), 0.05, weight_decay=1e-4), []
    for _ in range(steps):
        loss = (x @ layer.weight.T + layer.bias - y).square().mean()
        penalty = layer.penalty() if layer.family.strength != "cv" else None
        optimiser.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        assert all(p.grad is not None for p in layer.parameters())
        optimiser.step()
        layer.shrink(0.05)
        losses.append(loss.item())
    return losses


WIDTHS = [(t, p, q) for t in TEXTS for p, q in ((4, 4), (3, 6), (6, 3))
          if p == q or (Family.parse(t).name not in ("diagonal", "permutation", "identity")
                        and (p < q or Family.parse(t).name != "orthogonal"))]


@pytest.mark.parametrize(("text", "p", "q"), WIDTHS)
@pytest.mark.parametrize("start", ["random", "identity"])
def test_training_stays_in_the_family(text, p, q, start):
    layer = Affine(p, q, Family.parse(text))
    if start == "random":
        layer.init_random(1)
    first = layer.weight.detach().clone()
    assert outside(layer) <= 1e-6
    assert bool(list(layer.parameters())) == layer.family.trainable
    if layer.family.trainable:
        losses = trained(layer)
        assert losses[-1] < losses[0]
        assert float((layer.weight.detach() - first).norm()) > 0.01
    assert outside(layer) <= 1e-5


def test_a_long_turn_stays_a_rotation():
    layer = Affine(32, 48, Family("orthogonal", scale=False)).init_random(0)
    with torch.no_grad():
        layer.angle.normal_(generator=torch.Generator().manual_seed(0))
    assert outside(layer) <= 1e-5


@pytest.mark.parametrize("text", ["full", "ridge:0.1", "ridge:cv", "sparse:0.1"])
def test_free_maps_are_plain_parameters(text):
    layer = Affine(3, 5, Family.parse(text))
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert isinstance(layer.weight, torch.nn.Parameter)
    assert layer.weight is layer.weight


def test_full_starts_where_a_convolution_does():
    """One generator, the weight first: what a `StitchingLayer` draws."""
    g = torch.Generator().manual_seed(7)
    weight, bias = (torch.empty(*s).uniform_(-(9**-0.5), 9**-0.5, generator=g) for s in ((5, 9), (5,)))
    layer = Affine(9, 5).init_random(7)
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize(("text", "p", "q"), WIDTHS)
def test_starts_depend_on_the_seed_alone(text, p, q):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    a, b, c = (Affine(p, q, Family.parse(text)).init_random(s) for s in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(a.weight, b.weight)
    assert torch.equal(a.weight, c.weight) == (text == "identity")


def test_low_rank_starts_have_the_variance_of_full_ones():
    full, low = (Affine(64, 128, f).init_random(0).weight.detach()
                 for f in (Family(), Family("rank", rank=16)))
    assert float(low.std()) == pytest.approx(float(full.std()), rel=0.05)


def test_random_rotations_are_uniform():
    """Both signs of the determinant, no preferred direction."""
    draws = torch.stack([Affine(3, 3, Family("orthogonal", scale=False)).init_random(s).weight.detach()
                         for s in range(400)])
    assert 0.4 < float((torch.linalg.det(draws) > 0).float().mean()) < 0.6
    assert float(draws.mean(0).abs().max()) < 4 / (3 * 400) ** 0.5


@pytest.mark.parametrize(("text", "p", "q"), WIDTHS)
def test_the_identity_is_the_rectangular_identity(text, p, q):
    layer = Affine(p, q, Family.parse(text)).init_random(3).init_identity()
    eye = torch.eye(q, p)
    if layer.family.rank:
        eye[layer.family.rank:] = 0
    torch.testing.assert_close(layer.weight.detach(), eye)
    assert torch.equal(layer.bias.detach(), torch.zeros(q))
    torch.testing.assert_close(Affine(p, q, Family.parse(text)).weight.detach(), eye)


@pytest.mark.parametrize(("text", "p", "q"), WIDTHS)
def test_a_fitted_map_is_taken_over_and_survives_its_state(text, p, q):
    m = matched(*data(p, q), text)
    layer = Affine(p, q, m.family).set(m.weight, m.bias)
    torch.testing.assert_close(layer.weight.detach().double(), m.weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias.detach(), m.bias.float())
    other = Affine(p, q, m.family).init_random(9)
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer)):
        assert torch.equal(twin.weight, layer.weight)
        assert torch.equal(twin.bias, layer.bias)
    assert layer.double().weight.dtype == torch.float64
    assert str(m.family) in repr(layer)
    assert f"{p} -> {q}" in repr(layer)


def test_the_map_of_a_constant_source_is_taken_over():
    m = matched(torch.ones(9, 3), data(3, 3, 9)[1], "orthogonal")
    layer = Affine(3, 3, m.family).set(m.weight, m.bias)
    assert float(layer.weight.detach().abs().max()) < 1e-20
    trained(layer)
    assert layer.weight.isfinite().all()


@pytest.mark.parametrize(("text", "away"), [
    ("rank:2", 1), ("orthogonal", 2**0.5), ("orthogonal:noscale", 5**0.5), ("permutation", 5**0.5),
    ("identity", 5**0.5), ("diagonal", 0.5)])
def test_a_map_of_another_family_is_refused(text, away):
    """diag(1, 2, 3) has its nearest members at known distances. What was there stays."""
    weight = torch.diag(torch.tensor([1.0, 2, 3]))
    if text == "diagonal":
        weight[0, 1] = 0.5
    layer = Affine(3, 3, Family.parse(text)).init_random(0)
    before = layer.weight.detach().clone()
    with pytest.raises(SutureError,
                       match=re.escape(f"{away:.1e} away from the nearest; fit the map as {text}")):
        layer.set(weight, torch.zeros(3))
    assert torch.equal(layer.weight, before)


def test_penalty_is_of_ridge_alone():
    layer = Affine(4, 3, Family("ridge", strength=0.5)).init_random(0)
    penalty = layer.penalty()
    assert penalty.item() == pytest.approx(0.5 * layer.weight.square().sum().item() / 4)
    penalty.backward()
    torch.testing.assert_close(layer.weight.grad, 0.25 * layer.weight.detach())
    assert all(Affine(4, 4, Family.parse(t)).penalty() is None for t in TEXTS if "ridge" not in t)


def test_shrinking_makes_exact_zeros_in_sparse_alone():
    layer = Affine(2, 2, Family("sparse", strength=0.5))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.04, -0.04], [1, -1]]))
    layer.shrink(0.1)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.0, 0], [0.95, -0.95]]))
    for t in TEXTS:
        other = Affine(4, 4, Family.parse(t)).init_random(0)
        before = other.weight.detach().clone()
        other.shrink(0.1)
        assert torch.equal(other.weight, before) == ("sparse" not in t)


def test_shrunk_training_finds_the_lasso():
    """Gradient steps and `shrink` are proximal gradient descent on loss + strength * sum |W|."""
    x, y = data()
    alpha = 0.3
    layer = Affine(4, 4, Family("sparse", strength=alpha)).double()
    for _ in range(4000):
        loss = (x @ layer.weight.T + layer.bias - y).square().sum() / (2 * len(x))
        gradients = torch.autograd.grad(loss, [layer.weight, layer.bias])
        with torch.no_grad():
            for p, g in zip((layer.weight, layer.bias), gradients, strict=True):
                p -= 0.1 * g
        layer.shrink(0.1)
    reference = sklearn.linear_model.Lasso(alpha=alpha, tol=1e-10, max_iter=100_000).fit(x.numpy(), y.numpy())
    close(layer.weight.detach(), reference.coef_, 1e-6)
    assert int((layer.weight == 0).sum()) == (reference.coef_ == 0).sum() > 0
