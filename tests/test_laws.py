"""The laws of the design (section 6), over tables of networks, indices and shapes."""

from __future__ import annotations

import copy
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import suture
from suture import indices
from suture.data.batches import Batches
from suture.networks.calls import apply, extract_main_output, extract_tensors, freeze
from suture.networks.sites import SitedNetwork, capture
from suture.numbers.moments import Moments
from suture.numbers.spectra import Pair
from suture.representations.alignment import Alignment
from suture.stitching import StitchingLayer, TaskRecipe, direct_match
from suture.stitching.trainer import GroupTrainer
from tests.support import references
from tests.support.moments import ALL_SIZES, assert_equal_moments, batch_of, grid_moments
from tests.support.networks import NETWORKS, Awkward, images, noise, settled
from tests.support.states import same_state, state_of

# -- law 1: the tail of the front is the network -------------------------------------------------------------


# All of a ResNet-18 or a plain ResNet-20 adds nothing over one with strided shortcuts and that of the digits.
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("resnet18", "resnet20")])
def test_tail_of_front_is_the_network_at_every_site(name):
    """Exactly, alone and concatenated; and the tail of a site that cuts does not look at the inputs."""
    network, inputs = NETWORKS[name]()
    before = state_of(network)
    other = {k: v.flip(0) for k, v in inputs.items()} if isinstance(inputs, dict) else inputs.flip(0)
    sited = SitedNetwork(network, inputs, "**", allow_bypass=True)
    assert len(sited.sites) >= 5
    with torch.no_grad(), freeze(network):
        own = extract_tensors(apply(network, inputs))
        done, elsewhere = sited.run_full(inputs), sited.run_full(other)
        for k, (info, x) in enumerate(zip(sited.infos, sited.front(inputs), strict=True)):
            kept = x.clone()
            ends = extract_tensors(sited.tail(k, x, done))
            assert all(torch.equal(a, b) for a, b in zip(ends, own, strict=True)), info
            assert torch.equal(x, kept), f"{info}: the given representation was overwritten"
            double = extract_main_output(sited.tail(k, torch.cat([x, x]), done))
            torch.testing.assert_close(double, torch.cat([extract_main_output(own)] * 2),
                                       rtol=1e-4, atol=1e-5)
            away = extract_main_output(sited.tail(k, x, elsewhere))
            assert torch.allclose(away, extract_main_output(own), atol=1e-5) == (not info.bypass), info
    assert same_state(before, state_of(network))


# -- law 2: moments merge ------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.integers(2, 30), st.integers(1, 29),
       st.sampled_from([0.0, 10.0, -1000.0]))
def test_merged_moments_are_the_moments_of_both(seed, p, q, n, cut, mean):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, d, generator=g, dtype=torch.float64) + mean for d in (p, q))
    cut = min(cut, n - 1)
    whole = Moments.of(x, y)
    for a, b in ((slice(0, cut), slice(cut, n)), (slice(cut, n), slice(0, cut))):
        merged = Moments.of(x[a], y[a]).merge(Moments.of(x[b], y[b]))
        assert_equal_moments(merged, whole)


@cache
def stacked_moments(of):
    """Two lists of representations, and the moments of each pair of stacked matrices."""
    xs = [batch_of(s, 12, k, 5.0) for k, s in enumerate(ALL_SIZES[of])]
    ys = [batch_of(s, 12, 100 + k, -30.0) for k, s in enumerate(ALL_SIZES[of])]
    return xs, ys, {(i, j): Moments.of(references.rows(x, y), references.rows(y, y))
                    for (i, x), (j, y) in product(enumerate(xs), enumerate(ys))}


@pytest.mark.parametrize(("splits", "folds"), [([12], 1), ([5, 7], 2), ([11, 1], 5)])
@pytest.mark.parametrize("of", ALL_SIZES)
def test_grid_moments_are_those_of_the_stacked_matrices_whatever_the_resize(of, splits, folds):
    """Up, down, unequal sides, vectors, one to three axes; any batch size and any sharding; an interpolated
    copy is the reference."""
    xs, ys, stacked = stacked_moments(of)
    grid = grid_moments(xs, ys, splits, folds=folds)
    for (i, j), wanted in stacked.items():
        assert_equal_moments(grid.get_moments(i, j), wanted)


# -- law 3: indices equal slow references and keep their invariances -----------------------------------------


def data(kind: str, seed: int = 0, n: int = 60, p: int = 6, q: int = 4):
    g = np.random.default_rng(seed)
    x, y = g.normal(size=(n, p)), g.normal(size=(n, q))
    mixed = x @ g.normal(size=(p, q)) + 0.5 * y
    rotation = np.linalg.qr(g.normal(size=(p, p)))[0]
    # Means of their own, so that what is said of means says something.
    x, y, mixed = (m + g.normal(size=m.shape[1]) for m in (x, y, mixed))
    return {
        "random": (x, y), "correlated": (x, mixed),
        "deficient": (x @ g.normal(size=(p, 2)) @ g.normal(size=(2, p)), mixed),
        "shifted": (x + 10 * x.std(), mixed - 10), "identical": (x, x), "rotated": (x, x @ rotation * 3),
        "wider": (mixed, x), "scaled": (x * np.geomspace(1, 1e-3, p), mixed),
        "wide": (x[:5], mixed[:5]),
    }[kind]


