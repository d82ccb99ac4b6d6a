"""Evaluation of every cell against a slow loop: one cell, one batch, the layer's numbers applied by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import suture
from suture.calls import main_output
from suture.representations import shape_of
from suture.sites import capture, run_tail
from suture.stitching import TaskRecipe
from tests import references
from tests.networks import NETWORKS, images


@pytest.fixture(scope="module")
def pair():
    source, _ = NETWORKS["resnet20_strided"]()
    target, _ = NETWORKS["resnet18"]()
    x, labels = images(3, 8, 60), torch.arange(60) % 10
    sites = {"sites": ["layer1.0", "layer3.2"], "target_sites": ["layer2.1", "layer4.1"]}
    result = suture.compare(source, target, (x, labels), tlm=TaskRecipe(epochs=1, lr=1e-2, batch_size=20), **sites)
    return source, target, x, labels, result


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_every_stitched_network_scores_what_a_slow_loop_finds(pair, method):
    source, target, x, labels, result = pair
    with torch.no_grad():
        own = target.eval()(x).argmax(1)
    for (i, s), (j, t) in product(enumerate(result.sources), enumerate(result.targets)):
        native = capture(target, x, [t])[t]
        weight, bias = (torch.as_tensor(result.arrays[f"{method}.{k}/{i}/{j}"]).double() for k in ("weight", "bias"))
        rows = references.rows(capture(source, x, [s])[s], native) @ weight.T + bias
        shape = shape_of(native)
        stitched = rows.view(60, *shape.size, shape.width).permute(0, 3, 1, 2).float().contiguous()
        predicted = main_output(run_tail(target, x, t, stitched)).argmax(1)
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
                            on_stage=kept.append)
    assert [k.meta["stages"] for k in kept] == [["moments"], ["moments", "dm"]]
    assert result is kept[-1]


def test_half_precision_networks_are_not_taken_for_nan():
    """Sums of a float16 representation pass 65504 long before anything is wrong."""
    network = torch.nn.Sequential(torch.nn.Linear(6, 400), torch.nn.ReLU(), torch.nn.Linear(400, 400), torch.nn.ReLU(),
                                  torch.nn.Linear(400, 3)).half()
    x = torch.randn(900, 6, generator=torch.Generator().manual_seed(0)).half() * 300
    result = suture.compare(network, data=(x, torch.arange(900) % 3), methods=["dm"], indices=["cka"], device="cpu")
    assert result.table["value"].notna().all()
