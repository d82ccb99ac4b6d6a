"""The registry of the zoo: networks by name, and training them by name."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from suture import zoo
from suture._base import SutureError, fingerprint_network
from suture.networks import Recipe, find_sites
from suture.zoo.image_sets import ImageSet


@pytest.mark.parametrize("name", zoo.networks)
def test_entries_tell_the_truth(name: str) -> None:
    entry = zoo.networks[name]
    network = zoo.build(name).eval()
    assert sum(weight.numel() for weight in network.parameters()) == entry.parameters
    with torch.no_grad():
        assert network(torch.zeros(2, *entry.input_shape)).shape == (2, entry.classes)


def test_initialisation_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fingerprint_network(zoo.build("resnet_digits", seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert fingerprint_network(zoo.build("resnet_digits", seed=3)) == first
    assert fingerprint_network(zoo.build("resnet_digits", seed=4)) != first


def test_options_reach_the_network() -> None:
    network = zoo.build("resnet_digits", classes=7, in_channels=3)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


def test_build_names_the_nearest() -> None:
    with pytest.raises(SutureError, match=r"unknown network 'resnet-18'; nearest: resnet18"):
        zoo.build("resnet-18")
    with pytest.raises(SutureError, match=r"unknown option of resnet18 'num_classes'; nearest: classes"):
        zoo.build("resnet18", num_classes=3)


@pytest.fixture(scope="module")
def small() -> tuple[ImageSet, ImageSet]:
    return zoo.digits("train").subset(120), zoo.digits("test").subset(50)


def test_train_network_reports_what_it_did(small: tuple[ImageSet, ImageSet]) -> None:
    calls: list[tuple[str, int, int]] = []
    recipe = Recipe(epochs=2, lr=1e-2)
    network, report = zoo.train_network(
        "resnet_digits", 3, recipe, small, progress=lambda *call: calls.append(call)
    )
    assert calls == [("train", 1, 2), ("train", 2, 2)]
    assert report.recipe == dataclasses.replace(recipe, seed=3)
    assert (report.name, report.seed) == ("resnet_digits", 3)
    assert (report.train, report.test) == (small[0].name, small[1].name)
    assert len(report.history.losses) == 2
    assert report.fingerprint == fingerprint_network(network)
    assert report.seconds > 0
    assert not network.training
    with torch.no_grad():
        right = network(small[1].inputs).argmax(1) == small[1].labels
    assert report.accuracy == pytest.approx(float(right.float().mean()))


def test_train_network_is_its_seed(small: tuple[ImageSet, ImageSet]) -> None:
    def run(seed: int) -> str:
        return zoo.train_network("resnet_digits", seed, Recipe(epochs=1, crop=1), small)[1].fingerprint

    first = run(0)
    torch.rand(1)
    assert run(0) == first
    assert run(1) != first


def test_train_network_takes_channels_and_classes_from_the_data() -> None:
    colour = ImageSet(torch.rand(8, 3, 8, 8), torch.arange(8) % 4, 4, "colour")
    network, _ = zoo.train_network("resnet_digits", 0, Recipe(epochs=1), (colour, colour))
    assert network(colour.inputs).shape == (8, 4)


def test_train_network_refuses_sets_that_do_not_match(small: tuple[ImageSet, ImageSet]) -> None:
    colour = ImageSet(torch.rand(8, 3, 8, 8), torch.arange(8), 10, "colour")
    with pytest.raises(SutureError, match=r"got \(1, 8, 8\) of 10 classes and \(3, 8, 8\) of 10"):
        zoo.train_network("resnet_digits", 0, Recipe(epochs=1), (small[0], colour))


@pytest.mark.parametrize("name", [
    "vit_tiny", pytest.param("resnet18", marks=pytest.mark.slow),
    pytest.param("resnet20", marks=pytest.mark.slow)])
def test_the_recipes_of_cifar10_learn(name: str) -> None:
    """Two classes of images whose upper or lower half is light; a tenth of the rate, as batches are small."""
    inputs = torch.zeros(4, 3, 32, 32)
    inputs[:2, :, :16] = 1
    inputs += 0.3 * torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    halves = ImageSet(inputs, torch.tensor([0, 0, 1, 1]), 2, "halves")
    recipe = zoo.RECIPES[f"cifar10-{name}"]
    assert (recipe.crop, recipe.flip) == (4, True)
    recipe = dataclasses.replace(recipe, epochs=5, batch_size=4, lr=recipe.lr / 10)
    losses = zoo.train_network(name, 0, recipe, (halves, halves))[1].history.losses
    assert losses[-1] < 0.7 * losses[0]


def test_vit_tiny_is_the_papers() -> None:
    """Patches of 4x4 pixels, row by row; its sites are twelve blocks, of a class token and 8x8 patches."""
    network, images = zoo.build("vit_tiny").eval(), torch.rand(2, 3, 32, 32)
    sites = {str(info.site): str(info.shape) for info in find_sites(network, images)}
    assert sites == {f"blocks.{k}": "tokens 65x192 (1 prefix, 8x8 patches)" for k in range(12)}
    patches = torch.stack([images[:, :, 4 * i:4 * i + 4, 4 * j:4 * j + 4].flatten(1)
                           for i in range(8) for j in range(8)], 1)
    seen = []
    handle = network.embed.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        network(images)
    handle.remove()
    assert torch.equal(seen[0], patches)
    with pytest.raises(SutureError, match=r"3x32x32, got .*\(2, 3, 16, 16\)"):
        network(images[:, :, :16, :16])


@pytest.mark.slow
def test_the_digits_recipe_reaches_its_accuracy() -> None:
    _, report = zoo.train_network("resnet_digits", 0)
    assert report.recipe == zoo.DIGITS_RECIPE
    assert report.accuracy >= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_digits_recipe_is_reliable(seed: int) -> None:
    assert zoo.train_network("resnet_digits", seed)[1].accuracy >= 0.985
