"""The recipe of a training: its options, optimiser, learning rates, crops and flips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from suture._base import Count, Positive, Real, Seed, Whole, expect, options

Optimizer = Literal["adam", "adamw", "sgd"]
Precision = Literal["float32", "bf16"]
Schedule = Literal["constant", "cosine", "onecycle"]
_LATER = ("label_smoothing", "precision")
"""Options that old keys and files of weights do not have."""
NotNegative = Annotated[Real, Field(ge=0)]


@options
class GradientRecipe:
    """Recipe of a training by gradient descent, of networks, stitching layers and detectors alike.

    Attributes:
        {options}

    Raises:
        SutureError: a value outside its bounds.
    """

    epochs: Annotated[Count, Doc("Passes over the data.")] = 100
    batch_size: Annotated[Whole, Field(ge=2), Doc(
        "Examples per step, at least 2: batch norm has no variance from one example.")] = 64
    lr: Annotated[Positive, Doc(
        'Peak learning rate. Small networks on few images bear 1e-2 with "onecycle".')] = 1e-3
    weight_decay: Annotated[NotNegative, Doc(
        'L2 penalty for "adam" and "sgd", decoupled for "adamw".')] = 1e-5
    optimizer: Annotated[Optimizer, Doc('"adam", "adamw", or "sgd" (Nesterov momentum 0.9).')] = "adam"
    schedule: Annotated[Schedule, Doc(
        '"constant"; "cosine", down to zero; or "onecycle", a linear rise over the first 30 % of the steps '
        "from lr / 25, then a cosine down to zero. The last two end with small steps, which short trainings "
        "need. All step once per batch.")] = "constant"
    crop: Annotated[Whole, Field(ge=0), Doc(
        "Zero padding in pixels for random crops of the original size; 0 for no crops.")] = 0
    flip: Annotated[bool, Doc(
        "Mirror half of the images left to right. Wrong for digits and letters.")] = False
    seed: Annotated[Seed, Doc(
        "Seed of the order of examples, the augmentation and dropout, not of the initialisation.")] = 0

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the recipe of the base networks of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299).

        For 32x32 photographs: Adam 1e-3, weight decay 1e-5, batch 64, 100 epochs, padding 4 and crops, flips.
        """
        return cls(crop=4, flip=True, seed=seed)


@options
class Recipe(GradientRecipe):
    """Recipe of a network's training. The defaults are the paper's, without its augmentation: see `paper`.

    Attributes:
        {options}

    Raises:
        SutureError: a value outside its bounds.
    """

    label_smoothing: Annotated[Real, Field(ge=0, lt=1), Doc(
        "Share of each label that is spread evenly over all classes (Szegedy et al. 2016, section 7).")] = 0.0
    precision: Annotated[Precision, Doc(
        'Precision of the forward passes: "float32", or "bf16" (autocast), which is faster on GPUs. Weights '
        "and loss stay in float32. The CPU and mps train in float32.")] = "float32"

    def casts_on(self, device: torch.device) -> bool:
        """Return True if forward passes on a device are in bfloat16."""
        return self.precision == "bf16" and device.type == "cuda"

    def as_key(self) -> dict[str, Any]:
        """Return the options as JSON. Options that came later are left out at their defaults."""
        usual = Recipe()
        return {name: value for name, value in dataclasses.asdict(self).items()
                if not (name in _LATER and value == getattr(usual, name))}


def make_optimizer(parameters: Iterable[Tensor], recipe: GradientRecipe, *,
                   fused: bool | None = None) -> torch.optim.Optimizer:
    """Make the optimiser that a recipe names, at its peak learning rate.

    Args:
        parameters: parameters to train. Those whose ``grad`` is None stay as they are, with their state.
        fused: use one kernel for all parameters. Default: PyTorch's choice for these parameters.
    """
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, nesterov=True,
                               weight_decay=recipe.weight_decay, fused=fused)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, recipe: GradientRecipe, step: int, steps: int) -> float:
    """Set the learning rate for `step` of `steps`, counted from 0, and return it."""
    rate = recipe.lr * compute_rate_factor(recipe.schedule, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def compute_rate_factor(schedule: Schedule, step: float, steps: float) -> float:
    """Compute the factor of the peak learning rate at `step` of `steps`, counted from 0."""
    if schedule == "constant":
        return 1.0
    step = min(step, steps)  # data may yield more batches than their length says
    rise = 0.3 * steps if schedule == "onecycle" else 0.0
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def augment(images: Tensor, generator: torch.Generator, crop: int, flip: bool) -> Tensor:
    """Crop and flip each image of a batch at random, independently of the others.

    Args:
        images: (N, C, H, W), on any device; returned as they are without crop and flip.
        generator: a CPU generator; the draws depend on N, `crop` and `flip` alone, not on the device.
        crop: pixels of zero padding on each side, from which an H x W window is cut; 0 for none.
        flip: mirror each image left to right with probability one half, after cropping.
    """
    if crop == 0 and not flip:
        return images
    n, _, height, width = images.shape
    top, left = torch.zeros(2, n, dtype=torch.int64)
    if crop:
        top, left = torch.randint(0, 2 * crop + 1, (2, n), generator=generator)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = F.pad(images, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
    rows, columns = rows.to(images.device), columns.to(images.device)
    example = torch.arange(n, device=images.device)[:, None, None]
    picked = padded[example, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


def check_images(inputs: Tensor, recipe: GradientRecipe) -> None:
    """Check that inputs are images (N, C, H, W) if the recipe crops or flips them."""
    expect(inputs.ndim == 4 or not (recipe.crop or recipe.flip), "images (N, C, H, W) to crop and flip",
           inputs, "write crop=0, flip=False")
