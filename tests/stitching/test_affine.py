"""The trainable map: parameters that stay inside their family."""

from __future__ import annotations

import copy
import re

import pytest
import sklearn.linear_model
import torch

from suture._base.errors import SutureError
from suture.stitching.families import (
    Diagonal,
    Full,
    Identity,
    Orthogonal,
    Permutation,
    Rank,
    Ridge,
    Sparse,
)
from suture.stitching.family import Family
from suture.stitching.layer import Affine
from tests.support.families import TEXTS, close, data, matched


def outside(layer: Affine) -> float:
    """How far the map of `layer` is from its family, by the definition of the family."""
    w, b = layer.weight.detach().double(), layer.bias.detach().double()
    family, eye = layer.family, torch.eye(layer.p).double()
    off = 0.0
    match family:
        case Rank():
            off = float(torch.linalg.svdvals(w)[family.rank:].sum() / w.norm())
        case Orthogonal():
            gram = w.T @ w
            off = float((gram / (gram.trace() / layer.p if family.scale else 1) - eye).abs().max())
        case Diagonal():
            off = float((w - w.diagonal().diag()).abs().max())
        case Permutation():
            off = float((w @ w.T - eye).abs().max() + (w - w.square()).abs().max())
        case Identity():
            off = float((w - eye).abs().max())
    return off + (0.0 if family.shift else float(b.abs().max()))


def trained(layer: Affine, steps: int = 20) -> list[float]:
    """Losses of Adam with weight decay on a random target."""
    x, y, family = *(m.float() for m in data(layer.p, layer.q)), layer.family
    optimiser, losses = torch.optim.Adam(layer.parameters(), 0.05, weight_decay=1e-4), []
    for _ in range(steps):
        loss = (x @ layer.weight.T + layer.bias - y).square().mean()
        penalty = None if family.needs_folds else family.penalty(layer.weight)
        optimiser.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        assert all(p.grad is not None for p in layer.parameters())
        optimiser.step()
        shrink(layer, 0.05)
        losses.append(loss.item())
    return losses


def shrink(layer: Affine, lr: float) -> None:
    """Make the family's step, as a stitching layer does."""
    with torch.no_grad():
        if layer.family.penalised:
            layer.weight.copy_(layer.family.shrink(layer.weight, lr))


WIDTHS = [(t, p, q) for t in TEXTS for p, q in ((4, 4), (3, 6), (6, 3))
          if p == q or (not Family.parse(t).square and (p < q or "orthogonal" not in t))]


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
    layer = Affine(32, 48, Orthogonal(scale=False)).init_random(0)
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
                 for f in (Full(), Rank(16)))
    assert float(low.std()) == pytest.approx(float(full.std()), rel=0.05)


def test_random_rotations_are_uniform():
    """Both signs of the determinant, no preferred direction."""
    draws = torch.stack([Affine(3, 3, Orthogonal(scale=False)).init_random(s).weight.detach()
                         for s in range(400)])
    assert 0.4 < float((torch.linalg.det(draws) > 0).float().mean()) < 0.6
    assert float(draws.mean(0).abs().max()) < 4 / (3 * 400) ** 0.5


@pytest.mark.parametrize(("text", "p", "q"), WIDTHS)
def test_the_identity_is_the_rectangular_identity(text, p, q):
    layer = Affine(p, q, Family.parse(text)).init_random(3).init_identity()
    eye = torch.eye(q, p)
    if isinstance(layer.family, Rank):
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
    weight = Affine(4, 3).init_random(0).weight
    penalty = Ridge(0.5).penalty(weight)
    assert penalty.item() == pytest.approx(0.5 * weight.square().sum().item() / 4)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 0.25 * weight.detach())
    assert all(Family.parse(t).penalty(weight) is None for t in TEXTS if "ridge" not in t)


def test_shrinking_makes_exact_zeros_in_sparse_alone():
    weight = torch.tensor([[0.04, -0.04], [1, -1]])
    torch.testing.assert_close(Sparse(0.5).shrink(weight, 0.1), torch.tensor([[0.0, 0], [0.95, -0.95]]))
    assert all(torch.equal(Family.parse(t).shrink(weight, 0.1), weight) for t in TEXTS if "sparse" not in t)


def test_shrunk_training_finds_the_lasso():
    """Gradient steps and `shrink` are proximal gradient descent on loss + strength * sum |W|."""
    x, y = data()
    alpha = 0.3
    layer = Affine(4, 4, Sparse(alpha)).double()
    for _ in range(4000):
        loss = (x @ layer.weight.T + layer.bias - y).square().sum() / (2 * len(x))
        gradients = torch.autograd.grad(loss, [layer.weight, layer.bias])
        with torch.no_grad():
            for p, g in zip((layer.weight, layer.bias), gradients, strict=True):
                p -= 0.1 * g
        shrink(layer, 0.1)
    reference = sklearn.linear_model.Lasso(alpha=alpha, tol=1e-10, max_iter=100_000).fit(x.numpy(), y.numpy())
    close(layer.weight.detach(), reference.coef_, 1e-6)
    assert int((layer.weight == 0).sum()) == (reference.coef_ == 0).sum() > 0
