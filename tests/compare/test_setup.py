"""Data of every nesting, and networks in any layout, through compare."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import suture
from suture import Paired, Prepared, SutureError, zoo
from suture.compare import setup
from suture.compare.fitting import prepared_networks
from tests.support import tiny
from tests.support.layouts import Normed, Views
from tests.support.tiny import RECIPE, Tiny, data, images, labels, network, other, seeded


class TwoInputs(Tiny):
    """Two inputs, by position or by name, and a third that has no examples."""

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor | None = None) -> Tensor:
        h = self.block2(self.block1(x) + shift[:, None, None, None])
        return self.head(h.mean((2, 3))) * (1 if scale is None else scale)


@pytest.mark.parametrize(("source", "target"), [(Tiny, Views), (Views, Tiny), (Views, Views)])
def test_a_forward_that_views_a_map_is_compared_like_any_other(source: type[nn.Module],
                                                               target: type[nn.Module]) -> None:
    """Stitched maps come in the layout that the target's own modules give."""
    class Reshapes(Views):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block2(self.block1(x)).flatten(1))

    def run(view: type[nn.Module]) -> suture.Comparison:
        a, b = (seeded(view if make is Views else make, seed) for seed, make in enumerate((source, target)))
        return suture.compare(a, b, *data(), indices="cka", ood=None, tlm=RECIPE, device="cpu")

    got, wanted = run(Views), run(Reshapes)
    for measure in ("cka", "dm.residual", "tlm.residual", "dm.agreement"):
        np.testing.assert_allclose(got.matrix(measure), wanted.matrix(measure), rtol=1e-3, atol=1e-5)


def test_micro_batches_and_a_small_last_batch_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> suture.Comparison:
        loader = [(images()[:13], labels()[:13]), (images()[13:23], labels()[13:23]),
                  (images()[23:], labels()[23:])]
        return suture.compare(network(), other(), loader, data()[1], tlm=RECIPE, device="cpu")

    wanted = run()
    monkeypatch.setattr(setup, "choose_micro_batch", lambda *args: 3)
    got = run()
    assert got.meta["micro_batch"] == 3
    for measure in wanted.measures:
        np.testing.assert_allclose(got.matrix(measure), wanted.matrix(measure), rtol=1e-4, atol=1e-5,
                                   err_msg=measure)


def _inputs(kind: str, x: Tensor, shift: Tensor) -> Any:
    scale = torch.tensor(2.0)
    return {"tuple": (x, shift, scale), "list": [x, shift, scale],
            "dict": {"shift": shift, "scale": scale, "x": x}}[kind]


@cache
def compared_by_fives(make: type[nn.Module], wrap: str | None = None) -> suture.Comparison:
    """A comparison on 19 examples in three batches, of which networks take five at a time."""
    batches = [(x if wrap is None else _inputs(wrap, x, torch.zeros(len(x))), y)
               for x, y in zip(images(19).split(8), labels(19).split(8), strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "choose_micro_batch", lambda *args: 5)
        return suture.compare(seeded(make), None, batches, tlm=RECIPE, methods=["dm"], device="cpu")


@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_inputs_of_every_nesting_give_what_one_tensor_gives(kind: str) -> None:
    plain = compared_by_fives(Tiny)
    nested = compared_by_fives(TwoInputs, kind)
    for measure in plain.measures:
        # The nested network's logits are scaled, and two inputs are no image that can be shifted as one.
        if not measure.endswith(("kl", "ce_gap", "natural_distance")):
            np.testing.assert_allclose(nested.matrix(measure), plain.matrix(measure), rtol=1e-4,
                                       err_msg=measure)


def test_pairs_feed_each_network_its_own_inputs() -> None:
    wide = seeded(lambda: Tiny(channels=3), 1)
    ours, theirs = images(), images(channels=3, seed=7)
    paired = Paired([(ours[:16], labels()[:16]), (ours[16:], labels()[16:])],
                    [(theirs[:16], labels()[:16]), (theirs[16:], labels()[16:])])
    result = suture.compare(network(), wide, paired, tlm=RECIPE, ood=None, device="cpu")
    with torch.no_grad():
        x = suture.capture(network(), ours, ["block1"])["block1"].permute(0, 2, 3, 1).reshape(-1, 3)
        y = suture.capture(wide, theirs, ["block1"])["block1"].permute(0, 2, 3, 1).reshape(-1, 3)
    wanted = suture.indices.of_matrices(x, y)["cka"].value
    assert result.matrix("cka").loc["block1", "block1"] == pytest.approx(wanted, rel=1e-4)
    hits = (wide(theirs).argmax(1) == labels()).float().mean()
    assert result.meta["target_accuracy"] == pytest.approx(float(hits))


def test_a_first_batch_of_one_or_two_examples_does() -> None:
    wanted = suture.compare(network(), None, (images(), labels()), methods=["dm"], ood=None, device="cpu")
    for first in (1, 2):
        loader = [(images()[:first], labels()[:first]), (images()[first:], labels()[first:])]
        got = suture.compare(network(), None, loader, methods=["dm"], ood=None, device="cpu")
        np.testing.assert_allclose(got.matrix("cka"), wanted.matrix("cka"), rtol=1e-4)
        np.testing.assert_array_equal(got.matrix("dm.agreement"), wanted.matrix("dm.agreement"))


def test_a_folded_comparison_equals_an_unfolded_one_also_at_a_convolution(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> suture.Comparison:
        network = seeded(Normed)
        network.batch_bn = torch.nn.Identity()  # statistics of the batch would be refused
        return suture.compare(network, None, (images(), labels()),
                              sites=["plain", "boxed", "twice_bn#1"], methods=["dm"], ood=None, device="cpu")

    got = run()
    monkeypatch.setattr(prepared_networks, "fold_batch_norms", lambda *args: 0)
    wanted = run()
    for measure in wanted.measures:
        # Ranks of scores that are equal but for rounding, as in the own-layer cells, are up to rounding.
        atol = 0.05 if measure.endswith("_mahalanobis") else 1e-4
        np.testing.assert_allclose(got.matrix(measure), wanted.matrix(measure), rtol=1e-3, atol=atol,
                                   err_msg=measure)


def test_a_comparison_of_two_networks_that_want_different_inputs() -> None:
    """Prepared by suture or by hand: the same numbers."""
    a, b = zoo.build("resnet_digits", 0, in_channels=3), zoo.build("resnet_digits", 1)
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 5

    def larger(raw: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(raw.expand(-1, 3, -1, -1), scale_factor=2)

    def run(data: object) -> dict[tuple[str, str, str], float]:
        made = suture.compare(a, b, data, sites=["layer1.0", "layer3.0"], methods=["dm"], device="cpu",
                              ood=None)
        return {(r["source"], r["target"], r["measure"]): r["value"] for r in made.table.to_dict("records")}

    prepared = run(Prepared((images, labels), larger, None))
    by_hand = run(suture.Paired((larger(images), labels), (images, labels)))
    assert prepared == pytest.approx(by_hand, nan_ok=True)


def test_a_test_loader_that_shuffles_is_refused_before_any_work() -> None:
    data = TensorDataset(tiny.images(60), tiny.labels(60))
    stages: list[str] = []
    with pytest.raises(SutureError, match="another order"):
        suture.compare(tiny.network(), None, data, DataLoader(data, batch_size=20, shuffle=True), ood=None,
                       device="cpu", tlm=tiny.RECIPE,
                       progress=lambda stage, done, total: stages.append(stage))
    assert stages == []
