"""Evaluation of every cell against a slow loop: one cell, one batch, the layer's numbers applied by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import suture
from suture import zoo
from suture.networks import extract_main_output
from suture.stitching import TaskRecipe
from tests.support import references
from tests.support.moments import first_shape
from tests.support.networks import NETWORKS, images, settled
from tests.support.plain_hooks import capture, run_tail


@pytest.fixture(scope="module")
def pair():
    source, _ = NETWORKS["resnet20_strided"]()
    target = settled(zoo.build("resnet_digits", in_channels=3))
    x, labels = images(3, 8, 60), torch.arange(60) % 10
    sites = {"sites": ["layer1.0", "layer3.2"], "target_sites": ["layer2.1", "layer3.1"]}
    result = suture.compare(source, target, (x, labels), tlm=TaskRecipe(epochs=1, lr=1e-2, batch_size=20),
                            ood=None, **sites)
    return source, target, x, labels, result


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_every_stitched_network_scores_what_a_slow_loop_finds(pair, method):
    source, target, x, labels, result = pair
    with torch.no_grad():
        own = target.eval()(x).argmax(1)
    for (i, s), (j, t) in product(enumerate(result.sources), enumerate(result.targets)):
        native = capture(target, x, [t])[t]
        weight, bias = (torch.as_tensor(result.arrays[f"{method}.{k}/{i}/{j}"]).double()
                        for k in ("weight", "bias"))
        rows = references.rows(capture(source, x, [s])[s], native) @ weight.T + bias
        shape = first_shape(native)
        stitched = rows.view(60, *shape.size, shape.width).permute(0, 3, 1, 2).float().contiguous()
        predicted = extract_main_output(run_tail(target, x, t, stitched)).argmax(1)
        # A prediction may flip where two logits are equal to rounding.
        near = {"abs": 1.01 / 60}
        value = {m: result.matrix(f"{method}.{m}").loc[s, t] for m in ("accuracy", "agreement", "residual")}
        assert value["accuracy"] == pytest.approx(float((predicted == labels).float().mean()), **near)
        assert value["agreement"] == pytest.approx(float((predicted == own).float().mean()), **near)
        residual = float((stitched - native).square().sum() / native.square().sum())
        assert value["residual"] == pytest.approx(residual, rel=1e-4, abs=1e-9)
        np.testing.assert_array_equal(result.arrays[f"{method}.correct"][i, j].mean(), value["accuracy"])


def test_relative_accuracy_is_accuracy_over_the_target_networks(pair):
    *_, result = pair
    ratio = result.matrix("dm.accuracy") / result.meta["target_accuracy"]
    np.testing.assert_allclose(result.matrix("dm.relative_accuracy"), ratio, rtol=1e-12)
    assert result.meta["target_accuracy"] == result.arrays["target.correct"].mean()


def test_what_is_returned_is_the_very_result_that_was_last_kept(pair):
    source, _, x, labels, _ = pair
    kept = []
    result = suture.compare(source, data=(x, labels), methods=["dm"], sites=["layer1.0", "layer3.2"],
                            ood=None, on_stage=kept.append)
    assert [k.meta["stages"] for k in kept] == [["moments"], ["moments", "dm"]]
    assert result is kept[-1]


def test_half_precision_networks_are_not_taken_for_nan():
    """Sums of a float16 representation pass 65504 long before anything is wrong."""
    network = torch.nn.Sequential(torch.nn.Linear(6, 400), torch.nn.ReLU(), torch.nn.Linear(400, 400),
                                  torch.nn.ReLU(), torch.nn.Linear(400, 3)).half()
    x = torch.randn(900, 6, generator=torch.Generator().manual_seed(0)).half() * 300
    result = suture.compare(network, data=(x, torch.arange(900) % 3), methods=["dm"], ood=None,
                            indices=["cka"], device="cpu")
    assert result.table["value"].notna().all()


def test_cells_are_compared_in_pairs(pair):
    *_, result = pair
    (s, other), t = result.sources, result.targets[0]
    got = result.difference((s, t), (other, t), "dm.kl")
    matrix = result.matrix("dm.kl")
    assert got.value == pytest.approx(matrix.loc[s, t] - matrix.loc[other, t], rel=1e-9)
    assert (got.test, got.n) == ("paired bootstrap", 60)
    assert got.low <= got.value <= got.high
    methods = result.difference((s, t), (s, t), "dm.accuracy", "tlm.accuracy")
    gap = result.matrix("dm.accuracy").loc[s, t] - result.matrix("tlm.accuracy").loc[s, t]
    hits = (result.arrays[f"{m}.correct"][0, 0] for m in ("dm", "tlm"))
    one, two = next(hits), next(hits)
    wins, losses = int((one & ~two).sum()), int((two & ~one).sum())
    assert methods.value == pytest.approx(gap, abs=1e-12)
    assert methods.p == (binomtest(wins, wins + losses).pvalue if wins + losses else 1)
    targets = result.difference((s, t), (s, result.targets[1]), "dm.r2")
    assert targets.value == pytest.approx(result.matrix("dm.r2").loc[s, t] - result.matrix("dm.r2").loc[
        s, result.targets[1]], rel=1e-9)


@pytest.mark.parametrize(("a", "b", "names", "words"), [
    (("layer1.0", "layer2.1"), ("layer1.1", "layer2.1"), ["dm.kl"],
     r"source site 'layer1.1'; nearest: layer1.0"),
    (("layer1.0", "layer2.1"), ("layer1.0", "layer2.2"), ["dm.kl"],
     r"target site 'layer2.2'; nearest: layer2.1"),
    (("layer1.0", "layer2.1"), ("layer1.0", "layer3.1"), ["cka"], "structural indices"),
    (("layer1.0", "layer2.1"), ("layer1.0", "layer3.1"), ["dm.kll"], "nearest: dm.kl"),
    (("layer1.0", "layer2.1"), ("layer1.0", "layer3.1"), ["dm.kl", "tlm.ce_gap"],
     "one measure of two methods"),
    ("layer1.0", ("layer1.0", "layer3.1"), ["dm.kl"], "expected a cell"),
])
def test_what_cannot_be_compared_in_pairs_is_refused(pair, a, b, names, words):
    *_, result = pair
    with pytest.raises(suture.SutureError, match=words):
        result.difference(a, b, *names)


def test_a_cell_without_a_value_is_refused_with_its_reason(pair):
    *_, result = pair
    cell = result.sources[0], result.targets[0]
    gone = result.table.copy()
    here = (gone["measure"] == "dm.kl") & (gone["source"] == cell[0]) & (gone["target"] == cell[1])
    gone.loc[here, ["value", "low", "high"]] = np.nan
    gone.loc[here, "reason"] = "the loss was nan"
    with pytest.raises(suture.SutureError,
                       match=r"dm.kl of 'layer1.0' into 'layer2.1' has no value: the loss was nan"):
        replace(result, table=gone).difference(cell, cell, "dm.kl")
    without = replace(result, arrays={k: v for k, v in result.arrays.items() if k != "dm.kl"})
    with pytest.raises(suture.SutureError, match=r"expected the per-example array 'dm.kl'"):
        without.difference(cell, cell, "dm.kl")
