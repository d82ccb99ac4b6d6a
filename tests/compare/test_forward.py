"""Forwards in half precision, statistics in float32; crops and flips of raw images; what is prepared
where."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import suture
from suture import Prepared, SutureError, TaskRecipe
from suture.data.batch import Batch
from suture.data.batches import Batches
from suture.networks.sites import SitedNetwork
from suture.stitching.objective import augment_batch, check_batch
from tests.support import tiny


def test_representations_come_out_in_float32_and_are_those_of_half_precision() -> None:
    network, x = tiny.network().eval(), tiny.images()
    sited = SitedNetwork(network, x, autocast=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = network.block1(x)
    found = sited.front(x)[0]
    assert wanted.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted.float())
    assert not torch.equal(found, SitedNetwork(network, x).front(x)[0])


def test_the_tail_runs_in_half_precision_too() -> None:
    network, x = tiny.network().eval(), tiny.images()
    sited = SitedNetwork(network, x, autocast=torch.bfloat16)
    with torch.no_grad():
        done = sited.run_full(x)
        assert done.output.dtype == torch.bfloat16
        assert torch.equal(sited.tail(0, sited.pick_representations(done)[0], done), done.output)


def test_a_comparison_in_half_precision_is_near_and_not_the_same() -> None:
    def run(forward: Any) -> Any:
        return suture.compare(tiny.network(), tiny.other(), (tiny.images(60), tiny.labels(60)),
                              methods=["dm"], ood=None, device="cpu", forward=forward)

    exact, half = run("float32"), run("bf16")
    for measure in ("cka", "dm.residual"):
        a, b = exact.matrix(measure).to_numpy(), half.matrix(measure).to_numpy()
        assert a == pytest.approx(b, abs=0.02)
        assert (a != b).any()
    assert half.meta["settings"]["forward"] == "bf16"
    assert exact.meta["key"] != half.meta["key"]
    with pytest.raises(SutureError, match="bf17"):
        run("bf17")


def _twice(raw: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(raw.float(), scale_factor=2)


RECIPE = TaskRecipe(epochs=1, crop=1, flip=True)


def test_crops_and_flips_are_of_the_raw_images_and_so_in_step() -> None:
    raw = (tiny.images(12) * 255).to(torch.uint8)
    batch = next(iter(Batches(Prepared((raw, tiny.labels(12)), _twice, None))))
    check_batch(batch, RECIPE)
    changed = augment_batch(batch, RECIPE, torch.Generator().manual_seed(3))
    assert torch.equal(changed.source, _twice(changed.target))
    assert not torch.equal(changed.target, raw)
    assert changed.labels is not None
    assert torch.equal(changed.labels, tiny.labels(12))


def test_the_same_draws_whether_suture_prepares_the_images_or_not() -> None:
    images, labels = tiny.images(12), tiny.labels(12)
    made = [augment_batch(b, RECIPE, torch.Generator().manual_seed(3)).source
            for b in (Batch(images, images, labels), next(iter(Batches(Prepared((images, labels), None)))))]
    assert torch.equal(*made)


def test_crops_of_two_kinds_of_inputs_that_suture_did_not_make_are_refused() -> None:
    images = tiny.images(4)
    with pytest.raises(SutureError, match="share"):
        check_batch(Batch(images, images.clone(), tiny.labels(4)), RECIPE)
    several = Batch(images, images, tiny.labels(4), [images[0], images[1]],
                    lambda raw, labels: pytest.fail("no"))
    with pytest.raises(SutureError, match="2 tensors"):
        check_batch(several, RECIPE)


def test_training_with_crops_where_the_networks_want_different_inputs() -> None:
    data = Prepared((tiny.images(24), tiny.labels(24)), _twice, None)
    made = suture.compare(tiny.network(), tiny.other(), data, methods=["tlm"], indices=(), ood=None,
                          device="cpu", tlm=TaskRecipe(epochs=1, batch_size=12, crop=1))
    assert made.matrix("tlm.accuracy").notna().all(axis=None)


def test_raw_examples_are_prepared_on_the_device_of_the_comparison() -> None:
    seen = []

    def look(raw: Tensor) -> Tensor:
        seen.append(raw.device.type)
        return raw.float().cpu()

    with pytest.raises(NotImplementedError):
        next(iter(Batches(Prepared((tiny.images(4), tiny.labels(4)), look), device=torch.device("meta"))))
    assert seen == ["meta"]
