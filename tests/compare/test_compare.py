"""What `suture.compare` refuses, what it accepts and notes, what it leaves alone, and the paper preset."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import StitchingLayer, SutureError, TaskRecipe
from suture.representations import Alignment
from suture.results import Comparison
from tests.support import tiny
from tests.support.bad_input import CASES, Case, check_message, maps, no_labels, skips
from tests.support.interruptions import assert_same_numbers
from tests.support.kinds import SHAPES
from tests.support.tiny import RECIPE, data, images, labels, network, other, seeded


@pytest.mark.parametrize("name", CASES)
def test_compare_refuses_in_one_line(name: str) -> None:
    case = CASES[name]
    with pytest.raises(SutureError) as error:
        _run(case)
    check_message(str(error.value), case.words)


def _run(case: Case) -> Comparison:
    train, test = case.data()
    return suture.compare(case.network(), case.target and case.target(), train, test,
                          **{"tlm": RECIPE, "device": "cpu", **case.options})


# -- what is bad but not wrong -------------------------------------------------------------------------------

@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_representation_gives_missing_values_with_a_reason_and_the_rest(value: float) -> None:
    made = network()
    with torch.no_grad():
        made.block1.conv.weight.zero_()
        made.block1.conv.bias.fill_(value)
    result = suture.compare(made, other(), *data(), tlm=RECIPE, device="cpu")
    table = result.table.set_index(["source", "target", "measure"])
    for name in ("cka", "cka_debiased", "cca", "pwcca", "pwcca_target", "opd", "r2"):
        for target in tiny.SITES:
            assert table.loc[("block1", target, name), "reason"] == "constant source representation"
            assert np.isnan(table.loc[("block1", target, name), "value"])
    assert result.matrix("dm.accuracy").notna().all(axis=None)
    assert result.matrix("tlm.accuracy").notna().all(axis=None)
    assert any("constant representation at block1" in note for note in result.meta["notes"])
    assert result.verdict().words


def _wide() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 30), nn.Tanh(), nn.Linear(30, 40),
                                        nn.Tanh(), nn.Linear(40, 3)))


@pytest.mark.parametrize("sites", [("2", "2"), ("2", "4"), ("4", "2")])
def test_fewer_rows_than_features_keeps_what_is_defined(sites: tuple[str, str]) -> None:
    few = (images(9), labels(9))
    result = suture.compare(_wide(), None, few, sites=[sites[0]], target_sites=[sites[1]],
                            methods=["dm"], ood=None, device="cpu")
    reasons = result.table.set_index("measure")["reason"]
    for name in ("cca", "pwcca", "pwcca_target", "r2"):
        assert reasons[name].startswith("9 rows ")
        assert "cka, opd and direct matching are still defined" in reasons[name]
    for name in ("cka", "opd", "dm.accuracy", "dm.relative_accuracy", "dm.residual"):
        assert reasons[name] == ""
    assert any("9 independent rows" in note and "least norm" in note for note in result.meta["notes"])


def test_rows_enough_on_one_side_only_are_noted() -> None:
    """A narrow source, a wide target: what is missing depends on both."""
    narrow = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 2), nn.Tanh(), nn.Linear(2, 3)))
    result = suture.compare(narrow, _wide(), (images(9), labels(9)), sites=["2"], target_sites=["4"],
                            methods=[], device="cpu")
    assert result.table.set_index("measure")["reason"]["cca"] != ""
    assert any("9 independent rows" in note and "cca" in note for note in result.meta["notes"])


def test_enough_rows_are_not_noted() -> None:
    result = suture.compare(network(), other(), *data(), methods=[], device="cpu")
    assert result.meta["notes"] == []


def test_a_bypassed_site_is_accepted_on_demand_and_said_to_be_one() -> None:
    result = suture.compare(skips(), None, *data(), sites=["block2"], methods=["dm"],
                            allow_bypass=True, ood=None, device="cpu")
    assert result.matrix("dm.relative_accuracy").loc["block2", "block2"] == 1
    assert any("bypassed sites (block2)" in note for note in result.meta["notes"])


def test_maps_for_logits_do_not_hinder_the_indices() -> None:
    result = suture.compare(maps(), None, data()[0], sites=["block1"], methods=[], device="cpu")
    assert result.matrix("cka").iloc[0, 0] == pytest.approx(1)


def test_without_a_target_the_source_is_stitched_to_itself() -> None:
    result = suture.compare(network(), data=data()[0], test=data()[1], methods=["dm"], ood=None,
                            device="cpu")
    assert result.same_network
    assert np.diag(result.matrix("dm.relative_accuracy")) == pytest.approx([1, 1])


def test_without_labels_accuracies_are_missing_and_agreement_is_not() -> None:
    result = suture.compare(network(), None, *no_labels(), methods=["dm"], ood=None, device="cpu")
    reasons = result.table.set_index("measure")["reason"]
    assert set(reasons["dm.accuracy"]) == {"the test data have no labels"}
    assert set(reasons["dm.agreement"]) == {""}


def test_labels_of_any_whole_type_do() -> None:
    given: dict[str, Any] = {"tlm": RECIPE, "indices": "cka", "ood": None, "device": "cpu"}
    wanted = suture.compare(network(), other(), *data(), **given)
    (x, y), (tx, ty) = data()
    for kind in (torch.int32, torch.uint8, torch.int16):
        got = suture.compare(network(), other(), (x, y.to(kind)), (tx, ty.to(kind)), **given)
        assert_same_numbers(got, wanted)


# -- what is refused beside the table ------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "words"), [
    ({"names": ("a",)}, "two names"),
    ({"sites": [3]}, "expected names of sites"),
])
def test_options_of_the_wrong_kind_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(SutureError, match=words):
        suture.compare(network(), None, *data(), methods=[], device="cpu", **options)


def test_a_later_batch_that_the_network_rejects_is_named() -> None:
    stream = [(images(8), labels(8)), (images(8)[:, :1], labels(8))]
    with pytest.raises(SutureError, match="batch 1 of the data"):
        suture.compare(network(), None, stream, methods=[], device="cpu")


def test_a_shuffled_test_loader_is_refused_before_cells_are_paired_wrongly() -> None:
    """Direct and task loss matching are evaluated in two passes; their per-example results must be of one
    order."""
    train, _ = data()
    shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images(64), labels(64)),
                                           batch_size=16,
                                           shuffle=True, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SutureError, match="shuffle=False"):
        suture.compare(network(), None, train, shuffled, tlm=RECIPE, device="cpu")


# -- the networks of the caller ------------------------------------------------------------------------------

def _state(made: nn.Module) -> Any:
    return ({k: v.clone() for k, v in made.state_dict().items()}, [m.training for m in made.modules()],
            [(p.requires_grad, p.grad is None, p.device, p.stride(), p._version) for p in made.parameters()],
            [(sorted(m.__dict__), list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks))
             for m in made.modules()])


def _interrupt(stage: str, done: int, total: int | None) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [False, True])
def test_compare_leaves_the_networks_as_they_were(interrupted: bool) -> None:
    pair = network(), other()
    for made in pair:
        made.block1.eval()
        made.head.weight.requires_grad_(False)
        made.block2.register_forward_hook(lambda m, i, o: None)
    before = [_state(made) for made in pair]
    random = torch.get_rng_state()
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            suture.compare(*pair, *data(), tlm=tiny.RECIPE, device="cpu", progress=_interrupt)
    else:
        suture.compare(*pair, *data(), tlm=tiny.RECIPE, device="cpu")
    assert torch.equal(torch.get_rng_state(), random)
    for made, (weights, *rest) in zip(pair, before, strict=True):
        now, *others = _state(made)
        assert others == rest
        assert list(now) == list(weights)
        assert all(torch.equal(now[k], weights[k]) for k in now)


# -- the paper preset ----------------------------------------------------------------------------------------

FIT = data()[0]


def test_a_cell_of_the_paper_preset_is_the_papers_recipe() -> None:
    """Design section 7, field by field."""
    made = suture.paper(seed=3)
    assert set(made) == {"family", "alignment", "examples", "tlm", "seed"}
    assert str(made["family"]) == "full"
    assert made["examples"] == 100
    assert asdict(made["alignment"]) == {"resize": "bilinear", "order": "before", "prefix": "auto"}
    tlm = asdict(made["tlm"])
    wanted = {"epochs": 30, "batch_size": 256, "lr": 1e-3, "weight_decay": 1e-5, "optimizer": "adam",
              "schedule": "constant", "crop": 4, "flip": True, "seed": 3, "init": "random",
              "objective": "hard", "precision": "float32", "patience": None,
              "seeds": 1}
    assert {k: tlm[k] for k in wanted} == wanted
    assert (set(tlm)
            - set(wanted) == {"temperature", "mix", "held_out"}), "these bear on other objectives alone"
    layer = StitchingLayer(Alignment(SHAPES["map 8x8"], SHAPES["map 3x5"], made["alignment"]), made["family"])
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {"affine.weight": (7, 6),
                                                                        "affine.bias": (7,)}
    x = torch.randn(2, 6, 8, 8)
    resized = nn.functional.interpolate(x, size=(3, 5), mode="bilinear", align_corners=False)
    torch.testing.assert_close(layer(x),
                               nn.functional.conv2d(resized, layer.weight[:, :, None, None], layer.bias))


def test_the_paper_preset_runs_through_compare_and_stitch() -> None:
    with pytest.raises(SutureError, match="at least 100 examples in data"):
        suture.compare(network(), other(), *data(), device="cpu", indices=(), **suture.paper())
    preset = suture.paper() | {"tlm": replace(TaskRecipe.paper(), epochs=1), "examples": 20}
    result = suture.compare(network(), other(), *data(), device="cpu", indices=(), **preset)
    assert result.meta["n_fit"] == 20
    assert result.meta["settings"]["tlm"]["crop"] == 4
    assert "dm.residual_batches" in result.measures
    made = suture.stitch(network(), "block1", other(), "block2", FIT, method="tlm", device="cpu", **preset)
    assert made.fit["tlm"]["flip"] is True
    assert "one epoch" in made.fit["mark"]


def test_two_architectures_are_compared_in_both_directions() -> None:
    from tests.support import architectures as small  # loads transformers

    classes = torch.arange(small.N) % 2
    for one, two, inputs in (("vit", "resnet", small.images()), ("bert", "roberta", small.texts())):
        networks = [small.ARCHITECTURES[n].build() for n in (one, two)]
        for a, b in (networks, networks[::-1]):
            found = suture.compare(a, b, [(inputs, classes)], methods=["dm"], ood=None, device="cpu")
            assert found.matrix("cka").notna().all(axis=None)
            assert found.matrix("dm.agreement").notna().all(axis=None)
