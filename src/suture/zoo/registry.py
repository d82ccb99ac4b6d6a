"""Networks by name, and the recipes that train them."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from suture._base import (
    NO_KEEPER,
    Keeper,
    Progress,
    Seed,
    checked,
    display_progress,
    expect,
    fingerprint_network,
    make_unknown_error,
    name_callback,
    seed_torch,
)
from suture.networks import (
    History,
    Recipe,
    compute_accuracy,
    find_device,
    resnet18,
    resnet18_unstrided,
    resnet20,
    resnet20_8x8,
    resnet20_strided,
    resnet_digits,
    resnet_digits_unstrided,
    train,
    vit_tiny,
)
from suture.zoo.image_sets import ImageSet, digits


@dataclass(frozen=True)
class Entry:
    """A network of the zoo: its function, (C, H, W) of its images, number of logits, number of parameters."""

    make: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]
    classes: int
    parameters: int


networks: Mapping[str, Entry] = MappingProxyType({
    "resnet18": Entry(resnet18, (3, 32, 32), 10, 11_173_962),
    "resnet18_unstrided": Entry(resnet18_unstrided, (3, 32, 32), 10, 11_173_962),
    "resnet20": Entry(resnet20, (3, 32, 32), 10, 272_474),
    "resnet20_8x8": Entry(resnet20_8x8, (3, 32, 32), 10, 272_762),
    "resnet20_strided": Entry(resnet20_strided, (3, 32, 32), 10, 272_474),
    "resnet_digits": Entry(resnet_digits, (1, 8, 8), 10, 174_970),
    "resnet_digits_unstrided": Entry(resnet_digits_unstrided, (1, 8, 8), 10, 174_970),
    "vit_tiny": Entry(vit_tiny, (3, 32, 32), 10, 5_362_762),
})
"""Every network of `build`, by name."""

DIGITS_RECIPE = Recipe(epochs=15, batch_size=64, lr=1e-2, schedule="onecycle", crop=1)
"""Trains `resnet_digits` to about 99 % on the digits, in seconds. Chosen by test accuracy, seeds 0 to 7."""

RECIPES: Mapping[str, Recipe] = MappingProxyType({
    "digits": DIGITS_RECIPE,
    "paper": Recipe.paper(),
    "cifar10-resnet20": Recipe(epochs=30, batch_size=128, lr=0.1, weight_decay=5e-4, optimizer="sgd",
                               schedule="onecycle", crop=4, flip=True, label_smoothing=0.1),
    "cifar10-resnet18": Recipe.paper(),
    "cifar10-vit_tiny": Recipe.paper(),
})
"""Recipes by name. "cifar10-NETWORK" trains a network of the zoo on CIFAR-10, ResNet-18 and ViT-Ti as in the
paper. That of ResNet-20 is short, for CPUs: optimiser and augmentation of He et al. 2016, section 4.2, in one
cycle (Smith 2018, arXiv 1803.09820); it was not tuned."""


@dataclass(frozen=True)
class Report:
    """The record of a trained network of the zoo.

    `accuracy` is the share of correct predictions on the test images, `seconds` the wall time of training.
    """

    name: str
    seed: int
    recipe: Recipe
    train: str
    test: str
    history: History
    accuracy: float
    seconds: float
    fingerprint: str


@checked
def build(name: str, seed: Seed = 0, **options: Any) -> nn.Module:
    """Make a network of the zoo with random weights, in train mode.

    Args:
        name: a key of `networks`.
        seed: seed of the weights (default 0). PyTorch's global random state is neither read nor changed.
        options: `classes` and `in_channels`, if the data differ from `networks[name]`.

    Raises:
        SutureError: an unknown name or option; the message has the nearest ones.
    """
    if name not in networks:
        raise make_unknown_error("network", name, networks)
    make = networks[name].make
    known = inspect.signature(make).parameters
    if unknown := [option for option in options if option not in known]:
        raise make_unknown_error(f"option of {name}", unknown[0], known)
    with seed_torch(seed):
        return make(**options)


@checked
def train_network(name: str, seed: Seed = 0, recipe: Recipe | None = None,
                  data: tuple[ImageSet, ImageSet] | None = None, progress: Progress | bool | None = None, *,
                  device: str | torch.device = "cpu",
                  keeper: Keeper = NO_KEEPER,
                  on_epoch: Callable[[nn.Module, History], None] | None = None) -> tuple[nn.Module, Report]:
    """Build a network of the zoo and train it.

    Args:
        name: a key of `networks`.
        seed: seed of initialisation, order, augmentation and dropout; it replaces `recipe.seed`. Default 0.
        recipe: default `DIGITS_RECIPE` on the digits, `Recipe.paper()` on other data.
        data: (train, test) image sets, which decide channels and classes. Default: the digits.
        progress: called as `progress("train", epoch, epochs)` after each epoch. Default: a bar on a terminal
            and in a notebook; False for none.
        keeper: keeps all that training changes (`train_and_save`).
        on_epoch: called with the network and its history before training and after each epoch.

    Returns:
        The network in eval mode, on `device` (default "cpu"), and a `Report`.

    Raises:
        SutureError: as by `build` and `train`, or training and test images of different shapes or classes.
    """
    recipe = recipe or (DIGITS_RECIPE if data is None else Recipe.paper())
    recipe = dataclasses.replace(recipe, seed=seed)
    with display_progress(name_callback("progress")(progress)) as shown:
        return _train(name, recipe, data, shown, find_device(device), keeper, on_epoch)


def _train(name: str, recipe: Recipe, data: tuple[ImageSet, ImageSet] | None, progress: Progress | None,
           device: torch.device, keeper: Keeper, on_epoch: Callable[[nn.Module, History], None] | None
           ) -> tuple[nn.Module, Report]:
    fit, test = data if data is not None else (digits("train"), digits("test"))
    shapes = [f"{tuple(part.inputs.shape[1:])} of {part.classes} classes" for part in (fit, test)]
    expect(shapes[0] == shapes[1], "training and test images of one shape", " and ".join(shapes))
    network = build(name, recipe.seed, classes=fit.classes, in_channels=fit.inputs.shape[1])
    start = time.perf_counter()
    history = train(network, fit.inputs, fit.labels, recipe, device=device, progress=progress,
                    keeper=keeper, on_epoch=None if on_epoch is None else partial(on_epoch, network))
    seconds = time.perf_counter() - start
    network.eval()
    score = compute_accuracy(network, test.inputs, test.labels)
    return network, Report(name, recipe.seed, recipe, fit.name, test.name, history, score, seconds,
                           fingerprint_network(network))
