"""Recipe of a network's training, with the optimisers and schedules that it names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from suture._base import SutureError, is_number, make_unknown_error

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "onecycle"]


@dataclass(frozen=True)
class Recipe:
    """Recipe of a network's training. The defaults are the paper's, without its augmentation: see `paper`.

    Arguments:
        epochs: passes over the data, at least 1 (default 100).
        batch_size: examples per step, at least 2 (default 64): batch norm has no variance from one example.
        lr: peak learning rate (default 1e-3). Small networks on few images bear 1e-2 with "onecycle".
        weight_decay: L2 penalty for "adam" and "sgd", decoupled for "adamw" (default 1e-5).
        optimizer: "adam" (default), "adamw", or "sgd" (Nesterov momentum 0.9).
        schedule: "constant" (default); "cosine", down to zero; or "onecycle", a linear rise over the first 30
            % of the steps from lr / 25, then a cosine down to zero. Prefer the last two for short trainings:
            they end converged. All schedules step once per batch.
        crop: zero padding in pixels for random crops of the original size (default 0: no crops).
        flip: mirror half of the images left to right (default False; wrong for digits and letters).
        seed: seed of the order of examples, the augmentation and dropout (default 0). It does not affect the
            initialisation.

    Raises SutureError for a value outside these bounds.
    """

    epochs: int = 100
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-5
    optimizer: Optimizer = "adam"
    schedule: Schedule = "constant"
    crop: int = 0
    flip: bool = False
    seed: int = 0

    LEAST_BATCH: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", self.LEAST_BATCH), ("crop", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SutureError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if not (is_number(self.lr) and self.lr > 0):
            raise SutureError(f"lr must be finite and above 0, got {self.lr!r}")
        if not (is_number(self.weight_decay) and self.weight_decay >= 0):
            raise SutureError(f"weight_decay must be finite and at least 0, got {self.weight_decay!r}")
        self._check_choices(optimizer=get_args(Optimizer), schedule=get_args(Schedule))

    def _check_choices(self, **choices: tuple[str, ...]) -> None:
        for name, options in choices.items():
            if getattr(self, name) not in options:
                raise make_unknown_error(name, str(getattr(self, name)), options)

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the recipe of the base networks of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299).

        Adam 1e-3, weight decay 1e-5, batch 64, 100 epochs, crops of the image padded by 4 pixels, flips. For
        32x32 photographs.
        """
        return cls(crop=4, flip=True, seed=seed)


def make_optimizer(
    parameters: Iterable[Tensor], recipe: Recipe, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """Make the optimiser that a recipe names, at its peak learning rate.

    Arguments:
        parameters: parameters to train. One whose ``grad`` is None at a step stays unchanged, with its state.
        recipe: see `Recipe`.
        fused: use one kernel for all parameters. Default: PyTorch's choice for these parameters.
    """
    lr, decay = recipe.lr, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=fused
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=lr, weight_decay=decay, fused=fused)


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
