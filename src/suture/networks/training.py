"""Training of whole networks: recipe, augmentation, optimiser and accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from suture._base import (
    NO_KEEPER,
    Count,
    Keeper,
    KeptPass,
    Positive,
    Progress,
    Real,
    Seed,
    SutureError,
    Whole,
    check_classes,
    check_equal_lengths,
    expect,
    options,
    seed_torch,
)
from suture.networks.calls import set_mode
from suture.networks.training_position import TrainingPosition

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


def check_images(inputs: Tensor, recipe: Recipe) -> None:
    """Check that inputs are images (N, C, H, W) if the recipe crops or flips them."""
    expect(inputs.ndim == 4 or not (recipe.crop or recipe.flip), "images (N, C, H, W) to crop and flip",
           inputs, "write crop=0, flip=False")


@dataclass(frozen=True)
class History:
    """History of a training: per epoch the mean cross-entropy (nats) and the accuracy in [0, 1].

    Both come from augmented training batches in train mode. For a result use `compute_accuracy`.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def train(network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, *,
          device: str | torch.device = "cpu", progress: Progress | None = None,
          keeper: Keeper = NO_KEEPER) -> History:
    """Train `network` in place with cross-entropy on hard labels.

    The same recipe, network and data give the same weights, bit for bit on one CPU with one number of threads
    (`torch.set_num_threads`; it changes the order of sums). PyTorch's global random state is neither used nor
    changed. A last batch of one example joins the batch before it.

    Args:
        network: (N, ...) -> logits (N, classes). Parameters that require no gradient stay as they are. The
            network is moved to `device`; its modes are restored.
        inputs: (N, C, H, W), floating point; any (N, ...) without crops and flips. All must fit on `device`.
        labels: (N,), int64, from 0 to classes - 1.
        device: where to train (default "cpu").
        progress: called as `progress("train", epoch, epochs)` after each epoch.
        keeper: keeps all that training changes.

    Raises:
        SutureError: unfit shapes, types or labels, no parameter to train, or a loss that is not finite.
    """
    expect(inputs.is_floating_point(), "floating point inputs", inputs, "write inputs.float()")
    expect(labels.dtype == torch.int64 and labels.ndim == 1, "int64 labels (N,)", labels)
    check_equal_lengths(inputs, labels, "inputs and labels", "give one label for each input")
    expect(len(labels) >= 2, "at least 2 examples to train on", len(labels))
    check_images(inputs, recipe)
    device = torch.device(device)
    network.to(device)
    inputs, labels = inputs.to(device), labels.to(device)
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    expect(bool(parameters), "parameters that require a gradient", "none", "write network.requires_grad_()")
    # Steps are fused (CPU and CUDA, PyTorch 2.4), because small networks spend their time in the optimiser.
    optimizer = make_optimizer(parameters, recipe, fused=device.type in ("cpu", "cuda"))
    # Order and augmentation are drawn on the CPU, so they are the same on every device.
    at = TrainingPosition(torch.Generator().manual_seed(recipe.seed), torch.zeros((), device=device),
                          torch.zeros((), device=device, dtype=torch.int64))
    state = {"position": at, "network": network, "optimizer": optimizer}
    with (seed_torch(recipe.seed, device), set_mode(network, training=True), torch.enable_grad(),
          keeper.keep("train", state) as kept):
        if kept.fill():
            at.set_random_state(device)
        while at.epoch < recipe.epochs:
            _train_epoch(network, inputs, labels, recipe, optimizer, at, kept)
            at.end_epoch(len(labels))
            if not math.isfinite(at.losses[-1]):
                raise SutureError(f"the loss became {at.losses[-1]} in epoch {at.epoch} at learning rate "
                                  f"{recipe.lr:g}; write lr={recipe.lr / 10:g}, and look for NaN in the "
                                  "inputs")
            if progress is not None:
                progress("train", at.epoch, recipe.epochs)
            at.note_random_state(device)
            kept.step(at.epoch)
        kept.finish(at.epoch)
    optimizer.zero_grad(set_to_none=True)
    return History(tuple(at.losses), tuple(at.accuracies))


def compute_accuracy(network: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """Compute the share of examples whose label has the largest logit, in [0, 1].

    Args:
        network: (N, ...) -> logits (N, classes). It runs in eval mode on its own device; modes are restored.
        inputs, labels: (N, ...) and (N,), on any device; moved batch by batch.
        batch_size: examples per forward pass (default 256). It affects memory and time only.

    Raises:
        SutureError: no example, or two lengths that differ.
    """
    check_equal_lengths(inputs, labels, "inputs and labels", "give one label for each input")
    expect(len(labels) > 0, "at least 1 example", len(labels))
    device = next((tensor.device for tensor in network.parameters()), inputs.device)
    right = 0
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    with set_mode(network, training=False), torch.no_grad():
        for batch, truth in batches:
            guess = network(batch.to(device)).argmax(1)
            right += int((guess == truth.to(device)).sum())
    return right / len(labels)


def _find_batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return start and end of each batch; a single leftover example joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _train_epoch(network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe,
                 optimizer: torch.optim.Optimizer, at: TrainingPosition, kept: KeptPass) -> None:
    """Run the rest of one pass over the data."""
    n = len(labels)
    bounds = _find_batch_bounds(n, recipe.batch_size)
    if at.order is None:
        at.order = torch.randperm(n, generator=at.generator)
    order = at.order.to(labels.device)
    for step, (start, stop) in list(enumerate(bounds, at.epoch * len(bounds)))[at.batch:]:
        set_rate(optimizer, recipe, step, recipe.epochs * len(bounds))
        rows = order[start:stop]
        truth = labels[rows]
        logits = network(augment(inputs[rows], at.generator, recipe.crop, recipe.flip))
        if step == 0:
            expect(logits.ndim == 2 and len(logits) == len(rows), f"logits ({len(rows)}, classes)", logits)
            check_classes(labels, logits.shape[1], "give the network as many logits as there are classes")
        loss = F.cross_entropy(logits, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        at.total += loss.detach() * (stop - start)
        at.right += (logits.detach().argmax(1) == truth).sum()
        at.batch += 1
        if kept.active:
            at.note_random_state(labels.device)
            kept.step(at.epoch)
