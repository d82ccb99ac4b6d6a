"""Groups of networks that were trained alike: on random labels, with a shortcut, on altered images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from suture import zoo
from suture._base import (
    Count,
    FilePath,
    Progress,
    checked,
    clean_file_name,
    derive_seed,
    expect,
    make_unknown_error,
)
from suture.networks import Recipe
from suture.zoo import ImageSet


@dataclass(frozen=True, eq=False)
class TrainedGroups:
    """Networks in groups, and the data to compare them on.

    Attributes:
        kind: what the groups differ in; the column of `about` with the level of each network.
        networks: by name.
        about: level and seed of each.
        data, test: images for `suture.validate`.
    """

    kind: str
    networks: Mapping[str, torch.nn.Module]
    about: Mapping[str, Mapping[str, Any]]
    data: ImageSet
    test: ImageSet


def randomise_labels(images: ImageSet, share: float, seed: int) -> ImageSet:
    """Permute the labels of a share of the images among each other."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(images), generator=generator)[:round(share * len(images))]
    labels = images.labels.clone()
    labels[chosen] = labels[chosen[torch.randperm(len(chosen), generator=generator)]]
    return replace(images, labels=labels, name=f"{images.name}-random-labels-{share:g}")


def add_shortcut(images: ImageSet, share: float, seed: int) -> ImageSet:
    """Set one pixel of each image whose place names a class: the right one in a share of them, else any.

    The first `classes` pixels are used; the others of them are black.
    """
    generator = torch.Generator().manual_seed(seed)
    n, _, height, width = images.inputs.shape
    most = height * width
    expect(images.classes <= most, f"at most {most} classes for a shortcut", images.classes)
    shown = torch.rand(n, generator=generator) < share
    named = torch.where(shown, images.labels, torch.randint(images.classes, (n,), generator=generator))
    inputs = images.inputs.clone().flatten(2)
    inputs[:, :, :images.classes] = 0
    inputs[torch.arange(n), :, named] = 1
    return replace(images, inputs=inputs.view_as(images.inputs), name=f"{images.name}-shortcut-{share:g}")


def add_noise(images: ImageSet, spread: float, seed: int) -> ImageSet:
    """Put beside each image a copy with noise of this standard deviation."""
    noise: Tensor = torch.randn(images.inputs.shape, generator=torch.Generator().manual_seed(seed))
    inputs = torch.cat([images.inputs, images.inputs + spread * noise])
    return replace(images, inputs=inputs, labels=images.labels.repeat(2),
                   name=f"{images.name}-noise-{spread:g}")


Alteration = Callable[[ImageSet, float, int], ImageSet]
ALTERATIONS: Mapping[str, tuple[Alteration, tuple[float, ...]]] = MappingProxyType({
    "random labels": (randomise_labels, (0.0, 0.5, 1.0)),
    "shortcut": (add_shortcut, (0.0, 0.5, 1.0)),
    "augmentation": (add_noise, (0.0, 0.2, 0.5)),
})
"""What changes the training images of a group, and the levels that are tried."""


@checked
def train_groups(kind: str, network: str = "resnet_digits", data: tuple[ImageSet, ImageSet] | None = None,
                 recipe: Recipe | None = None, *, levels: Sequence[float] | None = None, seeds: Count = 3,
                 folder: FilePath | None = None, progress: Progress | None = None) -> TrainedGroups:
    """Train networks of the zoo in groups, each group on training images of its own.

    The groups of tests 3 to 5 of ReSi (Klabunde et al. 2024), smaller: "random labels" (share of permuted
    labels), "shortcut" (share of images with a pixel that names the class), "augmentation" (standard
    deviation of noise on a copy of each image). The images to compare them on are not altered; with a
    shortcut, theirs names any class.

    Args:
        kind: one of those.
        network: name in `zoo.networks`.
        data: (train, test). Default: the digits.
        recipe: of the trainings. Default: `zoo.DIGITS_RECIPE`.
        levels: one for each group.
        seeds: networks of each group.
        folder: for the weights, so that the same call goes on from there.

    Raises:
        SutureError: an unknown kind or network.
    """
    if kind not in ALTERATIONS:
        raise make_unknown_error("kind of groups", kind, ALTERATIONS)
    alter, usual = ALTERATIONS[kind]
    train, test = data if data is not None else (zoo.digits("train"), zoo.digits("test"))
    tried = tuple(usual if levels is None else levels)
    networks, about = dict[str, torch.nn.Module](), dict[str, dict[str, Any]]()
    for done, (level, seed) in enumerate(product(tried, range(seeds)), 1):
        name = f"{kind} {level:g}, seed {seed}"
        altered = alter(train, level, derive_seed(seed, kind)), test
        if folder is None:
            made = zoo.train_network(network, seed, recipe or zoo.DIGITS_RECIPE, altered)[0]
        else:
            place = Path(folder) / f"{clean_file_name(name)}.safetensors"
            made = zoo.train_and_save(network, place, seed, recipe or zoo.DIGITS_RECIPE, altered)[0]
        networks[name], about[name] = made, {kind: str(level), "seed": seed}
        if progress is not None:
            progress(f"training groups of {kind}", done, len(tried) * seeds)
    if kind == "shortcut":
        train, test = (add_shortcut(part, 0.0, derive_seed(0, part.name)) for part in (train, test))
    return TrainedGroups(kind, networks, about, train, test)
