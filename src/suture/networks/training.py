"""Recipes, optimisers, schedules and augmentation for all training, and the loop that trains whole
networks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import Progress, SutureError, make_unknown_error

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "onecycle"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the paper's, without its augmentation: see `paper`.

    Arguments:
        epochs: passes over the data, at least 1 (default 100).
        batch_size: examples per step, at least 2 (default 64): batch norm has no variance from one example.
        lr: peak learning rate (default 1e-3). Small networks on few images bear 1e-2 with "onecycle".
        weight_decay: L2 penalty for "adam" and "sgd", decoupled for "adamw" (default 1e-5).
        optimizer: "adam" (default), "adamw", or "sgd" (Nesterov momentum 0.9).
        schedule: "constant" (default); "cosine", down to zero; "onecycle", a linear rise over the first 30 %
            of the steps from lr / 25, then a cosine down to zero. Leave "constant" for short trainings: the
            other two end converged. All schedules step once per batch.
        crop: zero padding in pixels for random crops of the original size (default 0: no crops).
        flip: mirror half of the images left to right (default False; wrong for digits and letters).
        seed: of the order of examples, of the augmentation and of dropout (default 0). Initialisation is
            not training's.

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
        """The base networks of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299): Adam 1e-3, weight decay
        1e-5, batch 64, 100 epochs, crops of the image padded by 4 pixels, flips. For 32x32 photographs.
        """
        return cls(crop=4, flip=True, seed=seed)


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class History:
    """What training went through: per epoch the mean cross-entropy (nats) and the accuracy in [0, 1].

    Both are taken on the augmented training batches while the weights still move, in train mode; they are
    signs of life, not results. For a result use `accuracy`.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def train(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> History:
    """Train `network` in place with cross-entropy on hard labels.

    Arguments:
        network: (N, ...) -> logits (N, classes). Parameters that require no gradient stay as they are. It is
            moved to `device` and left there; the train or eval mode of each of its modules comes back.
        inputs: (N, C, H, W), floating point; any (N, ...) when the recipe has neither crops nor flips. Held
            on `device` as a whole for the length of the call.
        labels: (N,), int64, from 0 to classes - 1.
        recipe: see `Recipe`.
        device: where to train (default "cpu").
        progress: called as `progress("train", epoch, epochs)` after each epoch.

    The same recipe, network and data give the same weights, bit for bit on one CPU with one number of
    threads (`torch.set_num_threads`: it changes the order of sums); PyTorch's global random state is neither
    read nor moved. A last batch of one example joins the batch before it.

    Raises SutureError when shapes, types or labels do not fit, when nothing in the network can be trained,
    and when the loss of an epoch is not finite (the weights are then useless).
    """
    device = torch.device(device)
    _check_data(inputs, labels, recipe)
    network.to(device)
    inputs, labels = inputs.to(device), labels.to(device)
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    if not parameters:
        raise SutureError("no parameter requires a gradient; write network.requires_grad_()")
    # Fused steps where PyTorch has had them since 2.4: a small network spends its time in the optimizer.
    optimizer = make_optimizer(parameters, recipe, fused=device.type in ("cpu", "cuda"))
    # The order and the augmentation are drawn on the CPU, so that they are the same on every device.
    generator = torch.Generator().manual_seed(recipe.seed)
    losses, accuracies = [], []
    with seed_torch(recipe.seed, device), _set_mode(network, training=True), torch.enable_grad():
        for epoch in range(recipe.epochs):
            loss, right = _train_epoch(network, inputs, labels, recipe, optimizer, generator, epoch)
            if not math.isfinite(loss):
                raise SutureError(
                    f"the loss became {loss} in epoch {epoch + 1} of {recipe.epochs} at learning rate "
                    f"{recipe.lr:g}; try lr={recipe.lr / 10:g}, and look for NaN in the inputs"
                )
            losses.append(loss)
            accuracies.append(right)
            if progress is not None:
                progress("train", epoch + 1, recipe.epochs)
    optimizer.zero_grad(set_to_none=True)
    return History(tuple(losses), tuple(accuracies))


def augment(images: Tensor, generator: torch.Generator, crop: int, flip: bool) -> Tensor:
    """Random crops and left-right flips, drawn for each image, done for the batch in one gather.

    Arguments:
        images: (N, C, H, W), on any device.
        generator: a CPU generator; the draws depend on N, `crop` and `flip` alone, not on the device.
        crop: pixels of zero padding on each side, from which an H x W window is cut; 0 for none.
        flip: mirror each image with probability one half, after cropping.

    Returns a new (N, C, H, W) tensor, or `images` itself when there is nothing to do.
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


def compute_accuracy(network: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """The share of examples whose largest logit is their label's, in [0, 1].

    Arguments:
        network: (N, ...) -> logits (N, classes). Run in eval mode on its own device; modes come back.
        inputs, labels: (N, ...) and (N,), on any device; moved batch by batch.
        batch_size: examples per forward pass (default 256). Bears on memory and time only.

    Raises SutureError when there is no example or when the two lengths differ.
    """
    if len(inputs) != len(labels) or len(labels) == 0:
        raise SutureError(
            f"expected as many labels as inputs and at least one, got {len(inputs)} inputs and "
            f"{len(labels)} labels"
        )
    device = next((tensor.device for tensor in network.parameters()), inputs.device)
    right = 0
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    with _set_mode(network, training=False), torch.no_grad():
        for batch, truth in batches:
            guess = network(batch.to(device)).argmax(1)
            right += int((guess == truth.to(device)).sum())
    return right / len(labels)


def derive_seed(seed: int, *names: str) -> int:
    """A seed for what these names name, whatever else there is beside it (law 7)."""
    return int.from_bytes(hashlib.sha256("/".join([str(seed), *names]).encode()).digest()[:7], "big")


@contextmanager
def seed_torch(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed PyTorch's global random state of the CPU and of `device` for a block, and put it back after it."""
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # Not torch.manual_seed: it would also reseed the devices that are not put back.
        torch.default_generator.manual_seed(seed)
        for card in cuda:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _set_mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _check_data(inputs: Tensor, labels: Tensor, recipe: Recipe) -> None:
    if not inputs.is_floating_point():
        raise SutureError(f"inputs must be floating point, got {inputs.dtype}; write inputs.float()")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise SutureError(f"labels must be int64 of shape (N,), got {labels.dtype} of {tuple(labels.shape)}")
    if len(inputs) != len(labels) or len(labels) < 2:
        raise SutureError(
            f"expected as many labels as inputs and at least two, got {len(inputs)} inputs and "
            f"{len(labels)} labels"
        )
    check_images(inputs, recipe)
    if int(labels.min()) < 0:
        raise SutureError(f"labels must not be negative, got {int(labels.min())}")


def check_images(inputs: Tensor, recipe: Recipe) -> None:
    """Crops and flips are of images.

    Raises SutureError when the recipe has them and `inputs` is not (N, C, H, W).
    """
    if (recipe.crop or recipe.flip) and inputs.ndim != 4:
        raise SutureError(
            f"crops and flips need inputs (N, C, H, W), got {tuple(inputs.shape)}; write crop=0, flip=False"
        )


def make_optimizer(
    parameters: Iterable[Tensor], recipe: Recipe, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """The optimiser that a recipe names, at its peak learning rate.

    Arguments:
        parameters: what it moves; one whose ``grad`` is None when it steps stays as it is, state and all.
        recipe: see `Recipe`.
        fused: one kernel for all parameters. Default: what PyTorch takes for these parameters.
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
    """What the peak learning rate is multiplied by at `step` of `steps`, counted from 0."""
    if schedule == "constant":
        return 1.0
    rise = 0.3 * steps if schedule == "onecycle" else 0.0
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def _find_batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Where each batch starts and ends; a single leftover joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _train_epoch(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    epoch: int,
) -> tuple[float, float]:
    """One pass over the data: the mean loss and the accuracy."""
    n = len(labels)
    bounds = _find_batch_bounds(n, recipe.batch_size)
    order = torch.randperm(n, generator=generator).to(labels.device)
    top = int(labels.max())
    # Summed on the device and read once: reading each batch would make a GPU wait.
    total = torch.zeros((), device=labels.device)
    right = torch.zeros((), device=labels.device, dtype=torch.int64)
    for step, (start, stop) in enumerate(bounds):
        set_rate(optimizer, recipe, epoch * len(bounds) + step, recipe.epochs * len(bounds))
        rows = order[start:stop]
        truth = labels[rows]
        logits = network(augment(inputs[rows], generator, recipe.crop, recipe.flip))
        _check_logits(logits, stop - start, top)
        loss = F.cross_entropy(logits, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * (stop - start)
        right += (logits.detach().argmax(1) == truth).sum()
    return float(total) / n, int(right) / n


def _check_logits(logits: Tensor, n: int, top: int) -> None:
    if logits.ndim != 2 or len(logits) != n:
        raise SutureError(f"the network must give logits ({n}, classes), got {tuple(logits.shape)}")
    if top >= logits.shape[1]:
        raise SutureError(f"labels go up to {top} but the network has {logits.shape[1]} classes")
