"""Recipe of a network's training, with its optimiser and learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import Doc

from suture._base import Count, Positive, Real, Seed, Whole, options

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "onecycle"]
NotNegative = Annotated[Real, Field(ge=0)]


@options
class Recipe:
    """Recipe of a network's training. The defaults are the paper's, without its augmentation: see `paper`.

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


def make_optimizer(parameters: Iterable[Tensor], recipe: Recipe, *,
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


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> float:
    """Set the learning rate for `step` of `steps`, counted from 0, and return it."""
    rate = recipe.lr * compute_rate_factor(recipe.schedule, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def compute_rate_factor(schedule: Schedule, step: float, steps: float) -> float:
    """Compute the factor of the peak learning rate at `step` of `steps`, counted from 0."""
    if schedule == "constant":
        return 1.0
    rise = 0.3 * steps if schedule == "onecycle" else 0.0
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))