KINDS = ["random", "correlated", "deficient", "shifted", "identical", "rotated", "wider", "scaled", "wide"]
MISSING_WHEN_WIDE = {"cca", "cca_squared", "svcca", "pwcca", "pwcca_target", "eigenspace_overlap", "r2",
                     "r2_folds", "dm_residual"}
ROOTS = {"opd_root", "shape_angular", "cka_angular", "shape", "gulp", "size_and_shape"}
"""Rounding of 1e-16 at a zero distance is 1e-8 in a root, and so in an angle."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", indices.GROUPS["moments"])
def test_index_equals_its_reference(name, kind):
    x, y = data(kind)
    value = indices.of_matrices(x, y, [name])[name]
    if kind == "wide" and name in MISSING_WHEN_WIDE:
        assert "rows" in value.reason
        return
    assert value.reason == ""
    tolerance = 1e-6 if name in ROOTS else 1e-8
    assert value.value == pytest.approx(references.INDICES[name](x, y), abs=tolerance)


# The invariances that an index states are checked in tests/indices/test_statements.py.


# -- law 4: direct matching ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("of", ALL_SIZES)
def test_direct_matching_equals_lstsq_in_every_cell(of, precision):
    """Resize up, down and to unequal sides. In float32 the map is compared by what it predicts."""
    n = 40
    base = [batch_of(s, n, k, 2.0) for k, s in enumerate(ALL_SIZES[of])]
    ys = [batch_of(s, n, 50 + k) for k, s in enumerate(ALL_SIZES[of])]
    grid = grid_moments(base, ys, [13, 13, 14], precision)
    for (i, x), (j, y) in product(enumerate(base), enumerate(ys)):
        match = direct_match(Pair.of(grid.get_moments(i, j)))
        rx, ry = references.rows(x, y), references.rows(y, y)
        weight, bias = references.least_squares(rx, ry)
        if precision == torch.float64:
            assert (match.weight - weight).norm() <= 1e-6 * weight.norm(), (i, j)
            assert (match.bias - bias).norm() <= 1e-6 * (bias.norm() + weight.norm()), (i, j)
        fit, best = rx @ match.weight.T + match.bias, rx @ weight.T + bias
        assert (fit - best).norm() <= (1e-6 if precision == torch.float64 else 1e-5) * best.norm(), (i, j)
        orthogonal = (fit - ry).T @ (rx - rx.mean(0))
        assert orthogonal.norm() <= 1e-5 * ry.norm() * rx.norm(), (i, j)
        assert match.residual == pytest.approx(
            float((ry - fit).square().sum() / (ry - ry.mean(0)).square().sum()), abs=1e-6)


@pytest.mark.parametrize("pair", [("resnet_digits", "awkward"), ("awkward", "resnet_digits")])
def test_direct_matching_equals_lstsq_on_representations_of_networks(pair):
    """Rank-deficient float32 representations, as networks make them: the maps predict the same."""
    nets = {"resnet_digits": NETWORKS["resnet_digits"]()[0], "awkward": settled(Awkward())}
    inputs = {"resnet_digits": images(1, 8, 60), "awkward": images(2, 7, 60)}
    xs, ys = (list(capture(nets[k], inputs[k]).values()) for k in pair)
    grid = grid_moments(xs, ys, [30, 30])
    for (i, x), (j, y) in product(enumerate(xs), enumerate(ys)):
        match = direct_match(Pair.of(grid.get_moments(i, j)))
        rx, ry = references.rows(x, y), references.rows(y, y)
        weight, bias = references.least_squares(rx, ry)
        best = rx @ weight.T + bias
        assert (rx @ match.weight.T + match.bias - best).norm() <= 1e-6 * best.norm(), (i, j)


@pytest.mark.parametrize("name", ["resnet_digits", "awkward", "signal", "volume"])
def test_a_network_stitched_to_itself_at_one_site_is_the_network(name):
    network, inputs = NETWORKS[name]()
    x = images(*inputs.shape[1:3], 80) if inputs.ndim == 4 else noise(80, *inputs.shape[1:])
    with torch.no_grad(), freeze(network):
        labels = extract_tensors(apply(network, x))[0].argmax(1)
    result = suture.compare(network, data=(x, labels), methods=["dm"], indices="cka", ood=None)
    for site in result.sources:
        assert result.matrix("dm.relative_accuracy").loc[site, site] == 1
        assert result.matrix("dm.agreement").loc[site, site] == 1
        assert result.matrix("cka").loc[site, site] == pytest.approx(1, abs=1e-9)
        assert result.matrix("dm.residual").loc[site, site] < 1e-6


# -- law 5: grouped training is training alone ---------------------------------------------------------------


def trained(sited, cells, inputs, labels, micro, steps=6):
    layers = {(i, j): StitchingLayer(Alignment(sited.shapes[i], sited.shapes[j])).init_random(100 * i + j)
              .to(inputs.dtype) for i, j in cells}
    recipe = TaskRecipe(epochs=steps, lr=1e-2)
    batches = Batches([(inputs, labels)])
    GroupTrainer(sited, sited, layers, recipe, micro).fit(batches, torch.device("cpu"))
    return layers


@cache
def with_cells(name):
    """A network at its sites, all its examples and labels, and the cells that are trained.

    In float64: in float32 rounding, which grouping changes, flips a ReLU once in a while, and Adam makes it
    grow.
    """
    network, inputs = NETWORKS[name]()
    network.double()
    x = images(inputs.shape[1], inputs.shape[2], 16).double()
    with freeze(network):
        sited = SitedNetwork(network, x)
    n = len(sited.sites)
    cells = ([(i, j) for i in range(0, n, 3) for j in range(0, n, 3)] if n > 2
             else list(product(range(n), repeat=2)))
    return sited, x, torch.arange(16) % 4, cells


@cache
def trained_alone(name):
    """The layer of each cell, trained without any other, which no micro-batch changes."""
    sited, x, labels, cells = with_cells(name)
    with freeze(sited.network):
        return {c: trained(sited, [c], x, labels, 16)[c] for c in cells}


@pytest.mark.parametrize(("name", "micro"), [
    ("awkward", 7), ("awkward", 16), ("awkward", 10_000), ("resnet_digits", 16), ("resnet_digits", 10_000),
    pytest.param("resnet_digits", 7, marks=pytest.mark.slow)])
def test_grouped_training_equals_training_each_cell_alone(name, micro):
    sited, x, labels, cells = with_cells(name)
    with freeze(sited.network):
        together = trained(sited, cells, x, labels, micro)
    for c in cells:
        alone = trained_alone(name)[c]
        for a, b in zip(together[c].parameters(), alone.parameters(), strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm(), c
        start = StitchingLayer(alone.alignment).init_random(100 * c[0] + c[1])
        assert (alone.weight - start.weight).norm() > 0.05 * start.weight.norm(), "training moved nothing"


def test_training_leaves_gradients_only_in_the_layer():
    network, _ = NETWORKS["awkward"]()
    x = images(2, 7, 8)
    with freeze(network):
        layers = trained(SitedNetwork(network, x), [(0, 1)], x, torch.zeros(8, dtype=torch.long), 8, steps=1)
        assert all(p.grad is None for p in network.parameters())
    assert layers[0, 1].weight.grad is not None


# -- law 7: same seed, same result; no number depends on the other cells -------------------------------------


ALL = ["layer1.0", "layer1.1", "layer2.1", "layer3.0"]
SOME = ["layer1.1", "layer3.0"]


def small_comparison(sites=ALL, **options):
    network, _ = NETWORKS["resnet_digits"]()
    x = images(1, 8, 48)
    labels = torch.arange(48) % 10
    return suture.compare(network, data=(x, labels), sites=sites,
                          tlm=TaskRecipe(epochs=2, batch_size=16, lr=1e-2, seed=4), seed=4, **options)


@cache
def everything_compared():
    return small_comparison()


@cache
def some_compared():
    return small_comparison(SOME)


def test_same_seed_same_result():
    a, b = some_compared(), small_comparison(SOME)
    assert a.table.equals(b.table)
    assert all(np.array_equal(a.arrays[k], b.arrays[k], equal_nan=True) for k in a.arrays)


def test_no_number_depends_on_which_other_cells_are_computed():
    everything, some = everything_compared(), some_compared()
    for measure in some.measures:
        part = everything.matrix(measure).loc[list(some.sources), list(some.targets)]
        np.testing.assert_allclose(part, some.matrix(measure), rtol=1e-5, atol=1e-6, err_msg=measure)


def test_batch_size_changes_no_moment_index():
    whole = everything_compared()
    for size in (7, 1):
        other = small_comparison(methods=(), batch_size=size)
        assert set(other.measures) == {m for m in whole.measures if "." not in m}
        for measure in other.measures:
            np.testing.assert_allclose(whole.matrix(measure), other.matrix(measure), rtol=1e-4, atol=2e-5,
                                       err_msg=measure)


def test_two_copies_of_one_network_fed_by_one_shuffled_loader_are_identical():
    """A shuffled loader iterated once per network gives identical networks a score of 0.00 in other tools."""
    network, _ = NETWORKS["resnet_digits"]()
    x, labels = images(1, 8, 48), torch.arange(48) % 10
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels),
                                         batch_size=16, shuffle=True)
    result = suture.compare(network, copy.deepcopy(network), loader, methods=(), indices="cka")
    for site in result.sources:
        assert result.matrix("cka").loc[site, site] == pytest.approx(1, abs=1e-6)
